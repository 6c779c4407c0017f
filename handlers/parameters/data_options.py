"""Conditions, sort keys and aggregates: the parts of which the operations of ``data_processing`` are made."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Scalar = str | int | float | bool | None
"""A value of a field. Nested arrays and objects are refused."""
FieldName = Annotated[str, Meta(max_length=1000)]
Function = Literal["count", "sum", "mean", "median", "min", "max", "std", "distinct", "first"]
MAX_ROWS = 1_000_000


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition that a row must meet. No comparison finds a null; only `is_null` does."""

    field: Annotated[FieldName, Meta(description="The field to compare.", examples=["value"])]
    op: Annotated[
        Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "starts_with", "ends_with", "is_null",
                "not_null"],
        Meta(description="How it compares with `value`.", examples=["ge"]),
    ]  # fmt: skip
    value: Annotated[
        Scalar | Annotated[list[Scalar], Meta(max_length=10_000)],
        Meta(
            description="The value to compare with: a list for `in` and `not_in`, none for `is_null` and `not_null`.",
            examples=[10],
        ),
    ] = None

    def __post_init__(self) -> None:
        takes_list, takes_none = self.op in ("in", "not_in"), self.op in ("is_null", "not_null")
        if takes_list != isinstance(self.value, list) or takes_none != (self.value is None):
            wanted = "a list as `value`" if takes_list else "no `value`" if takes_none else "one `value`, not null"
            raise ValueError(f"`{self.op}` takes {wanted}")
        if self.op in ("contains", "starts_with", "ends_with") and not isinstance(self.value, str):
            raise ValueError(f"`{self.op}` takes a text as `value`")


class SortKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field to sort by."""

    field: Annotated[FieldName, Meta(description="The field to sort by.", examples=["value"])]
    descending: Annotated[bool, Meta(description="Greatest first.")] = False
    nulls: Annotated[Literal["first", "last"], Meta(description="Where rows without a value come.")] = "last"


class Aggregate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value over the rows of a group."""

    function: Annotated[Function, Meta(description="`count` without a field counts rows.", examples=["mean"])]
    field: Annotated[FieldName | None, Meta(description="The field to compute over.", examples=["value"])] = None
    name: Annotated[
        FieldName | None, Meta(description="Name of the field in the answer; FUNCTION_FIELD unless given.")
    ] = None

    def __post_init__(self) -> None:
        if self.field is None and self.function != "count":
            raise ValueError(f"`{self.function}` needs a `field`")

    @property
    def shown(self) -> str:
        """Name of the field in the answer: ``name``, or made of function and field."""
        return self.name or (self.function if self.field is None else f"{self.function}_{self.field}")
