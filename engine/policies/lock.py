"""The policies that somebody has signed off: their digests in one file, which a process can insist on.

``policies.lock`` lies beside the policy files and goes through review with them. With ``POLICY_LOCK=required`` a file
that was changed, added or taken away since stops the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from sandbox import Policy, PolicyError

FILE_NAME = "policies.lock"
LockState = Literal["signed off", "changed", "not signed off", "no lock"]
"""``changed`` since it was signed off; ``no lock`` where the folder has none that can be read."""
_HEAD = "# The digests of the policies that were signed off. Written by: python -m engine policies lock\n"


class LockStanding(NamedTuple):
    """How a policy stands against the lock, and the digest that was signed off."""

    state: LockState
    digest: str | None


def write_lock(folder: Path, policies: Iterable[Policy]) -> Path:
    """Write the digests of ``policies`` to the lock of a folder, as a whole or not at all, and return the file."""
    path = folder / FILE_NAME
    new = path.with_name(f".{FILE_NAME}.new")
    lines = sorted(f"{policy.name} {policy.digest}\n" for policy in policies)
    new.write_text(_HEAD + "".join(lines), encoding="utf-8")
    return new.replace(path)


def check_lock(folder: Path, policies: Iterable[Policy]) -> None:
    """Hold ``policies``, which are all of a folder, against its lock.

    Raises:
        PolicyError: there is no lock, or a policy differs, is missing, or is not in it; each is named.
    """
    locked = _read(folder / FILE_NAME)
    found = {policy.name: policy.digest for policy in policies}
    faults = [f"{name}: is in the lock and not in the folder" for name in sorted(set(locked) - set(found))]
    faults += [f"{name}: is not in the lock" for name in sorted(set(found) - set(locked))]
    faults += [
        f"{name}: was changed since it was signed off"
        for name in sorted(set(found) & set(locked))
        if found[name] != locked[name]
    ]
    if faults:
        fix = "Look at what changed (python -m engine policies diff), then sign it off: python -m engine policies lock"
        raise PolicyError(f"{folder / FILE_NAME}: {'; '.join(faults)}. {fix}")


def stand_against_lock(folder: Path, policies: Iterable[Policy]) -> dict[str, LockStanding]:
    """How each policy stands against the lock of its folder."""
    try:
        locked = _read(folder / FILE_NAME)
    except PolicyError:
        return {policy.name: LockStanding("no lock", None) for policy in policies}
    return {policy.name: _standing(policy, locked.get(policy.name)) for policy in policies}


def _standing(policy: Policy, locked: str | None) -> LockStanding:
    if locked is None:
        return LockStanding("not signed off", None)
    return LockStanding("signed off" if locked == policy.digest else "changed", locked)


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PolicyError(
            f"{path}: POLICY_LOCK requires it and it is not there. Sign the policies off: "
            "python -m engine policies lock"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read: {error}") from error
    entries = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if any(len(entry) != 2 for entry in entries) or len({entry[0] for entry in entries}) != len(entries):
        raise PolicyError(f"{path}: each line must be NAME sha256:DIGEST, each name once")
    return dict(entries)
