"""Lets a plain run tell its ``result`` at its end. Python loads this before the script, which finds no trace of it.

It is registered before anything of the script, so it runs after all that the script registers (atexit). What is no
plain JSON is told by ``meaning``, an expression over the script's globals that the corpus gives.
"""

import atexit
import json
import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
_target = os.environ.pop("DIFFERENTIAL_RESULT")
_meaning = os.environ.pop("DIFFERENTIAL_MEANING", "result")
del os.environ["PYTHONPATH"]
sys.path.remove(_folder)
_main = sys.modules["__main__"]
_dumps, _eval, _open = json.dumps, eval, open  # as they are before the script


def _tell() -> None:
    names = vars(sys.modules.get("__main__", _main))
    value = _eval(_meaning, names) if "result" in names else None
    try:
        text = _dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        text = _dumps({"differential: no plain JSON": str(error)})
    with _open(_target, "w", encoding="utf-8") as file:
        file.write(text)


atexit.register(_tell)
