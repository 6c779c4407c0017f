"""``python -m engine keys ...``: makes, lists and revokes API keys, and makes secrets."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import base64
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.shared import AsJson, load, note_in_audit_log, print_json, print_table, sentences
from engine.config.settings import Settings, SettingsError

if TYPE_CHECKING:
    from engine.config.keys import Key
    from engine.model.principal import Scope

File = Annotated[Path | None, typer.Option("--file", help="File of keys; API_KEYS_FILE unless given.")]


app = typer.Typer(help="Make, list and revoke API keys; make secrets.", no_args_is_help=True)


def _path_of(file: Path | None) -> Path:
    if (path := file or load().api_keys_file) is None:
        raise SettingsError(["API_KEYS_FILE is not set: name the file with --file"])
    return path


@app.command()
def new(  # noqa: PLR0917  each is an option
    tenant: Annotated[str, typer.Option(help="Whose tasks it submits and reads.")],
    scopes: Annotated[
        str, typer.Option(help="What it opens, with commas: submit, read, cancel, audit, metrics.")
    ] = "submit,read,cancel",
    policies: Annotated[
        str | None, typer.Option(help="Policies that its tasks may run under, with commas; all unless given.")
    ] = None,
    tasks_per_minute: Annotated[int | None, typer.Option(min=1, help="Tasks accepted in any 60 seconds.")] = None,
    queued_tasks: Annotated[int | None, typer.Option(min=1, help="Tasks that wait at the same time.")] = None,
    concurrent_tasks: Annotated[int | None, typer.Option(min=1, help="Tasks that run at the same time.")] = None,
    stored_mib: Annotated[
        int | None, typer.Option(min=1, help="MiB of files, artifacts and tasks; STORED_MIB unless given.")
    ] = None,
    files_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Files uploaded in any 60 seconds; FILES_PER_MINUTE unless given.")
    ] = None,
    expires_days: Annotated[float | None, typer.Option(help="Days until it holds no more.")] = None,
    file: File = None,
) -> None:
    """Make a key and print it, once: the file gets its hash. Running services take it up by themselves."""
    with sentences():
        import msgspec

        from engine.config.keys import KeysError, add_key, make_key
        from engine.model.principal import Quotas

        if expires_days is not None and expires_days <= 0:
            raise KeysError(f"--expires-days: must be more than 0, is {expires_days:g}")
        settings = load()
        quotas = Quotas(
            tasks_per_minute=tasks_per_minute,
            queued_tasks=queued_tasks,
            concurrent_tasks=concurrent_tasks,
            stored_mib=stored_mib,
            files_per_minute=files_per_minute,
        )
        made = make_key(
            tenant,
            _scopes(scopes),
            policies=_policies(policies, settings),
            quotas=quotas,
            expires_at=None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days),
        )
        add_key(_path_of(file), made)
        facts = {name: value for name, value in msgspec.to_builtins(made.key).items() if name != "sha256"}
        note_in_audit_log(settings, "key made", {"key_id": made.key_id} | facts)
        print(made.text)


@app.command("list")
def list_keys(file: File = None, json: AsJson = False) -> None:
    """List the keys of the file, never the keys themselves."""
    with sentences():
        import msgspec

        from engine.config.keys import read_keys

        keys = read_keys(_path_of(file))
        if json:
            shown = {key_id: msgspec.to_builtins(key) for key_id, key in keys.items()}
            print_json({key_id: {k: v for k, v in key.items() if k != "sha256"} for key_id, key in shown.items()})
        else:
            _print_keys(keys)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it, or its beginning.")],
    file: File = None,
) -> None:
    """Revoke a key. Running services refuse it a second later; its tasks go on."""
    with sentences():
        from engine.config.keys import remove_key

        key_id = remove_key(_path_of(file), key_id)
        note_in_audit_log(load(), "key revoked", {"key_id": key_id})
        print(f"revoked {key_id}")


@app.command()
def secret() -> None:
    """Print a fresh CALLBACK_SECRET."""
    print(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")


@app.command("receipt-key")
def receipt_key() -> None:
    """Print a fresh RECEIPT_KEY, and on stderr its public half, which `audit receipt --public-key` takes."""
    from engine.config.settings import RECEIPT_KEY_PREFIX
    from engine.telemetry.receipts import ReceiptSigner

    made = f"{RECEIPT_KEY_PREFIX}{base64.b64encode(secrets.token_bytes(32)).decode()}"
    print(made)
    print(f"public key: {ReceiptSigner((made,)).public.keys[0].x}", file=sys.stderr)


def _scopes(text: str) -> list[Scope]:
    from engine.config.keys import KeysError
    from engine.model.principal import Scope

    names = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(names) - {scope.value for scope in Scope}):
        raise KeysError(f"--scopes: there is no {', '.join(unknown)}; there are: {', '.join(Scope)}")
    return [Scope(name) for name in names]


def _policies(text: str | None, settings: Settings) -> list[str] | None:
    from engine.config.keys import KeysError
    from engine.policies.policies import Policies

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    known = {policy.name for policy in Policies.load(settings).all}
    if missing := sorted(set(names) - known):
        raise KeysError(f"--policies: there is no {', '.join(missing)}; there are: {', '.join(sorted(known))}")
    return names


def _print_keys(keys: dict[str, Key]) -> None:
    import msgspec

    rows = []
    for key_id, key in keys.items():
        quotas = ", ".join(f"{name} {value}" for name, value in msgspec.structs.asdict(key.quotas).items() if value)
        times = (f"{time:%Y-%m-%d}" if time else "" for time in (key.made_at, key.expires_at))
        policies = ", ".join(key.policies) if key.policies else "all"
        rows.append([key_id, key.tenant, ", ".join(key.scopes), policies, quotas, *times])
    print_table(["id", "tenant", "scopes", "policies", "quotas", "made", "expires"], rows)
