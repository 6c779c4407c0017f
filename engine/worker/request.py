"""Builds the request that a sandbox reads on stdin."""

from __future__ import annotations

import msgspec

from engine.config.scripts import NamedScript
from engine.model.task import Claim


def build_request(claim: Claim, script: NamedScript | None) -> bytes:
    """Build a sandbox's stdin: one JSON object around the client's own text, which is not decoded here."""
    parts: list[bytes | msgspec.Raw] = [
        b'{"task_type":',
        msgspec.json.encode(claim.request.task_type),
        b',"parameters":',
        claim.request.parameters,
    ]
    if script is not None:
        parts += [b',"source":', msgspec.json.encode(script.source)]
        parts += [b',"source_name":', msgspec.json.encode(script.script.name)]
    return b"".join([*parts, b"}"])
