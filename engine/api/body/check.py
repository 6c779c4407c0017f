"""Reads the body of ``POST /execute`` strictly, before anything else looks at it.

The parameters are checked against the type of their task type and then travel on as the client's own bytes. Two
readers must never understand one body differently, so whatever JSON parsers disagree about is refused: names given
twice, NaN, byte order marks, other encodings than UTF-8, numbers that nothing can hold, bottomless nesting.

As a program (``python -m engine.api.body.check``) it checks bodies that are handed to it on stdin: a big body takes
seconds, and msgspec holds the interpreter's lock meanwhile, so that a thread would stop the whole API.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from itertools import chain
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from engine.model.errors import InvalidRequestError
from engine.model.request import LABEL, LABEL_NAME, NO_PARAMETERS, ExecuteItem, ExecuteRequest, SubmitRequest
from engine.model.status import TASK_TYPES
from handlers.parameters.faults import MAX_FAULTS, Fault, find_faults, nearest, syntax_fault
from handlers.parameters.registry import PARAMETERS, decode, file_ids
from handlers.parameters.script import SCRIPT_NAME

HEAD = struct.Struct(">??Q")
"""Before a body: whether it is a batch, whether it has an idempotency key beside it, and its length."""
CPU_SIGNAL = signal.SIGPROF
"""Ends the checking process when a body has taken its processor time: no code of ours runs for it (setitimer(2))."""
LENGTH = struct.Struct(">Q")
"""Before an answer."""
MAX_BATCH = 1000
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
IDEMPOTENCY_KEY_RULE = "must be 1 to 255 characters of ASCII, without spaces"
_CONTAINERS = frozenset((dict, list))

_TOO_MUCH_MEMORY = "this JSON takes too much memory to be checked; send less JSON, longer texts, or a file"

_LABELS_IN_WORDS = {
    f"Expected `str` matching regex {LABEL!r}": "must be text without control characters",
    f"Expected `str` matching regex {LABEL_NAME!r}": "a label's name has letters, digits and _ . / - only",
}

_OTHER_CALL: dict[tuple[Any, bytes], str] = {
    (ExecuteRequest, b"["): "Expected `object`, got `array`; POST /execute/batch takes an array of tasks",
    (list[msgspec.Raw], b"{"): "Expected `array`, got `object`; POST /execute takes one task",
}
"""What a body should be, and its first sign, which is that of the other call's body."""

Body = TypeVar("Body")


class PackedRequest(msgspec.Struct, frozen=True):
    """How the checking process hands a request over: its parameters are the bytes ``start`` to ``end`` of the body."""

    request: SubmitRequest | None = None
    start: int = 0
    end: int = 0
    faults: tuple[Fault, ...] = ()
    """Instead of a request: what is wrong with it."""

    def unpack(self, body: bytes) -> SubmitRequest | InvalidRequestError:
        """The request with its parameters, which stay a part of ``body``; or why it is invalid."""
        if self.faults:
            return InvalidRequestError(*self.faults)
        parameters = msgspec.Raw(memoryview(body)[self.start : self.end])
        return msgspec.structs.replace(cast(SubmitRequest, self.request), parameters=parameters)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the checking process."""

    requests: list[PackedRequest] = []
    """In the order of the body: one, or one for each task of a batch."""
    faults: tuple[Fault, ...] = ()
    """The faults of the body as a whole."""


def check(body: bytes, *, has_key: bool = False) -> SubmitRequest:
    """Check a body; the request's parameters stay a part of it.

    Args:
        body: of ``POST /execute``.
        has_key: whether an idempotency key stands for it, so that what it means is worked out.
    Raises:
        InvalidRequestError: what is wrong with it, and where.
    """
    return _check(body, ExecuteRequest, has_key=has_key)[0]


def check_batch(body: bytes) -> list[SubmitRequest | InvalidRequestError]:
    """Check a body that is an array of tasks, each for itself.

    Raises:
        InvalidRequestError: it is no such array, or has no task, or more than ``MAX_BATCH``.
    """
    items = _decode(body, list[msgspec.Raw], "an array")
    if not 1 <= len(items) <= MAX_BATCH:
        raise _invalid("$", f"must have 1 to {MAX_BATCH} tasks; it has {len(items)}")
    return [_check_item(bytes(item)) for item in items]


def _check_item(text: bytes) -> SubmitRequest | InvalidRequestError:
    try:
        return _check(text, ExecuteItem)[0]
    except InvalidRequestError as error:
        return error


def _check(body: bytes, kind: type[ExecuteRequest], *, has_key: bool = False) -> tuple[SubmitRequest, msgspec.Struct]:
    """Check a body; the decoded parameters are given too, only so that the caller decides when they are let go of."""
    request = _decode(body, kind, "a JSON object")
    if request.task_type not in PARAMETERS:
        raise InvalidRequestError(_unknown_task_type(request.task_type))
    parameters = _decode_parameters(request, body)
    _refuse_repeated_names(body, request, parameters)
    key = getattr(request, "idempotency_key", None)
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise _invalid("$.idempotency_key", IDEMPOTENCY_KEY_RULE)
    script = getattr(parameters, "script", None) if request.task_type == "custom_script" else None
    script_name = script if script and SCRIPT_NAME.fullmatch(script) else None
    found: dict[str, Any] = {
        "script_name": script_name,
        "source_sha256": None if script is None or script_name else _sha256(script.encode("utf-8", "surrogatepass")),
        "parameters_sha256": _sha256(request.parameters),
        "file_ids": file_ids(parameters),
        "request_sha256": _fingerprint(request) if has_key or key is not None else None,
    }
    return SubmitRequest(**msgspec.structs.asdict(request), **found), parameters


def _sha256(data: bytes | msgspec.Raw) -> str:
    return hashlib.sha256(data).hexdigest()


def _fingerprint(request: ExecuteRequest) -> bytes:
    """SHA-256 of all that was asked: of the meaning of its JSON, not of its spelling.

    Blanks, escapes and the order of an object's names make no other request. The order of an array does, and so does
    another number (``1`` and ``1.0`` are two). A field that has its default is left out: a request means the same to
    an engine that knows more fields.
    """
    asked: dict[str, Any] = {
        field.name: value
        for field in _fields()
        if field.name != "parameters" and (value := getattr(request, field.name)) != _default(field)
    }
    meant = msgspec.json.decode(request.parameters)
    return hashlib.sha256(msgspec.json.encode([asked, meant], order="deterministic")).digest()


@functools.cache
def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    """Of a request, their types worked out once."""
    return msgspec.structs.fields(ExecuteRequest)


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _pack(found: Iterable[SubmitRequest | InvalidRequestError], body: bytes) -> list[PackedRequest]:
    packed, end = [], 0
    for one in found:
        if isinstance(one, InvalidRequestError):
            packed.append(PackedRequest(faults=one.errors))
        else:
            start, end = _find(body, bytes(one.parameters), end)
            packed.append(PackedRequest(msgspec.structs.replace(one, parameters=NO_PARAMETERS), start, end))
    return packed


def _find(body: bytes, text: bytes, begin: int = 0) -> tuple[int, int]:
    """Where a text that is part of the body stands, from ``begin`` on. Should it stand there twice, both are the same.

    Looking for its beginning and comparing the rest is four times as fast as looking for all of it.
    """
    start = body.find(text[:64], begin)
    while body[start : start + len(text)] != text:
        start = body.find(text[:64], start + 1)
    return start, start + len(text)


def _decode(body: bytes, kind: type[Body], form: str) -> Body:
    if not body.strip():
        raise _invalid("$", f"the body is empty; it must be {form}")
    try:
        body.decode("utf-8")
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise _invalid("$", f"the body is not UTF-8 (byte {error.start})") from None
    except (msgspec.DecodeError, RecursionError):
        raise _every_fault(body, kind) from None


def _every_fault(body: bytes, kind: type[Body]) -> InvalidRequestError:
    """Find the faults of a body: it is not JSON, or else the faults of all fields and of all parameters together."""
    try:
        msgspec.json.decode(body)
    except RecursionError:
        return _invalid("$", "the JSON is nested too deep")
    except msgspec.ValidationError:
        pass  # a number that nothing can hold, which is a fault of its field
    except msgspec.DecodeError as error:
        return _invalid("$", syntax_fault(body, str(error)))
    if (said := _OTHER_CALL.get((kind, body.lstrip()[:1]))) is not None:
        return _invalid("$", said)
    faults = find_faults(body, kind, "$")
    try:
        head = msgspec.json.decode(body, type=_Head)
    except msgspec.ValidationError:
        return InvalidRequestError(*map(_in_words, faults))
    if head.task_type and head.task_type not in PARAMETERS:
        faults.append(_unknown_task_type(head.task_type))
    elif head.task_type and bytes(head.parameters):
        faults += find_faults(head.parameters, PARAMETERS[head.task_type], "$.parameters")
    return InvalidRequestError(*map(_in_words, faults[:MAX_FAULTS]))


def _in_words(fault: Fault) -> Fault:
    """The fault of a label by what a label may be, not by a pattern."""
    return Fault(path=fault.path, message=_LABELS_IN_WORDS.get(fault.message, fault.message))


def _every_number(body: bytes, request: ExecuteRequest) -> InvalidRequestError:
    """Find the faults of parameters in which only the JSON values can be invalid."""
    faults = find_faults(request.parameters, Any, "$.parameters")
    return InvalidRequestError(*faults) if faults else _every_fault(body, type(request))


class _Head(msgspec.Struct):
    """As much of a body as says what its parameters should be."""

    task_type: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"")


def _decode_parameters(request: ExecuteRequest, body: bytes) -> msgspec.Struct:
    try:
        parameters: msgspec.Struct = decode(request.task_type, request.parameters)
    except msgspec.ValidationError:
        raise _every_fault(body, type(request)) from None
    return parameters


def _unknown_task_type(task_type: str) -> Fault:
    if task_type in TASK_TYPES:
        available = ", ".join(sorted(PARAMETERS))
        return Fault(path="$.task_type", message=f"{task_type} is not available yet; available: {available}")
    said = f"no such task type; {nearest(task_type, TASK_TYPES)}available: {', '.join(TASK_TYPES)}"
    return Fault(path="$.task_type", message=said)


def _invalid(path: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(Fault(path=path, message=message))


def _refuse_repeated_names(body: bytes, request: ExecuteRequest, parameters: msgspec.Struct) -> None:
    """Refuse an object that gives a name twice; decoders silently take the last one, or the first.

    Each name is followed by a colon. When the body has no more colons than the decoded objects have names, then no
    name was lost, and that is proof at the price of a count. Otherwise, mostly because a text has a colon in it, the
    body is parsed again by the one parser that shows every name.
    """
    try:
        envelope = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        fields = msgspec.json.decode(request.parameters, type=dict[str, msgspec.Raw])
        values = [getattr(parameters, name) for name in parameters.__struct_fields__]
        colons, names = body.count(b":"), len(envelope) + len(fields) + len(request.labels)
        names += _count_names(values, colons - names)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _every_number(body, request) from None
    if colons == names:
        return
    try:
        json.loads(body, object_pairs_hook=_distinct)
    except RecursionError:
        raise _invalid("$.parameters", "the JSON is nested too deep") from None
    except ValueError as error:
        raise _invalid("$.parameters", f"a number that nothing can hold: {error}") from None


def _count_names(values: Iterable[Any], most: int) -> int:
    """How many names the objects in ``values`` have; raw JSON in it is decoded.

    Goes level by level, and through a level without a step of Python for each value: a million rows take 0.05 s. Once
    it has found ``most``, more than which there cannot be, it looks no deeper.
    """
    count, level = 0, [msgspec.json.decode(value) if type(value) is msgspec.Raw else value for value in values]
    while level:
        kinds = set(map(type, level))
        objects = level if kinds == {dict} else [value for value in level if type(value) is dict]
        arrays = [value for value in level if type(value) is list] if list in kinds else []
        count += sum(map(len, objects))
        if count >= most:
            return count
        level = list(chain.from_iterable(arrays))
        if not _CONTAINERS.isdisjoint(map(type, chain.from_iterable(map(dict.values, objects)))):
            level += [value for value in chain.from_iterable(map(dict.values, objects)) if type(value) in _CONTAINERS]
        if _CONTAINERS.isdisjoint(map(type, level)):
            return count
    return count


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _invalid(f"$..{name[:80]}", "this name is given twice in one object")
        seen.add(name)


def serve(requests: BinaryIO, answers: BinaryIO, cpu_s: float) -> None:
    """Check bodies, each preceded by ``HEAD``, until there are no more.

    Args:
        requests: where they come from.
        answers: where a ``Reply`` for each goes, preceded by its ``LENGTH``.
        cpu_s: processor time that a body may take, seconds; it ends the process.
    """
    gc.disable()  # what a decoder makes has no cycles, and looking for some would take half of the time
    while len(head := requests.read(HEAD.size)) == HEAD.size:
        is_batch, has_key, length = HEAD.unpack(head)
        body, decoded = requests.read(length), None
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            if is_batch:
                reply = Reply(requests=_pack(check_batch(body), body))
            else:
                request, decoded = _check(body, ExecuteRequest, has_key=has_key)
                reply = Reply(requests=_pack([request], body))
        except InvalidRequestError as error:
            reply = Reply(faults=error.errors)
        except MemoryError:
            reply = Reply(faults=(Fault(path="$", message=_TOO_MUCH_MEMORY),))
        text = msgspec.json.encode(reply)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(LENGTH.pack(len(text)) + text)
        answers.flush()
        del decoded  # which takes a while, after the answer


if __name__ == "__main__":
    memory_bytes = int(sys.argv[2]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))
    except BrokenPipeError:  # the API has ended: nobody waits for the answer, and none is left to flush
        os._exit(1)
