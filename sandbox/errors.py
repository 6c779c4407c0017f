"""The failures of our own side. How a run ended is never an exception: it is a ``Result``."""

from __future__ import annotations

import msgspec


class SandboxError(Exception):
    """The sandbox itself failed. The request is not at fault and may be tried again.

    Attributes:
        stage: the named step that failed, e.g. ``"spawn"`` or ``"enter_namespaces"``.
        message: one sentence for the operator.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.message = message


class PolicyFault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a policy file."""

    file: str
    key: str = ""
    """Dotted, e.g. ``limits.wall_s``; empty when the file as a whole is at fault."""
    reason: str
    line: int | None = None
    """Where it stands, counted from 1; ``None`` when the fault has no place."""
    column: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.reason) if part)


class PolicyError(SandboxError):
    """Policy files are invalid. Names each file, the key and the reason.

    Attributes:
        faults: everything that is wrong, where it stands in files.
    """

    def __init__(self, message: str, faults: tuple[PolicyFault, ...] = ()) -> None:
        super().__init__("policy", message)
        self.faults = faults

    @classmethod
    def of(cls, faults: tuple[PolicyFault, ...]) -> PolicyError:
        """The error that names all of these faults."""
        return cls("; ".join(map(str, faults)), faults)


class HostError(SandboxError):
    """The host lacks a layer that a policy requires. Names the layer and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__("host", message)
