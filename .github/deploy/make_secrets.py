"""Makes the secrets of compose.yaml where there are none yet. Its service `secrets` runs this, on its volumes alone.

Each part gets a folder (a volume of its own) with what it must know, and nothing else. Names: see compose.yaml.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from engine.config.keys import add_key, make_key
from engine.model.principal import Scope

SECRETS_DIR = Path("/run/secrets")


def main(folder: Path) -> None:
    """Write what is missing; what is there stays, so that nothing changes under a running service."""
    database = keep(folder / "postgres" / "password", secrets.token_urlsafe(32))
    redis = keep(folder / "valkey" / "password", secrets.token_urlsafe(32))
    keep(folder / "valkey" / "valkey.conf", valkey_conf(redis))
    service = folder / "service"
    keep(service / "database_url", f"postgresql://unityai:{database}@postgres:5432/unityai")
    keep(service / "redis_url", f"redis://:{redis}@valkey:6379/0")
    keep(service / "callback_secret", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    if not (service / "keys.toml").exists():
        make_first_key(service / "keys.toml", folder / "client" / "api_key")


def valkey_conf(password: str) -> str:
    """Nothing is saved: PostgreSQL is the truth. When it is full it refuses; it never forgets by itself."""
    settings = {
        "requirepass": password,
        "bind": "* -::*",
        "save": '""',
        "appendonly": "no",
        "maxmemory": "400mb",
        "maxmemory-policy": "noeviction",
    }
    return "\n".join(f"{name} {value}" for name, value in settings.items())


def make_first_key(file: Path, text: Path) -> None:
    """An API key for everything: its hash for the service, itself for the operator, who may revoke it."""
    made = make_key("operator", list(Scope))
    text.parent.mkdir(parents=True, exist_ok=True)
    text.unlink(missing_ok=True)
    text.write_text(f"{made.text}\n", encoding="ascii")
    text.chmod(0o400)
    add_key(file, made)
    file.chmod(0o444)


def keep(path: Path, fresh: str) -> str:
    """What is in a file; ``fresh``, if it is not there yet. Written whole or not at all.

    Everybody in the containers that have the volume may read it: each has one user, but not all have the same.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(f"{fresh}\n", encoding="ascii")
        part.chmod(0o444)
        os.replace(part, path)
    return path.read_text(encoding="ascii").strip()


if __name__ == "__main__":
    main(SECRETS_DIR)
