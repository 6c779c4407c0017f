"""What the host offers: each isolation layer, its version, and the mend where it is missing."""

from __future__ import annotations

import msgspec

from sandbox.policy import Policy


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One isolation layer as found on this host."""

    name: str
    available: bool
    version: str
    detail: str
    mend: str = ""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What ``probe`` found."""

    profile: str
    layers: tuple[Layer, ...]

    def missing(self, policy: Policy) -> tuple[Layer, ...]:
        """The layers that ``policy`` requires and this host lacks."""
        return tuple(layer for layer in self.layers if layer.name in policy.require and not layer.available)


def probe() -> Host:
    """Try each layer for real, in a throw-away process (blocking, about 0.2 s)."""
    raise NotImplementedError
