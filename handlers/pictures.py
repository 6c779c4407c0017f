"""Pictures and tables that a script gives as its result, or shows, are kept as artifacts, so that a person sees them.

A figure of matplotlib or an image of Pillow has no JSON form of its own. It becomes a PNG in ``artifacts/``, and in the
result an object that names it: ``{"artifact", "media_type", "width", "height"}``. A table keeps its JSON form, and has
an artifact beside it (CSV). No library is imported here: a figure is there only if the script has loaded one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

FOLDER = "artifacts"
"""Of the workspace, in which every run begins."""
BACKEND = "module://handlers.show_figures"
"""By this matplotlib finds what ``pyplot.show()`` does here."""

_PNG, _TIFF = "image/png", "image/tiff"
_MODES_OF_PNG = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_MODES_OF_TIFF = frozenset({"I", "F"})  # 32 bits a pixel, which PNG has not
_WITHOUT_ALPHA = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "RGBX": "RGB", "La": "LA", "RGBa": "RGBA"}


class Kept:
    """What one run has kept so far.

    Attributes:
        folder: where, by its whole path: a script may change its working directory.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._forms: dict[int, tuple[object, dict[str, Any]]] = {}

    def figure(self, figure: Any, name: str = "") -> dict[str, Any]:
        """Keep a figure as it is now, and say how the result names it. The same figure is kept once.

        Args:
            name: of its file without ending; else it is numbered.
        Raises:
            OSError: the workspace is full.
        """

        def save(path: str) -> dict[str, Any]:
            figure.savefig(path, format="png")
            width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
            return {"media_type": _PNG, "width": width, "height": height}

        return self._keep(figure, self._free_name(name or "figure", ".png", numbered=not name), save)

    def image(self, image: Any, name: str = "") -> dict[str, Any]:
        """Keep an image of Pillow, all its frames, without a loss: as PNG, or as TIFF where a pixel has 32 bits."""
        as_tiff = image.mode in _MODES_OF_TIFF

        def save(path: str) -> dict[str, Any]:
            several = getattr(image, "n_frames", 1) > 1
            drawn = image if as_tiff or image.mode in _MODES_OF_PNG else image.convert(_WITHOUT_ALPHA[image.mode])
            drawn.save(path, format="TIFF" if as_tiff else "PNG", **({"save_all": True} if several else {}))
            return {"media_type": _TIFF if as_tiff else _PNG, "width": image.width, "height": image.height}

        ending = ".tiff" if as_tiff else ".png"
        return self._keep(image, self._free_name(name or "image", ending, numbered=not name), save)

    def table(self, table: Any, name: str) -> None:
        """Keep a table of pandas, polars or pyarrow as CSV, beside the form that it has in the result.

        Raises:
            OSError: the workspace is full.
        """
        write = _csv_writer(table)
        if write is not None:
            self._write(self._free_name(name, ".csv", numbered=False), write)

    def _keep(self, thing: object, name: str, save: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """Under the name that it has, if it was kept before: the picture is then that of now."""
        if (before := self._forms.get(id(thing))) is not None:
            name = before[1]["artifact"]
        facts: dict[str, Any] = {}
        self._write(name, lambda path: facts.update(save(path)))
        # with the thing itself, so that its identity is not given to another
        self._forms[id(thing)] = thing, {"artifact": name, **facts}
        return self._forms[id(thing)][1]

    def _write(self, name: str, write: Callable[[str], object]) -> None:
        """Whole or not at all."""
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, name)
        try:
            write(path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def _free_name(self, stem: str, ending: str, *, numbered: bool) -> str:
        """A name that no file of the script has."""
        number = 1
        while True:
            name = f"{stem}-{number}{ending}" if numbered or number > 1 else stem + ending
            if not os.path.lexists(os.path.join(self.folder, name)):
                return name
            number += 1


_KEPT: ContextVar[Kept] = ContextVar("kept")
"""What the run of this context has kept."""


def begin(folder: str) -> None:
    """Let this context keep its pictures in ``folder``."""
    _KEPT.set(Kept(folder))


def kept() -> Kept:
    """What the run of this context has kept; where none has begun, a new one in the working directory."""
    return _KEPT.get(None) or Kept(os.path.abspath(FOLDER))


def figure_of(value: Any) -> Any:
    """The figure that a value of matplotlib or seaborn is, or is drawn in; ``None`` if there is none."""
    if (matplotlib := sys.modules.get("matplotlib.figure")) is None:
        return None
    while not isinstance(value, matplotlib.Figure):
        inner = getattr(value, "figure", None)
        if inner is None or inner is value:
            return None
        value = inner
    return value


def is_image(value: object) -> bool:
    """Whether it is an image of Pillow."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def present(result: object) -> object:
    """Keep a result that is a picture or a table as ``result.png`` or ``result.csv``.

    Returns:
        what stands in its place in the answer; a table stays what it is.
    Raises:
        OSError: the workspace is full.
    """
    if not {"matplotlib", "PIL", "pandas", "polars", "pyarrow"} & sys.modules.keys():
        return result
    if (figure := figure_of(result)) is not None:
        return kept().figure(figure, "result")
    if is_image(result):
        return kept().image(result, "result")
    kept().table(result, "result")
    return result


def rehearse_table(table: Any) -> None:
    """Write a table as ``Kept.table`` would, to nowhere: pandas loads and touches much for the first one."""
    write = _csv_writer(table)
    if write is not None:
        write(os.devnull)


def _csv_writer(table: Any) -> Callable[[str], object] | None:
    """What writes a table to a path; ``None`` for what is none."""
    if (pandas := sys.modules.get("pandas")) is not None and isinstance(table, pandas.DataFrame):
        from handlers.jsonable import has_labels  # noqa: PLC0415 it imports this module

        return lambda path: table.to_csv(path, index=has_labels(pandas, table.index))
    if (polars := sys.modules.get("polars")) is not None and isinstance(table, polars.DataFrame):
        write: Callable[[str], object] = table.write_csv
        return write
    if (pyarrow := sys.modules.get("pyarrow")) is not None and isinstance(table, (pyarrow.Table, pyarrow.RecordBatch)):
        csv = importlib.import_module("pyarrow.csv")  # a part of the library that the script has loaded
        return lambda path: csv.write_csv(table, path)
    return None
