"""What can go wrong on our side. How a *task* ended is never an exception: it is a ``Result``."""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox itself failed; the task is not at fault and may be tried again.

    Attributes:
        stage: the named step that failed, e.g. ``"spawn"`` or ``"enter_namespaces"``.
        message: one sentence for the operator.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage
        self.message = message


class PolicyError(SandboxError):
    """A policy file that cannot be: names the file, the key and the reason."""

    def __init__(self, message: str) -> None:
        super().__init__("policy", message)


class HostError(SandboxError):
    """The host lacks a layer that a policy requires: names the layer and how to mend it."""

    def __init__(self, message: str) -> None:
        super().__init__("host", message)
