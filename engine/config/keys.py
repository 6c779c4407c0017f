"""API keys: who holds which, and what it opens. The file holds hashes only; a key is shown once, when it is made.

A key is ``uak_ID_SECRET``: the prefix lets scanners of leaked secrets find it, the id finds its entry without a search.
The secret is 256 random bits, so that one round of SHA-256 is enough: a slow hash makes guessing a *chosen* password
costly, and nobody guesses these.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import tomli_w
from msgspec import Meta

from engine.config.file_modes import find_wide_mode
from engine.model.errors import EngineError
from engine.model.principal import Principal, Quotas, Scope
from engine.model.redact import redact

PREFIX = "uak"
CHECK_S = 1.0
_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_ID = re.compile(r"[0-9a-f]{12}")
_NOBODYS = "0" * 64


class KeysError(EngineError):
    """A file of keys that cannot be used: which file, which key, and why."""


class ExpiredKeyError(EngineError):
    """A key that held once."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the key {key_id} has expired")
        self.key_id = key_id


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry of the file."""

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    """Of the secret, in hex."""
    tenant: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    policies: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    """Names of the policies that its tasks may run under; all where it is not given."""
    quotas: Quotas = Quotas()
    made_at: datetime | None = None
    expires_at: datetime | None = None


class NewKey(NamedTuple):
    """A key that was just made. Its text is nowhere else."""

    text: str
    key_id: str
    key: Key


class KeysChange(NamedTuple):
    """What became of the keys when their file changed."""

    in_force: int
    """How many there are now."""
    error: KeysError | None = None
    """Why the new file cannot be used, so that the last keys stay in force."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Ids of those that open something else now."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, dict[str, Any]] = {}


class Keys:
    """The keys of a file, which may change while they are used."""

    def __init__(self, path: Path, policies: Iterable[str], on_reload: Callable[[KeysChange], None]) -> None:
        """
        Args:
            path: the file.
            policies: the names that there are.
            on_reload: called when the file has changed.

        Raises:
            KeysError: it cannot be used, or has no key.
        """
        self._path = path
        self._on_reload = on_reload
        self._policies = frozenset(policies)
        self._seen = _stamp(path)  # before it is read: what changes meanwhile is seen as a change
        self._keys = self._read()
        self._looked_at_s = time.monotonic()
        if not self._keys:
            raise KeysError(f"{path}: no key in it; `python -m engine keys new` makes one")

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the keys in force."""
        return frozenset(self._keys)

    def find(self, text: str) -> Principal | None:
        """Find the principal of a key; ``None`` if no entry has this key.

        Raises:
            ExpiredKeyError: somebody did.
        """
        self._look_again()
        found = _KEY.fullmatch(text)
        key_id, secret = found.groups() if found else ("", "")
        key = self._keys.get(key_id)
        # the same work whether or not there is such an id
        is_it = hmac.compare_digest(_sha256(secret), key.sha256 if key else _NOBODYS)
        if key is None or not is_it:
            return None
        return _principal(key_id, key)

    def that_may_use(self, policy: str) -> list[tuple[str, Key]]:
        """The keys in force that may submit tasks under a policy, with their ids."""
        self._look_again()
        now = datetime.now(UTC)
        return [
            (key_id, key)
            for key_id, key in self._keys.items()
            if Scope.SUBMIT in key.scopes
            and (key.policies is None or policy in key.policies)
            and (key.expires_at is None or key.expires_at > now)
        ]

    def sha256_of(self, key_id: str | None) -> str | None:
        """What is kept of a key: the SHA-256 of its secret, in hex; ``None`` if there is no such key."""
        key = self._keys.get(key_id or "")
        return None if key is None else key.sha256

    def find_by_hash(self, key_id: str, sha256: str) -> Principal | None:
        """Find the principal of a key that somebody showed before; ``None`` if it is not in force any more.

        Raises:
            ExpiredKeyError: its time is over.
        """
        self._look_again()
        key = self._keys.get(key_id)
        return _principal(key_id, key) if key is not None and hmac.compare_digest(key.sha256, sha256) else None

    def _look_again(self) -> None:
        """Take up what has changed, a second later at most. A file that is broken changes nothing, and is told of."""
        if time.monotonic() - self._looked_at_s < CHECK_S:
            return
        self._looked_at_s = time.monotonic()
        if (stamp := _stamp(self._path)) == self._seen:
            return
        self._seen = stamp
        try:
            old, self._keys = self._keys, self._read()
        except KeysError as error:
            self._on_reload(KeysChange(len(self._keys), error))
        else:
            self._on_reload(_changes(old, self._keys))

    def _read(self) -> dict[str, Key]:
        keys = read_keys(self._path)
        for key_id, key in keys.items():
            if unknown := sorted(set(key.policies or ()) - self._policies):
                raise KeysError(f"{self._path}: keys.{key_id}.policies: there is no policy {', '.join(unknown)}")
        return keys


def _principal(key_id: str, key: Key) -> Principal:
    """The principal of a key.

    Raises:
        ExpiredKeyError: its time is over.
    """
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise ExpiredKeyError(key_id)
    allowed = None if key.policies is None else frozenset(key.policies)
    scopes = frozenset(key.scopes)
    return Principal(tenant=key.tenant, scopes=scopes, policies=allowed, quotas=key.quotas, key_id=key_id)


def _changes(old: dict[str, Key], new: dict[str, Key]) -> KeysChange:
    return KeysChange(
        len(new),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(key_id for key_id in new.keys() & old.keys() if new[key_id] != old[key_id])),
    )


def read_keys(path: Path) -> dict[str, Key]:
    """Key id → entry.

    Raises:
        KeysError: the file cannot be read, others can write to it, or something in it cannot be.
    """
    try:
        if wide := find_wide_mode(path, secret=False):
            raise KeysError(f"{path}: {wide}")
        return _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise KeysError(f"{path}: {error}") from error


def make_key(
    tenant: str,
    scopes: Iterable[Scope],
    *,
    policies: Iterable[str] | None = None,
    quotas: Quotas | None = None,
    expires_at: datetime | None = None,
) -> NewKey:
    """Make a key that no one has had.

    Raises:
        KeysError: the tenant's name or the scopes cannot be.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    entry = {
        "sha256": _sha256(secret), "tenant": tenant, "scopes": [scope.value for scope in scopes],
        "policies": None if policies is None else list(policies), "quotas": msgspec.to_builtins(quotas or Quotas()),
        "made_at": datetime.now(UTC).replace(microsecond=0), "expires_at": expires_at,
    }  # fmt: skip
    try:
        return NewKey(f"{PREFIX}_{key_id}_{secret}", key_id, msgspec.convert(entry, Key))
    except msgspec.ValidationError as error:
        raise KeysError(str(error)) from error


def add_key(path: Path, new: NewKey) -> None:
    """Append a key's entry to a file, which is made if need be, for its owner's eyes only.

    Raises:
        KeysError: the file cannot be read or written.
    """
    with _alone(path):
        _write(path, (read_keys(path) if path.exists() else {}) | {new.key_id: new.key})


def remove_key(path: Path, key_id: str) -> str:
    """Take a key's entry out of a file. Whoever reads the file refuses the key a second later.

    Args:
        path: of the file.
        key_id: the key's id, or its beginning, where only one key's id begins so.
    Returns:
        The id.
    Raises:
        KeysError: there is no such key, or several, or the file cannot be read or written.
    """
    with _alone(path):
        keys = read_keys(path)
        found = [known for known in keys if key_id and known.startswith(key_id)]
        if len(found) != 1:
            several = f"the ids of several keys begin with {key_id}; give more of it"
            none = f"there is no key {key_id}; `python -m engine keys list` shows those that there are"
            raise KeysError(f"{path}: {several if found else none}")
        _write(path, {known: key for known, key in keys.items() if known != found[0]})
    return found[0]


def _parse(text: str) -> dict[str, Key]:
    entries = msgspec.convert(tomllib.loads(text), _File).keys
    return {key_id: _entry(key_id, entry) for key_id, entry in entries.items()}


def _entry(key_id: str, entry: dict[str, Any]) -> Key:
    if not _ID.fullmatch(key_id):
        raise ValueError(f"keys.{redact(key_id)}: an id is twelve hexadecimal digits")
    try:
        key = msgspec.convert(entry, Key)
    except msgspec.ValidationError as error:
        raise ValueError(f"keys.{key_id}: {error}") from None
    if key.expires_at is not None and key.expires_at.tzinfo is None:
        raise ValueError(f"keys.{key_id}.expires_at: needs an offset from UTC, such as Z")
    return key


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time changes the file: of two keys that are made at once, none is lost."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeysError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: dict[str, Key]) -> None:
    """All at once: who reads meanwhile reads the old file or the new one. Whose it is and who may read it stays."""
    text = tomli_w.dumps(
        {"keys": {key_id: msgspec.to_builtins(key, builtin_types=[datetime]) for key_id, key in keys.items()}}
    )
    try:
        path = path.resolve()  # a link stays one
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(f"# API keys, as hashes. Written by: python -m engine keys\n{text}")
                file.flush()
                os.fsync(fd)
            if path.exists():
                old = path.stat()
                os.chmod(temporary, old.st_mode & 0o777)
                if old.st_uid != os.geteuid():  # root changes the file of the service's own user
                    os.chown(temporary, old.st_uid, old.st_gid)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise KeysError(f"{path}: cannot be written: {error.strerror}") from error


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
