"""Writes the equations of a Word document (OMML, ISO 29500-1, 22.1) as one line: ``x^2``, ``(a)/(b)``, ``√(x)``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MAX_DEPTH = 50


def line(element: Any, depth: int = 0, *, hidden: Callable[[Any], bool] = lambda _: False) -> str:
    """What an equation, or a part of one, says.

    Args:
        element: of the equation.
        depth: how many elements of it are around this one.
        hidden: whether an element of this tag is not shown.
    """
    if not depth and any(hidden(one.tag) for one in element.iter() if not str(one.tag).startswith(MATH)):
        element = _shown(element, hidden)
    if depth > _MAX_DEPTH:
        return "".join(text.text or "" for text in element.iter(MATH + "t"))
    name = element.tag.removeprefix(MATH) if isinstance(element.tag, str) else ""
    if name == "t":
        return element.text or ""
    if name in _FORMS:
        return _FORMS[name](element, lambda part: _part(element, part, depth + 1))
    return "".join(line(child, depth + 1) for child in element)


def _shown(element: Any, hidden: Callable[[Any], bool]) -> Any:
    """A copy of an equation without the changes that are not shown, and with what the others wrap."""
    whole = copy.deepcopy(element)
    for one in [one for one in whole.iter() if one is not whole and hidden(one.tag)]:
        if one.getparent() is not None:
            one.getparent().remove(one)
    return whole


def _part(element: Any, name: str, depth: int) -> str:
    found = element.find(MATH + name)
    return "" if found is None else line(found, depth)


def _grouped(text: str) -> str:
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def _sign(element: Any, properties: str, name: str, default: str) -> str:
    """A character that the properties of an element name."""
    found = element.find(f"{MATH}{properties}/{MATH}{name}")
    return default if found is None else found.get(MATH + "val", "")


Part = Callable[[str], str]


def _fraction(_: Any, part: Part) -> str:
    return f"{_grouped(part('num'))}/{_grouped(part('den'))}"


def _scripts(_: Any, part: Part) -> str:
    below, above = part("sub"), part("sup")
    return part("e") + (f"_{_grouped(below)}" if below else "") + (f"^{_grouped(above)}" if above else "")


def _before(element: Any, part: Part) -> str:
    return f"{_scripts(element, lambda name: '' if name == 'e' else part(name))}{part('e')}"


def _root(_: Any, part: Part) -> str:
    return f"√[{part('deg')}]({part('e')})" if part("deg") else f"√({part('e')})"


def _large(element: Any, part: Part) -> str:
    sign = _sign(element, "naryPr", "chr", "∫")
    return f"{sign}{_scripts(element, lambda name: '' if name == 'e' else part(name))} {part('e')}"


def _delimited(element: Any, _: Part) -> str:
    inner = _sign(element, "dPr", "sepChr", "|").join(line(one) for one in element.findall(MATH + "e"))
    return _sign(element, "dPr", "begChr", "(") + inner + _sign(element, "dPr", "endChr", ")")


def _function(_: Any, part: Part) -> str:
    return f"{part('fName')} {part('e')}"


def _limit(sign: str) -> Callable[[Any, Part], str]:
    return lambda _, part: f"{part('e')}{sign}{_grouped(part('lim'))}"


def _matrix(element: Any, _: Part) -> str:
    rows = (
        "; ".join(", ".join(line(cell) for cell in row.findall(MATH + "e")) for row in element.findall(MATH + "mr")),
    )
    return f"[{rows[0]}]"


def _accented(element: Any, part: Part) -> str:
    return part("e") + _sign(element, "accPr", "chr", "\u0302")


def _lines(element: Any, _: Part) -> str:
    return "; ".join(line(one) for one in element.findall(MATH + "e"))


_FORMS: Mapping[str, Callable[[Any, Part], str]] = MappingProxyType(
    {
        "f": _fraction,
        "sSup": _scripts,
        "sSub": _scripts,
        "sSubSup": _scripts,
        "sPre": _before,
        "rad": _root,
        "nary": _large,
        "d": _delimited,
        "func": _function,
        "limLow": _limit("_"),
        "limUpp": _limit("^"),
        "m": _matrix,
        "acc": _accented,
        "eqArr": _lines,
        "ctrlPr": lambda _element, _part: "",
    }
)
"""Name of an element → the function that writes it."""
