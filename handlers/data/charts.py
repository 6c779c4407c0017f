"""Draws a chart of an answer, as a PNG artifact: bars of a histogram, or bars of groups.

By matplotlib without pyplot. Labels are drawn in DejaVu Sans; what it does not have, in Noto Sans CJK. Both come from
packages.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from handlers.failures import Refusal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 40
"""Beyond these a chart has no room for labels."""
MAX_SERIES = 6
MAX_LABEL_CHARACTERS = 28
MAX_TITLE_CHARACTERS = 80
_PATH = "artifacts/chart.png"
_DPI = 100
_WIDTH, _HEIGHT = 9.0, 5.0
_BAR_HEIGHT = 0.26
"""Inches, where bars lie on their side."""
_MOST_UPRIGHT = 12
"""Bars whose labels fit below each other's feet."""


class Series(NamedTuple):
    """The values of one field of the answer, one for each label; what is no number has no bar."""

    name: str
    values: Sequence[Any]


class ChartData(NamedTuple):
    """What is drawn."""

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    axis: str
    """What the labels are of."""


def draw_groups(data: ChartData, total: int) -> dict[str, Any]:
    """Draw bars for each label, the first ``MAX_BARS`` of them.

    Args:
        data: the labels and the numbers, each series of one length.
        total: how many groups there are.
    Returns:
        ``artifact`` and its size, how many groups and fields there are, and which of them were drawn.
    Raises:
        Refusal: no field has numbers.
    """
    shown = min(len(data.labels), MAX_BARS)
    series = [one for one in data.series if any(_is_number(value) for value in one.values)][:MAX_SERIES]
    if not series:
        raise Refusal("number_required", "A chart draws numbers, and no field of `aggregates` has one.")
    labels = _labels(data.labels[:shown])
    is_upright = shown <= _MOST_UPRIGHT and max(map(len, labels), default=0) * shown <= 90
    height = _HEIGHT if is_upright else max(_HEIGHT, 1.6 + _BAR_HEIGHT * shown * max(len(series), 1))
    note = f"the first {shown} of {total} groups" if shown < total else ""
    figure, axes = _figure(data.title, note, min(height, 30))
    _bars(axes, labels, [(one.name, list(one.values[:shown])) for one in series], is_upright=is_upright)
    name_axis, value_axis = (axes.set_xlabel, axes.set_ylabel) if is_upright else (axes.set_ylabel, axes.set_xlabel)
    name_axis(_short(data.axis, MAX_TITLE_CHARACTERS))
    if len(series) == 1:
        value_axis(_short(series[0].name, MAX_TITLE_CHARACTERS))
    drawn = {"groups_drawn": shown, "groups_total": total, "fields_drawn": [one.name for one in series]}
    return {**_save(figure), **drawn, "fields_total": len(data.series)}


def draw_histogram(field: str, bins: Sequence[dict[str, Any]], nulls: int) -> dict[str, Any]:
    """Draw one bar for each range, as wide as it is."""
    note = f"without {nulls} of null" if nulls else ""
    figure, axes = _figure(f"Histogram of {field}", note, _HEIGHT)
    widths = [one["to"] - one["from"] for one in bins]
    # all values are one number: a bar needs a width
    widths = [width or max(abs(one["from"]) * 0.02, 0.5) for width, one in zip(widths, bins, strict=True)]
    axes.bar(
        [one["from"] for one in bins], [one["count"] for one in bins], widths, align="edge",
        edgecolor="white", linewidth=0.5 if len(bins) <= 100 else 0,
    )  # fmt: skip
    axes.set_xlabel(_short(field, MAX_TITLE_CHARACTERS))
    axes.set_ylabel("rows")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.10g}")
    return _save(figure)


def _figure(title: str, note: str, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 few tasks draw

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_short(title, MAX_TITLE_CHARACTERS) + (f"\n({note})" if note else ""), fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    return figure, axes


def _bars(axes: Axes, labels: list[str], series: list[tuple[str, list[Any]]], *, is_upright: bool) -> None:
    width = 0.8 / max(len(series), 1)
    places = range(len(labels))
    for number, (name, values) in enumerate(series):
        at = [place + (number - (len(series) - 1) / 2) * width for place in places]
        drawn = [float(value) if _is_number(value) else 0.0 for value in values]
        label = _short(name, MAX_LABEL_CHARACTERS)
        (axes.bar if is_upright else axes.barh)(at, drawn, width, label=label)
    (axes.yaxis if is_upright else axes.xaxis).set_major_formatter("{x:,.10g}")
    if is_upright:
        axes.set_xticks(list(places), labels)
        axes.axhline(0, color="black", linewidth=0.8)
    else:
        axes.set_yticks(list(places), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)  # the first group on top
        axes.axvline(0, color="black", linewidth=0.8)
    if len(series) > 1:
        axes.legend(frameon=False)


def _labels(texts: Sequence[str]) -> list[str]:
    """Short labels; where two would look alike, the beginning that all have in common is left out."""
    short = [_short(text, MAX_LABEL_CHARACTERS) for text in texts]
    if len(set(short)) == len(set(texts)):
        return short
    common = len(os.path.commonprefix(list(texts)))  # noqa: RUF071 they are no paths
    return [_short(f"…{text[common:]}" if common > 1 else text, MAX_LABEL_CHARACTERS) for text in texts]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)


def _short(text: str, most: int) -> str:
    """One line of a label: signs that cannot be seen are left out, and what is too long is cut with an ellipsis."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    plain = " ".join(plain.split()) or "(empty)"
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _save(figure: Figure) -> dict[str, Any]:
    import matplotlib as mpl  # noqa: PLC0415

    os.makedirs(os.path.dirname(_PATH), exist_ok=True)
    with mpl.rc_context({"font.family": _fonts(), "text.parse_math": False, "axes.unicode_minus": False}):
        for text in figure.findobj(lambda one: hasattr(one, "set_parse_math")):
            text.set_parse_math(False)  # type: ignore[attr-defined] # a $ in a label is a $
            text.set_fontfamily(_fonts())  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn in its place
            figure.savefig(_PATH, format="png")
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    return {"artifact": os.path.basename(_PATH), "media_type": "image/png", "width": width, "height": height}


def _fonts() -> list[str]:
    """Families in the order in which each character is looked for."""
    from matplotlib import font_manager  # noqa: PLC0415
    from noto_cjk_sans_jp_regular import FONT_PATH  # noqa: PLC0415

    path = str(FONT_PATH)
    if path not in {font.fname for font in font_manager.fontManager.ttflist}:
        font_manager.fontManager.addfont(path)
    return ["DejaVu Sans", "Noto Sans CJK JP"]
