"""The JSON document of bytes in which ``tasks.outcome`` holds a ``TaskResult``, on one level as the API answers it.

Versions that run beside each other during an upgrade read each other's documents: a field that a document lacks has
its default, and one that is unknown is passed over.

A large value stands last, and its length first (``result_bytes``). So the document is read without looking through the
value: of 8 MiB that takes 40 ms, in which nobody else is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from engine.model.result import ArtifactFacts, NoRun, Script, TaskResult
from engine.model.status import NULL
from sandbox import Result

LARGE_BYTES = 1 << 16
_LENGTH = re.compile(rb'\{"result_bytes":([0-9]{1,10}),')
_VALUE = b',"result":'
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
    fields = result.flatten()
    if result.events is not None:
        fields["events"] = result.events
    value = fields.pop("result")
    length = memoryview(value).nbytes
    if length < LARGE_BYTES:
        return msgspec.json.encode(fields | {"result": value})
    return msgspec.json.encode({"result_bytes": length, **fields, "result": value})


def decode_result(text: bytes, *, policy: str) -> TaskResult:
    """The result that a document holds.

    Args:
        text: the document.
        policy: name of the policy that the task ran under.

    Raises:
        msgspec.ValidationError: it is no such document.
    """
    text, value = _without_value(text)
    document = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    usage = msgspec.json.decode(document.get("usage", NULL), type=_QueueTime | None)
    ran = document.get("isolation", NULL) != NULL
    return TaskResult(
        run=_decode_run(document, policy, value) if ran else msgspec.json.decode(text, type=NoRun),
        queue_s=None if usage is None else usage.queue_s,
        script=msgspec.json.decode(document.get("script", NULL), type=Script | None),
        artifacts=msgspec.json.decode(document.get("artifacts", b"[]"), type=tuple[ArtifactFacts, ...]),
        events=msgspec.json.decode(document.get("events", NULL), type=int | None),
    )


def _without_value(text: bytes) -> tuple[bytes, msgspec.Raw | None]:
    """A document without its value, and the value, if it says how long that is; else all of it."""
    if (found := _LENGTH.match(text)) is None:
        return text, None
    start = len(text) - 1 - int(found[1])
    if start < found.end() or not text.endswith(_VALUE, 0, start):
        return text, None
    return text[: start - len(_VALUE)] + b"}", msgspec.Raw(memoryview(text)[start:-1])


def _decode_run(document: Mapping[str, msgspec.Raw], policy: str, value: msgspec.Raw | None) -> Result:
    value = document.get("result", NULL) if value is None else value
    fields = {name: decoder.decode(document[name]) for name, decoder in DECODERS.items() if name in document}
    return Result(**fields, value=None if value == NULL else value, policy=policy)
