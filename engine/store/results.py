"""The JSON document of bytes in which ``tasks.outcome`` holds a ``TaskResult``, on one level as the API answers it.

Versions that run beside each other during an upgrade read each other's documents: a field that a document lacks has
its default, and one that is unknown is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from engine.model.result import ArtifactFacts, NoRun, Script, TaskResult
from engine.model.status import NULL
from sandbox import Result

RENAMED = ("value", "artifacts", "policy")
"""Fields of a ``Result`` that the document has in another form: ``result``, the facts alone, a column of its own."""
DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = MappingProxyType(
    {
        field.name: msgspec.json.Decoder(field.type)
        for field in msgspec.structs.fields(Result)
        if field.name not in RENAMED
    }
)


class _QueueTime(msgspec.Struct, frozen=True):
    """The part of a document's ``usage`` that is not the sandbox's."""

    queue_s: float = 0.0


def encode_result(result: TaskResult) -> bytes:
    """The document of a result, without the bytes of artifacts."""
    return msgspec.json.encode(result.flatten())


def decode_result(text: bytes, *, policy: str) -> TaskResult:
    """The result that a document holds.

    Args:
        text: the document.
        policy: name of the policy that the task ran under.

    Raises:
        msgspec.ValidationError: it is no such document.
    """
    document = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    usage = msgspec.json.decode(document.get("usage", NULL), type=_QueueTime | None)
    ran = document.get("isolation", NULL) != NULL
    return TaskResult(
        run=_decode_run(document, policy) if ran else msgspec.json.decode(text, type=NoRun),
        queue_s=None if usage is None else usage.queue_s,
        script=msgspec.json.decode(document.get("script", NULL), type=Script | None),
        artifacts=msgspec.json.decode(document.get("artifacts", b"[]"), type=tuple[ArtifactFacts, ...]),
    )


def _decode_run(document: Mapping[str, msgspec.Raw], policy: str) -> Result:
    value = document.get("result", NULL)
    fields = {name: decoder.decode(document[name]) for name, decoder in DECODERS.items() if name in document}
    return Result(**fields, value=None if value == NULL else value, policy=policy)
