"""Decodes JSON, with one exception type for all faults of the input."""

from __future__ import annotations

from typing import Any

import msgspec


def decode_json(raw: msgspec.Raw | bytes, type_: Any = Any) -> Any:
    """Decode JSON like ``msgspec.json.decode``, with one exception type for all faults of the input.

    Raises:
        msgspec.ValidationError: not UTF-8, not JSON, nested too deep, or not of the type.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise msgspec.ValidationError(str(error)) from None
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"JSON is not UTF-8: {error.reason} (byte {error.start})") from None
    except RecursionError:
        raise msgspec.ValidationError("JSON is nested too deep") from None
