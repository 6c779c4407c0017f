"""Runs a Python script: ``args`` goes in as a global, ``result`` or what ``main(args)`` returns comes out.

Besides ``args`` it finds ``report_progress`` (see ``handlers.progress``).

The script shares this interpreter and may take any of it apart. What it breaks here is its own answer only, since the
sandbox alone decides why a run ended; still, what it can break by accident is repaired before the answer is made.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import linecache
import os
import shutil
import sys
import traceback
import types
from collections import Counter
from typing import Any

from handlers import jsonable, pictures
from handlers.data.decoding import decode_any
from handlers.failures import ScriptFailed
from handlers.parameters.decode import decode_json
from handlers.parameters.files import InputFile
from handlers.parameters.registry import Request, decode
from handlers.parameters.script import CustomScript
from handlers.progress import current
from handlers.text import encode_json

SCRIPTS_FOLDER = "/scripts"
MAX_INPUT_BYTES = 256 << 20
"""Of one file; the workspace's own limits are met before."""
_SCRIPT = b'{"task_type":"custom_script","parameters":{"script":"result = [args]","args":{"a":1}}}'
_PANDAS_SCRIPT = (
    b'{"task_type":"custom_script","parameters":{"script":"import pandas\\nresult = [pandas.DataFrame(args).corr()]",'
    b'"args":[{"x":1,"y":2.5},{"x":2,"y":4.5},{"x":4,"y":3.5}]}}'
)
"""In a list, because a table that is the result itself is kept as an artifact."""
INLINE_NAME = "script.py"
_MAX_SHOWN_LINE_CHARACTERS = 1000

_ORIGINAL_BUILTINS = dict(vars(builtins))
_restore_builtins = vars(builtins).update
_INT_MAX_STR_DIGITS = sys.get_int_max_str_digits()
_RECURSION_LIMIT = sys.getrecursionlimit()
_set_int_max_str_digits = sys.set_int_max_str_digits
_set_recursion_limit = sys.setrecursionlimit
_set_trace = sys.settrace
_set_profile = sys.setprofile
_clear_frames = traceback.clear_frames


def run(request: Request) -> object:
    """Run the script and return its result.

    Raises:
        ScriptFailed: it does not compile, or raised.
        SystemExit: it left by itself, other than with code 0 and ``result`` assigned.
    """
    parameters: CustomScript = decode("custom_script", request.parameters)
    filename = f"{SCRIPTS_FOLDER}/{request.source_name}" if request.source_name is not None else INLINE_NAME
    source = request.source if request.source is not None else parameters.script
    namespace = make_main_module(filename, decode_any(parameters.args))
    give_request_on_stdin(request)
    pictures.begin(os.path.abspath(pictures.FOLDER))
    if parameters.inputs:
        put_inputs(parameters.inputs)
    try:
        try:
            result = execute(source, filename, namespace)
        finally:
            repair_interpreter()
        return pictures.present(result)
    except SystemExit as leaving:
        if _is_success(leaving.code) and "result" in namespace:
            return pictures.present(namespace["result"])
        raise
    except MemoryError as error:
        # what the script holds is what there is no room beside
        namespace.clear()
        _clear_frames(error.__traceback__)
        raise ScriptFailed(error, filename) from None
    except BaseException as error:
        raise ScriptFailed(error, filename) from None


def rehearse() -> None:
    """Run a small script of our own, with pandas where that is loaded, and make its answer. Starts no thread."""
    script = _PANDAS_SCRIPT if "pandas" in sys.modules else _SCRIPT
    # a policy may grant less memory than this takes: then the first task touches it, or is told of its limit
    with contextlib.suppress(ScriptFailed, MemoryError):
        jsonable.encode(run(decode_json(script, Request)))
    if (models := sys.modules.get("handlers.ml_inference")) is not None:
        models.rehearse()


def execute(source: str, filename: str, namespace: dict[str, Any]) -> object:
    """Compile and run; then the result: ``result`` where the script assigned it, else what its ``main`` returns."""
    show_lines(source, filename)
    code = compile(source.removeprefix("\ufeff"), filename, "exec", dont_inherit=True)
    exec(code, namespace)  # noqa: S102 this is what the sandbox is for
    if "result" in namespace:
        return namespace["result"]
    main = namespace.get("main")
    if not callable(main):
        return None
    returned = main() if _takes_nothing(main) else main(namespace.get("args"))
    if isinstance(returned, types.CoroutineType):
        import asyncio  # noqa: PLC0415 few scripts need it, and it takes long to load

        returned = asyncio.run(returned)
    return namespace.get("result") if returned is None else returned


def make_main_module(filename: str, args: object) -> dict[str, Any]:
    """Make the script's module as the interpreter would make ``__main__``, and return its globals."""
    module = types.ModuleType("__main__")
    namespace = vars(module)
    namespace.update(__file__=filename, __builtins__=builtins, args=args, report_progress=current().report)
    sys.modules["__main__"] = module
    sys.argv = [filename]
    # last, so that a named script cannot stand in for an installed package by its name
    if SCRIPTS_FOLDER not in sys.path and os.path.isdir(SCRIPTS_FOLDER):
        sys.path.append(SCRIPTS_FOLDER)
    return namespace


def give_request_on_stdin(request: Request) -> None:
    """For scripts that read their input there: task_type and parameters, as submitted."""
    text = encode_json({"task_type": request.task_type, "parameters": request.parameters})
    sys.stdin = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")


def put_inputs(files: dict[str, InputFile]) -> None:
    """Put files where the script looks for them: ``inputs/NAME`` in its working directory.

    Raises:
        Refusal: a file cannot be had.
        OSError: no room is left in the workspace.
    """
    from handlers import inputs  # noqa: PLC0415 few scripts need it

    os.makedirs(inputs.UPLOADS_FOLDER, exist_ok=True)
    still_wanted = Counter(file.file_id for file in files.values())
    for name, file in files.items():
        target = os.path.join(inputs.UPLOADS_FOLDER, name)
        if file.file_id is not None:
            uploaded = os.path.join(inputs.UPLOADS_FOLDER, file.file_id)
            still_wanted[file.file_id] -= 1
            if name == file.file_id:
                continue
            if still_wanted[file.file_id] or file.file_id in files:
                shutil.copyfile(uploaded, target)
            else:  # a second copy would take the room of a large file twice
                os.replace(uploaded, target)
        else:
            with open(target, "wb") as opened:
                opened.write(inputs.read(file, max_bytes=MAX_INPUT_BYTES))


def show_lines(source: str, filename: str) -> None:
    """Let tracebacks find the source, which lies in no file that they could read."""
    lines = [line[:_MAX_SHOWN_LINE_CHARACTERS] + "\n" for line in source.split("\n")]
    linecache.cache[filename] = (len(source), None, lines, filename)


def repair_interpreter() -> None:
    """Put back what a script may have changed and the answer's making needs."""
    _restore_builtins(_ORIGINAL_BUILTINS)
    _set_trace(None)
    _set_profile(None)
    _set_recursion_limit(_RECURSION_LIMIT)
    _set_int_max_str_digits(_INT_MAX_STR_DIGITS)


def _is_success(exit_code: object) -> bool:
    return exit_code is None or (type(exit_code) is int and exit_code == 0)


def _takes_nothing(function: object) -> bool:
    if not isinstance(function, types.FunctionType):
        return False
    code = function.__code__
    variadic = code.co_flags & 0x04  # inspect.CO_VARARGS
    return code.co_argcount == 0 and not variadic
