"""Runs a Python script: ``args`` goes in as a global, ``result`` or what ``main`` returns comes out.

Besides ``args`` it finds ``report_progress`` (see ``handlers.progress``). Everything else is as ``python script.py``
would have it: ``calling`` says when ``main`` is called, ``streams`` what the script reads, ``ending`` how it ends.

The script shares this interpreter and may take any of it apart. What it breaks here is its own answer only, since the
sandbox alone decides why a run ended; still, what it can break by accident is repaired before the answer is made.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import itertools
import linecache
import os
import shutil
import sys
import traceback
import types
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from typing import Any

import msgspec

from handlers import ending, jsonable, pictures, streams
from handlers.calling import ABSENT, ScriptCode, call_main
from handlers.data.decoding import decode_any
from handlers.failures import ScriptFailed, own_frames, print_as_python
from handlers.parameters.decode import decode_json
from handlers.parameters.files import InputFile
from handlers.parameters.patterns import UPLOADS_FOLDER
from handlers.parameters.registry import Request, decode
from handlers.parameters.script import MAX_SCRIPT_CHARACTERS, CustomScript
from handlers.progress import current
from handlers.text import encode_json

SCRIPTS_FOLDER = "/scripts"
_CODE_FOLDER = os.path.dirname(os.path.dirname(__file__))
"""In ``sys.path`` it stands between the standard library and the installed packages."""
MAX_INPUT_BYTES = 256 << 20
"""Of one file; the workspace's own limits are met before."""
_SCRIPT = (
    b'{"task_type":"custom_script","parameters":{"script":'
    b'"def main(args):\\n    return [args]\\n\\nif not __name__:\\n    main()","args":{"a":1}}}'
)
"""Names ``main`` twice, so that the syntax tree is made too: its first making in a process takes the longest."""
_PANDAS_SCRIPT = (
    b'{"task_type":"custom_script","parameters":{"script":"import pandas\\nresult = [pandas.DataFrame(args).corr()]",'
    b'"args":[{"x":1,"y":2.5},{"x":2,"y":4.5},{"x":4,"y":3.5}]}}'
)
"""In a list, because a table that is the result itself is kept as an artifact."""
INLINE_NAME = "script.py"
_MAX_SHOWN_LINE_CHARACTERS = 1000

_INTERPRETERS_MAIN = sys.modules["__main__"]
"""Kept: a run puts its own in its place, and would take this one apart."""
_WAYS_TO_BUILTINS = ("__", "builtins", "import", "attr", "eval", "exec", "compile", "globals", "locals", "vars")
"""A script that names none of these has no way to the functions that are built in, and so has not changed them."""
_ORIGINAL_BUILTINS = dict(vars(builtins))
_restore_builtins = vars(builtins).update
_INT_MAX_STR_DIGITS = sys.get_int_max_str_digits()
_RECURSION_LIMIT = sys.getrecursionlimit()
_set_int_max_str_digits = sys.set_int_max_str_digits
_set_recursion_limit = sys.setrecursionlimit
_set_trace = sys.settrace
_set_profile = sys.setprofile
_clear_frames = traceback.clear_frames
_EXCEPTHOOK = sys.excepthook
_walk_stack, _get_outer_frames = traceback.walk_stack, inspect.getouterframes


def run(request: Request) -> object:
    """Run the script, wait for its threads, and return its result.

    Raises:
        ScriptFailed: it does not compile, or raised.
        SystemExit: it left by itself, other than with code 0; words are on stderr by then, and the code is a number.
    """
    parameters: CustomScript = decode("custom_script", request.parameters)
    source = request.source if request.source is not None else parameters.script
    end = ending.current()
    modules = put_inputs(parameters.inputs) if parameters.inputs else []
    code = "\n".join([source, *map(_read_module, modules)]) if modules else source
    text = encode_json({"task_type": request.task_type, "parameters": request.parameters})
    end.at_last(streams.give_stdin(text, code))
    streams.show_devices(code, text)
    del text
    pictures.begin(os.path.abspath(pictures.FOLDER))
    is_named = request.source_name is not None
    path = f"{SCRIPTS_FOLDER}/{request.source_name}" if is_named else _place_script(source, code)
    namespace = make_main_module(path, _args(parameters))
    if modules:
        make_importable(os.path.abspath(UPLOADS_FOLDER), is_named=is_named)
    end.begin(namespace, opens=streams.may_open(code), takes_apart=streams.may_hold_output(code))
    filename = path if is_named else INLINE_NAME
    try:
        returned = perform(source, filename, namespace, given=parameters.args is not msgspec.UNSET)
    finally:
        end.join_threads()
    try:
        return pictures.present(namespace.get("result") if returned is None else returned)
    except BaseException as error:
        raise ScriptFailed(error, filename) from None


def perform(source: str, filename: str, namespace: dict[str, Any], *, given: bool) -> object:
    """Run the script, and its ``main`` where it has not done so itself; return what that returned.

    Raises:
        ScriptFailed, SystemExit: as of ``run``.
    """
    has_builtins = any(way in source for way in _WAYS_TO_BUILTINS)  # asked while `any` is what it was
    try:
        try:
            return execute(source, filename, namespace, given=given)
        finally:
            repair_interpreter(has_builtins=has_builtins)
    except SystemExit as leaving:
        if (code := exit_code(leaving.code)) != 0:
            raise SystemExit(code) from None
        return None
    except MemoryError as error:
        # what the script holds is what there is no room beside
        namespace.clear()
        _clear_frames(error.__traceback__)
        raise ScriptFailed(error, filename) from None
    except BaseException as error:
        failure = error
    # not while it is being handled: what a hook raises has no context
    call_excepthook(failure, filename)
    raise ScriptFailed(failure, filename) from None


def rehearse() -> None:
    """Run a small script of our own, with pandas where that is loaded, and make its answer. Starts no thread."""
    script = _PANDAS_SCRIPT if "pandas" in sys.modules else _SCRIPT
    path, module = sys.path.copy(), sys.modules["__main__"]
    # a policy may grant less memory than this takes: then the first task touches it, or is told of its limit
    with contextlib.suppress(ScriptFailed, MemoryError):
        ending.use(end := ending.ScriptEnd(is_rehearsal=True))
        answer: Any = run(decode_json(script, Request))
        jsonable.encode(answer)
        pictures.rehearse_table(answer[0])
        end.finish()
    linecache.clearcache()
    sys.path[:] = path
    # what the rehearsal has made goes here, and not in each run as it makes its own
    sys.modules["__main__"] = module
    streams.empty_stdin()
    pictures.begin("")
    ending.use(ending.ScriptEnd())
    if (models := sys.modules.get("handlers.ml_inference")) is not None:
        models.rehearse()


def execute(source: str, filename: str, namespace: dict[str, Any], *, given: bool) -> object:
    """Compile and run; then call ``main``, if there is no ``result`` and the script has not called it by itself."""
    show_lines(source, filename, namespace["__file__"])  # by its path inspect, pdb and rich look for it
    hide_own_frames()
    script = ScriptCode(source, filename)
    exec(script.code, namespace)  # noqa: S102 this is what the sandbox is for
    main = namespace.get("main")
    if namespace.get("result") is not None or not callable(main) or script.has_called(main):
        return None
    returned = call_main(main, namespace.get("args") if given else ABSENT)
    if isinstance(returned, types.CoroutineType):
        import asyncio  # noqa: PLC0415 few scripts need it, and it takes long to load

        returned = asyncio.run(returned)
    return returned


_BELOW = (execute.__code__, call_main.__code__)
"""Of the frames below the script's first."""


def make_main_module(path: str, args: object) -> dict[str, Any]:
    """Make the script's module as the interpreter would make ``__main__``, and return its globals."""
    module = types.ModuleType("__main__")
    namespace = vars(module)
    namespace["__loader__"] = SourceFileLoader("__main__", path)
    if sys.version_info < (3, 14):  # since then a module has none until it is asked for
        namespace["__annotations__"] = {}
    namespace.update(__file__=path, __cached__=None, __builtins__=builtins, args=args, report_progress=current().report)
    sys.modules["__main__"] = module
    sys.argv = [path if path.startswith(SCRIPTS_FOLDER) else INLINE_NAME]
    sys.orig_argv = [sys.executable, *sys.argv]
    # last, so that a named script cannot stand in for an installed package by its name
    if SCRIPTS_FOLDER not in sys.path and os.path.isdir(SCRIPTS_FOLDER):
        sys.path.append(SCRIPTS_FOLDER)
    return namespace


def _args(parameters: CustomScript) -> object:
    return None if isinstance(parameters.args, msgspec.UnsetType) else decode_any(parameters.args)


def _place_script(source: str, code: str) -> str:
    """Make the working directory the place of an inline script, as it is of ``python script.py``; return its path.

    Args:
        source: the script.
        code: it and its modules, any of which may look for the script's file.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    path = os.path.join(folder, INLINE_NAME)
    streams.lay_down_source(source, path, code)
    return path


def put_inputs(files: dict[str, InputFile]) -> list[str]:
    """Put files where the script looks for them: ``inputs/NAME`` in its working directory.

    Returns:
        the paths of those that are modules of Python.
    Raises:
        Refusal: a file cannot be had.
        OSError: no room is left in the workspace.
    """
    from handlers import inputs  # noqa: PLC0415 few scripts need it

    os.makedirs(UPLOADS_FOLDER, exist_ok=True)
    still_wanted = Counter(file.file_id for file in files.values())
    for name, file in files.items():
        target = os.path.join(UPLOADS_FOLDER, name)
        if "/" in name:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if file.file_id is not None:
            uploaded = os.path.join(UPLOADS_FOLDER, file.file_id)
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
    return [os.path.join(UPLOADS_FOLDER, name) for name in files if name.endswith(".py")]


def _read_module(path: str) -> str:
    with open(path, "rb") as opened:
        return opened.read(MAX_SCRIPT_CHARACTERS).decode(errors="replace")


def make_importable(folder: str, *, is_named: bool) -> None:
    """Let the script import what lies in a folder.

    It comes after the standard library, which no input stands in for, and before the installed packages, as of
    PYTHONPATH. For a named script it is the last place of all: what an operator's script imports is not the caller's.
    """
    if is_named or _CODE_FOLDER not in sys.path:
        sys.path.append(folder)
    else:
        sys.path.insert(sys.path.index(_CODE_FOLDER), folder)


def show_lines(source: str, *names: str) -> None:
    """Let tracebacks find the source, which lies in no file that they could read."""
    # the ends of lines that the compiler knows, and no others: str.splitlines takes more
    whole = source.replace("\r\n", "\n").replace("\r", "\n") if "\r" in source else source
    lines = [line[:_MAX_SHOWN_LINE_CHARACTERS] + "\n" for line in whole.split("\n")]
    for name in names:
        linecache.cache[name] = (len(source), None, lines, name)


def hide_own_frames() -> None:
    """End at the script's first frame what ``traceback`` and ``inspect`` tell of the stack; ``logging`` asks them, too.

    ``sys._getframe`` and ``faulthandler`` still see what is below.
    """
    traceback.walk_stack = _frames_of_stack  # type: ignore[assignment]
    inspect.getouterframes = _outer_frames


@functools.wraps(_walk_stack)
def _frames_of_stack(frame: types.FrameType | None) -> Iterator[tuple[types.FrameType, int]]:
    return itertools.takewhile(_is_above_ours, _walk_stack(frame))


@functools.wraps(_get_outer_frames)
def _outer_frames(frame: Any, context: int = 1) -> list[inspect.FrameInfo]:
    return list(itertools.takewhile(lambda one: one.frame.f_code not in _BELOW, _get_outer_frames(frame, context)))


def _is_above_ours(frame_and_line: tuple[types.FrameType, int]) -> bool:
    return frame_and_line[0].f_code not in _BELOW


def repair_interpreter(*, has_builtins: bool) -> None:
    """Put back what a script may have changed and the answer's making needs.

    Args:
        has_builtins: whether it has had a way to the functions that are built in.
    """
    if has_builtins:
        _restore_builtins(_ORIGINAL_BUILTINS)
    _set_trace(None)
    _set_profile(None)
    _set_recursion_limit(_RECURSION_LIMIT)
    _set_int_max_str_digits(_INT_MAX_STR_DIGITS)


def call_excepthook(error: BaseException, filename: str) -> None:
    """Call the script's own ``sys.excepthook``, if it has set one. The interpreter's prints what the answer shows."""
    hook = getattr(sys, "excepthook", _EXCEPTHOOK)
    if hook is _EXCEPTHOOK:
        return
    error.__traceback__ = own_frames(error.__traceback__, filename)
    try:
        hook(type(error), error, error.__traceback__)
    except BaseException as fault:
        shown = [print_as_python(one, own_frames(one.__traceback__, filename)) for one in (fault, error)]
        _write_error("Error in sys.excepthook:\n{}\nOriginal exception was:\n{}".format(*shown).rstrip("\n"))


def exit_code(code: object) -> int:
    """Exit code of a ``SystemExit`` as the interpreter chooses it; words are printed and mean 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        return int.__and__(code, 0xFF)
    with contextlib.suppress(BaseException):
        _write_error(str(code))
    return 1


def _write_error(text: str) -> None:
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BaseException:  # a script may have closed or replaced it
        with contextlib.suppress(BaseException):
            os.write(2, f"{text}\n".encode(errors="replace"))
