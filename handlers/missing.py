"""Help for a script that imports what is not there: the nearest names, the list of all, and who can add one."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys

_MODULE_NAMES = {"cv2": "opencv-python-headless", "bs4": "beautifulsoup4", "skimage": "scikit-image"}
"""Modules that people import, whose package has quite another name."""


def explain(error: BaseException) -> str:
    """Sentences that go behind the message of an exception; empty unless a top-level module is missing.

    The names of what is there are read only now, so that no other run pays for them.
    """
    name = getattr(error, "name", None)
    if not isinstance(error, ModuleNotFoundError) or not isinstance(name, str) or not name or "." in name:
        return ""
    if str(error) != f"No module named {name!r}":  # the script's own words
        return ""
    near = difflib.get_close_matches(name, _importable(), n=3)
    meant = f"Is {' or '.join(near)} meant? " if near else ""
    package = _MODULE_NAMES.get(name, name)
    return (
        f". {meant}GET /libraries lists what scripts can import. An operator adds {package} by a requirements file and "
        "`python -m engine libraries add SET FILE`; a module of your own goes into `inputs`."
    )


def _importable() -> list[str]:
    """Names of packages and modules that could be imported, without the standard library's own inner ones."""
    names = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    for folder in sys.path:
        if os.path.isdir(folder) and folder.endswith("site-packages"):
            found = importlib.metadata.distributions(path=[folder])
            names |= {one.metadata["Name"] for one in found}
            names |= {
                entry.partition(".")[0] for entry in os.listdir(folder) if not entry.endswith((".dist-info", ".libs"))
            }
    return sorted(name for name in names if name and not name.startswith("_"))
