"""Compare two policies: which grants become looser, which tighter. Made for a gate in review.

Each key has one rule. A key without a rule cannot be compared, which a test finds before anybody needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.policies.show import quantity
from sandbox import Policy, parse_entry

Direction = Literal["looser", "tighter", "changed"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two policies."""

    direction: Annotated[Direction, Meta(description="changed: it grants neither more nor less.")]
    key: Annotated[str, Meta(description="Of the policy's file.")]
    old: Annotated[str, Meta(description="Empty where the second grants it and the first does not.")]
    new: str

    def __str__(self) -> str:
        if self.old and self.new:
            return f"{self.direction:<8} {self.key:<26} {self.old} → {self.new}"
        return f"{self.direction:<8} {self.key:<26} {f'+ {self.new}' if self.new else f'- {self.old}'}"


Rule = Callable[[str, Any, Any], list[Change]]
"""(key, old value, new value) → the changes; called with values that differ."""


def compare(old: Policy, new: Policy) -> list[Change]:
    """The changes from ``old`` to ``new``, looser ones first."""
    before, after = _values(old), _values(new)
    changes = [
        change
        for key, rule in RULES.items()
        if before[key] != after[key]
        for change in rule(key, before[key], after[key])
    ]
    return sorted(changes, key=lambda change: ("looser", "tighter", "changed").index(change.direction))


def keys(kind: type[msgspec.Struct] = Policy, above: str = "") -> list[str]:
    """Every dotted key of a policy file."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found += keys(field.type, f"{above}{field.name}.")
        elif field.name not in ("name", "digest"):
            found.append(above + field.name)
    return found


def _values(policy: Policy) -> dict[str, Any]:
    found = {}
    for key in keys():
        value: Any = policy
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    return found


def _change(direction: Direction, key: str, old: Any, new: Any) -> list[Change]:
    return [Change(direction=direction, key=key, old=_text(key, old), new=_text(key, new))]


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quantity(key, value) if isinstance(value, int | float) else str(value)


def _more_is_looser(key: str, old: float, new: float) -> list[Change]:
    return _change("looser" if new > old else "tighter", key, old, new)


def _more_or_none_is_looser(key: str, old: float | None, new: float | None) -> list[Change]:
    return _change("looser" if new is None or (old is not None and new > old) else "tighter", key, old, new)


def _true_is_tighter(key: str, old: bool, new: bool) -> list[Change]:
    return _change("tighter" if new else "looser", key, old, new)


def _ordered(*from_tight_to_loose: str) -> Rule:
    def rule(key: str, old: str, new: str) -> list[Change]:
        looser = from_tight_to_loose.index(new) > from_tight_to_loose.index(old)
        return _change("looser" if looser else "tighter", key, old, new)

    return rule


def _more_grants(key: str, old: Collection[str], new: Collection[str]) -> list[Change]:
    return _by_item(key, old, new, added="looser", removed="tighter")


def _more_grants_in_groups(key: str, old: Collection[Sequence[str]], new: Collection[Sequence[str]]) -> list[Change]:
    """As of a list without groups; what only moved from group to group decides about speed."""
    before, after = ([name for group in groups for name in group] for groups in (old, new))
    return _more_grants(key, before, after) or _no_weight(key, old, new)


def _more_is_asked(key: str, old: Collection[str], new: Collection[str]) -> list[Change]:
    return _by_item(key, old, new, added="tighter", removed="looser")


def _by_item(
    key: str, old: Collection[str], new: Collection[str], *, added: Direction, removed: Direction
) -> list[Change]:
    """A change for each item that came or went; another order alone means nothing."""
    came = [Change(direction=added, key=key, old="", new=item) for item in new if item not in old]
    return came + [Change(direction=removed, key=key, old=item, new="") for item in old if item not in new]


def _hosts(key: str, old: Collection[str], new: Collection[str]) -> list[Change]:
    """A change for each host that came or went; ``changed`` if an entry of the other side covers that host."""
    changes = []
    for change in _more_grants(key, old, new):
        entry, others = (change.new, old) if change.new else (change.old, new)
        covered = any(_covers(other, entry) for other in others)
        changes.append(msgspec.structs.replace(change, direction="changed") if covered else change)
    return changes


def _covers(wide: str, narrow: str) -> bool:
    """Whether all that one entry of ``network.allow`` grants is granted by another too."""
    outer, inner = parse_entry(wide), parse_entry(narrow)
    return outer == inner or (outer.kind != "exactly" and outer.covers(inner.host, inner.port))


def _no_weight(key: str, old: Any, new: Any) -> list[Change]:
    return _change("changed", key, old, new)


def _always_looser(key: str, old: Any, new: Any) -> list[Change]:
    """Which of the two is less cannot be said, so somebody has to look."""
    return _change("looser", key, old, new)


RULES: MappingProxyType[str, Rule] = MappingProxyType(
    {
        "description": _no_weight,
        "task_type": _always_looser,
        "max_attempts": _more_is_looser,
        "start": _ordered("cold", "warm"),
        "preload": _more_grants,  # it runs in the zygote, before anything is locked down
        "preload_if_named": _more_grants_in_groups,
        "libraries": _always_looser,
        "require": _more_is_asked,
        "limits.wall_s": _more_is_looser,
        "limits.cpu_s": _more_is_looser,
        "limits.memory_mib": _more_is_looser,
        "limits.processes": _more_is_looser,
        "limits.threads": _more_is_looser,
        "limits.open_files": _more_is_looser,
        "limits.output_kib": _more_is_looser,
        "limits.result_kib": _more_is_looser,
        "limits.workspace_mib": _more_is_looser,
        "limits.workspace_files": _more_is_looser,
        "limits.artifacts_mib": _more_is_looser,
        "limits.processors": _more_or_none_is_looser,
        "filesystem.read": _more_grants,
        "filesystem.inputs": _ordered("none", "read-only"),
        "network.allow": _hosts,
        "network.deny_private": _true_is_tighter,
        "network.connections": _more_is_looser,
        "network.connections_total": _more_is_looser,
        "network.in_mib": _more_is_looser,
        "network.out_mib": _more_is_looser,
        "network.head_kib": _more_is_looser,
        "network.first_byte_s": _more_is_looser,
        "network.total_s": _more_is_looser,
        "syscalls.profile": _ordered("threads", "processes"),
        "syscalls.allow": _more_grants,
    }
)
"""Dotted key of a policy file → how it is compared."""
