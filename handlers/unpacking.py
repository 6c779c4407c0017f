"""Unpacks the body of an answer as its Content-Encoding says (RFC 9110, 8.4), within a limit, and tells a cut one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from handlers.failures import Refusal

ACCEPTED = "gzip, deflate, br, zstd"
_MAX_CODINGS = 3
_STEP = 256
"""Bytes that are fed at once to a decoder without a limit of its own: of zstd they become 8 MiB at most."""


def unpack(content: bytes, codings: str, max_bytes: int) -> bytes:
    """The body without its codings, the last of which was applied last.

    Raises:
        Refusal: a coding is unknown, the body is cut off or broken, or unpacks to more than ``max_bytes``.
    """
    names = [name.strip().lower() for name in codings.split(",") if name.strip()]
    if len(names) > _MAX_CODINGS or any(name not in _DECODERS for name in names):
        raise Refusal(
            "unsupported_content_encoding", f"The page is packed as {codings[:100]!r}; {ACCEPTED} can be unpacked."
        )
    for name in reversed(names):
        try:
            content = _DECODERS[name](content, max_bytes)
        except (Refusal, MemoryError):
            raise
        except Exception as error:  # each library has its own
            raise Refusal("corrupt_body", f"The page is not what {name} packs ({type(error).__name__}).") from None
    return content


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("too_large", f"The page has more than {max_bytes >> 10} KiB; ask for more with `max_kib`.")


def _cut_off(name: str) -> Refusal:
    return Refusal("incomplete_body", f"The page is cut off: what {name} packed has no end. Try again.")


def _gzip(content: bytes, max_bytes: int) -> bytes:
    made = bytearray()
    while content:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        made += decoder.decompress(content, max_bytes - len(made) + 1)
        if len(made) > max_bytes:
            raise _too_large(max_bytes)
        if not decoder.eof:
            raise _cut_off("gzip")
        content = decoder.unused_data.lstrip(b"\0")  # another member, or what fills a block up
    return bytes(made)


def _deflate(content: bytes, max_bytes: int) -> bytes:
    """With zlib's head, as it should be, or without, as some hosts send it."""
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        decoder = zlib.decompressobj(bits)
        try:
            made = decoder.decompress(content, max_bytes + 1)
        except zlib.error:
            if bits < 0:
                raise
            continue
        if len(made) > max_bytes:
            raise _too_large(max_bytes)
        if content and not decoder.eof:
            raise _cut_off("deflate")
        return made
    return b""


def _brotli(content: bytes, max_bytes: int) -> bytes:
    import brotli  # noqa: PLC0415 only for pages that are packed so

    decoder, made = brotli.Decompressor(), bytearray()
    for place in range(0, len(content), _STEP):
        made += decoder.process(content[place : place + _STEP])
        if len(made) > max_bytes:
            raise _too_large(max_bytes)
    if content and not decoder.is_finished():
        raise _cut_off("br")
    return bytes(made)


def _zstd(content: bytes, max_bytes: int) -> bytes:
    """All frames of it: RFC 8878, 3.1, has several one behind the other, and frames that say nothing."""
    import zstandard  # noqa: PLC0415 only for pages that are packed so

    library = zstandard.ZstdDecompressor(max_window_size=1 << 23)  # RFC 8878: 8 MiB for the web
    made, place, decoder = bytearray(), 0, None
    while place < len(content):
        decoder = library.decompressobj() if decoder is None or decoder.eof else decoder
        made += decoder.decompress(content[place : place + _STEP])
        if len(made) > max_bytes:
            raise _too_large(max_bytes)
        place = min(place + _STEP, len(content)) - len(decoder.unused_data)
    if decoder is not None and not decoder.eof:
        raise _cut_off("zstd")
    return bytes(made)


_DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = MappingProxyType(
    {
        "gzip": _gzip,
        "x-gzip": _gzip,
        "deflate": _deflate,
        "br": _brotli,
        "zstd": _zstd,
        "identity": lambda content, _: content,
    }
)
"""Name of a coding → the function that undoes it."""
