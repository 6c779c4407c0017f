"""Columns of a table from the fields of a Struct, by name: a field that is added to the Struct is stored and read.

A field that is itself a Struct stands for the columns of that Struct, but for those that the outer one has itself.
Labels and the like (a dict) are JSON text, a tuple is an array.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec

Row = TypeVar("Row", bound=msgspec.Struct)


class Columns(Generic[Row]):
    """Which columns hold a Struct, how it is written to them, and how it is read from a row."""

    def __init__(self, struct: type[Row], *, without: Iterable[str] = ()) -> None:
        """
        Args:
            struct: its fields are the columns.
            without: fields that are no columns; ``read`` is given their values.
        """
        self._struct = struct
        self._embedded: dict[str, Columns[Any]] = {}
        self._readers: dict[str, Callable[[Any], Any] | None] = {}
        for field in msgspec.structs.fields(struct):
            if field.name in without:
                continue
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                self._embedded[field.name] = Columns(field.type)
            else:
                self._readers[field.name] = _reader(field.type)
        self.name = struct.__name__
        """How ``queries.sql`` names these columns."""
        embedded = (name for columns in self._embedded.values() for name in columns.names)
        self.names: tuple[str, ...] = tuple(dict.fromkeys((*embedded, *self._readers)))

    def values(self, struct: Row) -> dict[str, Any]:
        """Column → value, as asyncpg takes it."""
        values: dict[str, Any] = {}
        for name, columns in self._embedded.items():
            values |= columns.values(getattr(struct, name))
        return values | {name: _written(getattr(struct, name)) for name in self._readers}

    def read(self, row: Mapping[str, Any], **others: Any) -> Row:
        """The Struct that a row holds.

        Args:
            row: has all the columns, and may have more.
            others: the fields that are no columns.
        """
        fields = {name: _read(row[name], reader) for name, reader in self._readers.items()}
        embedded = {name: columns.read(row) for name, columns in self._embedded.items()}
        return self._struct(**fields, **embedded, **others)


def _written(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, msgspec.Raw):
        return memoryview(value)
    return list(value) if isinstance(value, tuple) else value


def _read(value: Any, reader: Callable[[Any], Any] | None) -> Any:
    return value if value is None or reader is None else reader(value)


def _reader(annotation: Any) -> Callable[[Any], Any] | None:
    """Find the function that turns asyncpg's value into the field's value; ``None`` if they are the same."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _reader(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        alternatives = [one for one in get_args(annotation) if one is not types.NoneType]
        return _reader(alternatives[0]) if len(alternatives) == 1 else None
    if origin is dict:
        return msgspec.json.decode
    if origin is tuple:
        return tuple
    if annotation is UUID:
        return plain_uuid
    is_made_of_it = isinstance(annotation, type) and issubclass(annotation, enum.Enum | msgspec.Raw)
    return annotation if is_made_of_it else None


def plain_uuid(value: UUID) -> UUID:
    """A UUID of the standard library's own type, of one of asyncpg's."""
    return UUID(bytes=value.bytes)
