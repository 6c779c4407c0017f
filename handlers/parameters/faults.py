"""Finds every fault of a request's JSON, and says of each where it is and what to write instead.

msgspec stops at the first fault, and calls a field by the name of the object that it is in. This looks again, only
once a body has been refused: from the outermost object inwards, each part against its own type, as JSON text all the
way, so that a part is valid here if and only if it was valid there.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from handlers.parameters.patterns import in_words

MAX_FAULTS = 20
"""That are named; whoever sends more has one cause for many of them."""
MAX_LEVELS = 64
"""Of objects and arrays that are looked into: each costs one more reading of what is in it."""
_PLACE = re.compile(r"(?P<message>.*?)(?: - at (?P<name>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_POSITION = re.compile(r"\(byte (\d+)\)")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SHOWN = 80
"""Characters of a client's own name in a path."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a request that is invalid."""

    path: str
    """Where, e.g. ``$.parameters.data[1]``."""
    message: str


def find_faults(raw: bytes | msgspec.Raw, kind: Any, path: str) -> list[Fault]:
    """The faults of a JSON text that its type refuses, at most ``MAX_FAULTS``, in their order.

    Args:
        raw: the text; it is JSON.
        kind: the type that it is to have, e.g. a Struct or a union of Structs told apart by a tag.
        path: where the text stands, e.g. ``$.parameters``.
    """
    return list(itertools.islice(_faults(raw, kind, path, MAX_LEVELS), MAX_FAULTS))


def is_json(raw: bytes | msgspec.Raw) -> bool:
    """Whether a text is JSON of numbers that can be held, nested no deeper than can be read."""
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def unknown_field(name: str, known: Iterable[str], path: str) -> Fault:
    """The fault of a field that nobody reads, with the nearest name that there is."""
    known = sorted(known)
    hint = nearest(name, known) or f"there are: {', '.join(known)}"
    return Fault(path=_inner(path, name), message=f"Object contains unknown field `{name[:_SHOWN]}`; {hint}".rstrip())


def nearest(name: str, known: Iterable[str]) -> str:
    """The question for the known name that is most like one that is not; empty when none is like it."""
    near = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`? " if near else ""


def syntax_fault(body: bytes, error: str) -> str:
    """Describe the fault of a text that is not JSON, in a sentence that says what to write instead.

    Args:
        body: the text, in UTF-8.
        error: what msgspec says of it.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        return "the body begins with a byte order mark (U+FEFF); send UTF-8 without one"
    if (half := _lone_surrogate(body)) is not None:
        start, text = half
        return (
            f"a lone surrogate, `{text}` (byte {start}), is half of a character; write both halves, such as "
            "`\\ud83d\\ude00`, or `\\ufffd` in its place"
        )
    position = _POSITION.search(error)
    at = int(position[1]) if position else len(body)
    at += len(body[at:]) - len(body[at:].lstrip(b" \t\r\n")) if not _is_in_text(body, at) else 0
    return _at_character(body, at) or error


def _at_character(body: bytes, at: int) -> str | None:
    """Guess the purpose of the character at a place where the text is not JSON."""
    here = body[at : at + 1]
    if here and here < b" " and _is_in_text(body, at):
        written = {b"\n": "\\n", b"\r": "\\r", b"\t": "\\t"}.get(here, f"\\u{here[0]:04x}")
        name = {b"\n": "a line break", b"\r": "a carriage return", b"\t": "a tab"}.get(here, "a control character")
        return f"{name} stands in a text as it is (byte {at}); inside a JSON text write `{written}`"
    if here == b"'":
        return f"a single quote (byte {at}); JSON has texts and names in double quotes"
    if here in (b"]", b"}") and body[:at].rstrip().endswith(b","):
        return f"a comma stands before `{here.decode()}` (byte {at}), with nothing behind it; leave it out"
    for word, instead in _FOREIGN_WORDS.items():
        if word in (body[at : at + len(word)], body[at - 1 : at - 1 + len(word)]):  # msgspec counts some from 1
            return f"`{word.decode()}` (byte {at}) is no JSON; write {instead}"
    return None


_FOREIGN_WORDS = {
    b"NaN": '`null`, or the text `"NaN"`',
    b"Infinity": 'the text `"Infinity"`',
    b"True": "`true`",
    b"False": "`false`",
    b"None": "`null`",
    b"undefined": "`null`",
    b"//": "no comment",
    b"/*": "no comment",
    b"#": "no comment",
}


def _is_in_text(body: bytes, at: int) -> bool:
    before = body[:at].replace(b"\\\\", b"").replace(b'\\"', b"")
    return before.count(b'"') % 2 == 1


def _lone_surrogate(body: bytes) -> tuple[int, str] | None:
    """Where half of a character is written alone, and how: RFC 8259, section 8.2."""
    high_until, high_at, high = -1, 0, ""
    for escape in _ESCAPE.finditer(body):
        code = int(escape[1], 16) if escape[1] else 0
        if high and not (escape.start() == high_until and 0xDC00 <= code <= 0xDFFF):
            return high_at, high
        if 0xDC00 <= code <= 0xDFFF and not high:
            return escape.start(), escape[0].decode("ascii")
        high = ""
        if 0xD800 <= code <= 0xDBFF:
            high_until, high_at, high = escape.end(), escape.start(), escape[0].decode("ascii")
    return (high_at, high) if high else None


def _faults(raw: bytes | msgspec.Raw, kind: Any, path: str, levels: int) -> Iterator[Fault]:
    """The faults of a part, those of its own parts first: only a part that is whole can be wrong as a whole."""
    try:
        msgspec.json.decode(raw, type=kind)
    except RecursionError:
        yield Fault(path=path, message="the JSON is nested too deep")
        return
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = str(error)
    else:
        return
    inner = _inner_faults(raw, _without_notes(kind), path, levels - 1)
    first = next(inner, None) if levels else None
    if first is None:
        yield _own_fault(said, kind, path, raw)
    else:
        yield first
        yield from inner


def _own_fault(said: str, kind: Any, path: str, raw: bytes | msgspec.Raw) -> Fault:
    """A fault of a part as a whole. A Struct's own check names one of its fields by a path of its own."""
    found = _PLACE.fullmatch(said)
    message, place = (found["message"], found["path"] or "") if found else (said, "")
    choices = _choices(kind) if message.startswith(("Invalid ", "Expected ")) and not place else []
    if choices:
        message += f"; it must be one of: {', '.join(choices)}"
    if message.startswith("Expected `object`") and not place:
        message += _instead_of_object(raw, kind)
    return Fault(path=path + place, message=in_words(message))


def _instead_of_object(raw: bytes | msgspec.Raw, kind: Any) -> str:
    """What to send where something else stands for an object: often its own JSON, encoded once more."""
    text = bytes(raw).lstrip()
    if text[:1] == b'"' and text[1:64].lstrip().startswith(b"{"):
        return "; this is a text that holds JSON: send the object itself"
    structs = [part for part in _parts(kind) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return f"; an object has: {', '.join(_fields_of(structs[0]))}" if len(structs) == 1 else ""


def _inner_faults(raw: bytes | msgspec.Raw, kind: Any, path: str, levels: int) -> Iterator[Fault]:
    text = bytes(raw).lstrip()[:1]
    if text == b"{":
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        structs = [part for part in _parts(kind) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
        if structs:
            yield from _struct_faults(fields, structs, path, levels)
        else:
            kinds = next((get_args(part) for part in _parts(kind) if get_origin(part) is dict), (str, Any))
            for name, value in fields.items():
                yield from _faults(msgspec.json.encode(name), kinds[0], _inner(path, name), levels)
                yield from _faults(value, kinds[1], _inner(path, name), levels)
    elif text == b"[":
        item_kinds = [get_args(part)[0] for part in _parts(kind) if get_origin(part) is list]
        if item_kinds or any(part is Any for part in _parts(kind)):
            for index, item in enumerate(msgspec.json.decode(raw, type=list[msgspec.Raw])):
                yield from _faults(item, item_kinds[0] if item_kinds else Any, f"{path}[{index}]", levels)


def _struct_faults(
    fields: dict[str, msgspec.Raw], structs: list[type[msgspec.Struct]], path: str, levels: int
) -> Iterator[Fault]:
    """Of an object that is to be one of some Structs: fields that are missing, unknown, or invalid in themselves."""
    struct, tag = structs[0], structs[0].__struct_config__.tag_field
    if tag is not None:
        tags = {str(one.__struct_config__.tag): one for one in structs}
        given = bytes(fields.get(tag, msgspec.Raw(b""))).strip(b'"').decode(errors="replace")
        if given not in tags:
            said = f"Invalid value {given[:_SHOWN]!r}; {nearest(given, tags)}" if tag in fields else "it is required; "
            yield Fault(path=_inner(path, tag), message=f"{said}it must be one of: {', '.join(tags)}")
            return
        struct = tags[given]
    known = _fields_of(struct)
    elsewhere = {name for one in structs for name in one.__struct_encode_fields__}
    for name, value in fields.items():
        if name in known:
            yield from _faults(value, known[name].type, _inner(path, name), levels)
        elif name in elsewhere:
            yield Fault(path=_inner(path, name), message=f"`{name}` does not go with `{struct.__struct_config__.tag}`")
        elif name != tag and struct.__struct_config__.forbid_unknown_fields:
            yield unknown_field(name, [*known, *([tag] if tag else [])], path)
    for name, field in known.items():
        if field.required and name not in fields:
            said = f"`{struct.__struct_config__.tag}` needs `{name}`" if tag else "it is required"
            yield Fault(path=_inner(path, name), message=said)


@functools.cache
def _fields_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """Name in JSON → field. To work its types out anew took most of a refusal's time."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _without_notes(kind: Any) -> Any:
    """The type without what ``Annotated`` says of it."""
    while get_origin(kind) is typing.Annotated:
        kind = get_args(kind)[0]
    return kind


def _parts(kind: Any) -> list[Any]:
    """The types of a union, without their notes; of any other type, itself."""
    kind = _without_notes(kind)
    if get_origin(kind) in (typing.Union, types.UnionType):
        return [part for one in get_args(kind) for part in _parts(one)]
    return [kind]


def _choices(kind: Any) -> list[str]:
    """The values of a type that has a few."""
    found: list[str] = []
    for part in _parts(kind):
        if get_origin(part) is Literal:
            found += map(str, get_args(part))
        elif isinstance(part, type) and issubclass(part, str) and hasattr(part, "__members__"):
            found += [str(member.value) for member in part.__members__.values()]
    return found


def _inner(path: str, name: str) -> str:
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    return f"{path}.{shown}" if _PLAIN_NAME.fullmatch(name) else f"{path}[{msgspec.json.encode(shown).decode()}]"
