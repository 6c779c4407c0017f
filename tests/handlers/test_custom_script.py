"""custom_script: what a script gets, what it gives back, and what it cannot break."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.entry_process import Entry

RESULTS = {
    "the global result": ("result = args + 1", 41, 42),
    "what main returns": ("def main(args): return args * 2", 21, 42),
    "what an async main returns": (
        "import asyncio\nasync def main(args):\n    await asyncio.sleep(0)\n    return args", 7, 7,
    ),
    "main without parameters": ("def main(): return args", 7, 7),
    "result wins over main": ("def main(args): return 1\nresult = 2", None, 2),
    "a result of None does not hide main": ("result = None\ndef main(args): return 1", None, 1),
    "main that assigns the global": ("def main(args):\n    global result\n    result = 5", None, 5),
    "main that is not callable": ("main = 3", None, None),
    "neither": ("x = 1", None, None),
    "no args": ("result = args", None, None),
    "own module is __main__": ("result = __name__", None, "__main__"),
    "what only __main__ runs": ("if __name__ == '__main__':\n    result = 1", None, 1),
    "a dataclass, which needs its module": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 1\nresult = A()", None, {"x": 1},
    ),
    "a pickled class of its own": (
        "import pickle\nclass A: pass\nresult = type(pickle.loads(pickle.dumps(A()))).__name__", None, "A",
    ),
    "argv and file": (
        "import os, sys\nresult = [sys.argv, os.path.relpath(__file__), os.path.isabs(__file__)]", None,
        [["script.py"], "script.py", True],
    ),
    "a byte order mark": ("\ufeffresult = 1", None, 1),
    "a coding cookie": ("# -*- coding: latin-1 -*-\nresult = 'é'", None, "é"),
    "no future flags of ours": ("def f(x: int): pass\nresult = f.__annotations__['x'] is int", None, True),
    "leaving with 0 after a result": ("import sys\nresult = 1\nsys.exit()", None, 1),
    "exit() after a result": ("result = 1\nexit(0)", None, 1),
    "leaving with 0 without a result": ("import sys\nsys.exit(0)", None, None),
    "leaving with False, which is 0": ("import sys\nsys.exit(False)", None, None),
    "leaving with 256, which a process cannot tell from 0": ("import sys\nsys.exit(256)", None, None),
}  # fmt: skip


@pytest.mark.parametrize(("script", "args", "expected"), RESULTS.values(), ids=RESULTS)
def test_result(entry: Entry, script: str, args: Any, expected: Any) -> None:
    """The result is the global ``result``, else what ``main`` returns, else null."""
    answer = entry.run(script, args)
    assert ("result", expected) == (answer.kind, answer.value)


EXITS = {
    "a code": ("import sys; sys.exit(3)", 3),
    "a code in spite of a result": ("import sys; result = 1; sys.exit(3)", 3),
    "a message": ("raise SystemExit('why')", 1),
    "True, which is not 0": ("result = 1\nraise SystemExit(True)", 1),
    "in an async main": ("import sys\nasync def main(args): sys.exit(4)", 4),
}


@pytest.mark.parametrize(("script", "expected"), EXITS.values(), ids=EXITS)
def test_exit(entry: Entry, script: str, expected: Any) -> None:
    """SystemExit goes on to the sandbox as a number, unless it is a success."""
    answer = entry.run(script)
    assert ("exit", expected) == (answer.kind, answer.value)


ERRORS = {
    "an exception": ("1 / 0", "ZeroDivisionError", "division by zero"),
    "in main": ("def main(args): return args['x']", "TypeError", "'NoneType' object is not subscriptable"),
    "in an async main": ("async def main(args): raise KeyError(1)", "KeyError", "1"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    "GeneratorExit": ("raise GeneratorExit", "GeneratorExit", ""),
    "a base exception of its own": ("class E(BaseException): pass\nraise E('x')", "E", "x"),
    "a syntax error": ("def f(:\n    pass", "SyntaxError", "invalid syntax (script.py, line 1)"),
    "a null byte": ("x = '\0'", "SyntaxError", None),
    "nested parentheses": ("(" * 100_000, "SyntaxError", "too many nested parentheses (script.py, line 1)"),
    "endless recursion": ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
    "a message that cannot be made": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E",
        "(the exception's own __str__ failed)",
    ),
    "a message that leaves": (
        "import sys\nclass E(Exception):\n    def __str__(self): sys.exit(0)\nraise E", "E",
        "(the exception's own __str__ failed)",
    ),
    "a message with a lone surrogate": ("raise ValueError('a\\ud800b')", "ValueError", "a\ufffdb"),
    "a name that lies": (
        "class M(type):\n    __name__ = 'Fake'\nclass E(Exception, metaclass=M): pass\nraise E", "E", "",
    ),
    "numpy's MemoryError by its plain name": (
        "import numpy\nnumpy.ones(1 << 50)", "MemoryError",
        "Unable to allocate 8.00 PiB for an array with shape (1125899906842624,) and data type float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "type_", "message"), ERRORS.values(), ids=ERRORS)
def test_error(entry: Entry, script: str, type_: str, message: str | None) -> None:
    """Whatever a script raises is told by its type and message."""
    answer = entry.run(script)
    assert ("error", type_) == (answer.kind, answer.value["type"])
    assert message is None or message == answer.value["message"]


def test_traceback_shows_the_script_only(entry: Entry) -> None:
    """A traceback begins at the script's first frame, shows its lines and no path of ours.

    Python 3.13 marks the part of more lines that is at fault than earlier ones.
    """
    answer = entry.run("def f():\n    return 1 / 0\n\nf()")
    seen = answer.value["traceback"].replace("    f()\n    ~^^\n", "    f()\n")
    expected = (
        "Traceback (most recent call last):\n"
        '  File "script.py", line 4, in <module>\n    f()\n'
        '  File "script.py", line 2, in f\n    return 1 / 0\n           ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert expected == seen


def test_traceback_of_a_syntax_error_points_at_it(entry: Entry) -> None:
    """The line and the place in it are shown; there is no frame to show."""
    answer = entry.run("x = 1\ny = (2")
    expected = "  File \"script.py\", line 2\n    y = (2\n        ^\nSyntaxError: '(' was never closed\n"
    assert expected == answer.value["traceback"]


TRACEBACKS = {
    "cause": (
        "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('x') from e",
        "The above exception was the direct cause of the following exception",
    ),
    "note": ("e = ValueError('x')\ne.add_note('look here')\nraise e", "look here"),
    "group": ("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])", "KeyError: 2"),
    "library frames": ("import json\njson.loads('{')", "decoder.py"),
    "async main without the event loop": ("async def main(args):\n    1 / 0", 'recent call last):\n  File "script.py"'),
}


@pytest.mark.parametrize(("script", "expected"), TRACEBACKS.values(), ids=TRACEBACKS)
def test_traceback_tells(entry: Entry, script: str, expected: str) -> None:
    """Causes, notes, groups and the frames below the script's are in the traceback."""
    assert expected in entry.run(script).value["traceback"]


def test_named_script_by_its_name(entry: Entry) -> None:
    """A named script is ``/scripts/NAME`` in its own eyes and in tracebacks."""
    answer = entry.run("boom.py", source="1 / 0", source_name="boom.py")
    assert 'File "/scripts/boom.py", line 1, in <module>\n    1 / 0' in answer.value["traceback"]


@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_huge_message_is_cut(entry: Entry, size: int) -> None:
    """A message is cut at 16 Ki characters, a traceback at 64 Ki, and both say so."""
    answer = entry.run(f"raise ValueError('x' * {size})")
    assert f"({size - 16384} characters left out)" in answer.value["message"]
    assert len(answer.value["message"]) < 17_000
    assert len(answer.value["traceback"]) < 66_000


def test_request_on_stdin(entry: Entry) -> None:
    """stdin holds task_type and parameters as JSON."""
    script = "import json, sys\nresult = json.load(sys.stdin)"
    expected = {"task_type": "custom_script", "parameters": {"script": script, "args": {"a": [1]}}}
    assert expected == entry.run(script, {"a": [1]}).value


def test_stdin_without_the_source_of_a_named_script(entry: Entry) -> None:
    """Fields that the engine adds are not part of the script's input."""
    answer = entry.run("x.py", source="import json, sys\nresult = sorted(json.load(sys.stdin))", source_name="x.py")
    expected = ["parameters", "task_type"]
    assert expected == answer.value


def test_prints_are_not_the_result(entry: Entry) -> None:
    """Prints go to fd 1, unfinished lines too, and leave the answer alone."""
    answer = entry.run("print('a')\nimport sys\nsys.stdout.write('{\"fake\": 1}')\nresult = 1")
    expected = ("result", 1, b'a\n{"fake": 1}')
    assert expected == (answer.kind, answer.value, answer.printed)


SABOTAGE = {
    "builtins": "import builtins\nvars(builtins).update({n: None for n in vars(builtins) if n[0].islower()})",
    "the builtins' dict": "import builtins\nvars(builtins).clear()",
    "json": "import json\njson.dumps = json.JSONEncoder = None",
    "sys.exit": "import sys\nsys.exit = None",
    "all modules": "import sys\nsys.modules.clear()",
    "stdout replaced": "import sys\nsys.stdout = sys.stderr = object()",
    "stdout closed": "import sys\nsys.stdout.close()",
    "fd 1 closed": "import os\nos.close(1)",
    "fd 1 closed, unflushed": "import os\nprint('x', end='')\nos.close(1)",
    "recursion limit": "import sys\nsys.setrecursionlimit(60)",
    "trace": "import sys\nsys.settrace(lambda *a: sys._getframe() and None)",
    "profile": "import sys\nsys.setprofile(lambda *a: None)",
    "import": "import builtins\nbuiltins.__import__ = None",
    "traceback and linecache": "import traceback, linecache\nfor m in (traceback, linecache): vars(m).clear()",
    "own module": "import sys\ndel sys.modules['__main__']",
    "excepthook": "import sys\nsys.excepthook = None",
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
}


@pytest.mark.parametrize("sabotage", SABOTAGE.values(), ids=SABOTAGE)
def test_result_survives(entry: Entry, sabotage: str) -> None:
    """A script that breaks its interpreter still gets its result out."""
    answer = entry.run(f"result = {{'a': [1, (2,), {{3}}]}}\n{sabotage}")
    expected = ("result", {"a": [1, [2], [3]]})
    assert expected == (answer.kind, answer.value)


@pytest.mark.parametrize("sabotage", SABOTAGE.values(), ids=SABOTAGE)
def test_error_survives(entry: Entry, sabotage: str) -> None:
    """A script that breaks its interpreter and then raises still has its error told."""
    answer = entry.run(f"{sabotage}\nraise MyError" if "clear" not in sabotage else f"{sabotage}\n1 / 0")
    expected = {("error", "NameError"), ("error", "ZeroDivisionError")}
    assert (answer.kind, answer.value["type"]) in expected


MEMORY = {
    "one block": "x = bytearray(1 << 40)",
    "small objects": "x = []\nwhile True: x.append(bytearray(100_000))",
    "tiny objects": "x = []\nwhile True: x.append(object())",
    "in a function": "def f():\n    x = []\n    while True: x.append(bytearray(1000))\nf()",
    "held by a module": "import os\nos.x = []\nwhile True: os.x.append(bytearray(1000))",
    "while the answer is made": "result = list(range(3_000_000)); result = [result] * 16",
    "in main": "def main(args):\n    global x\n    x = [bytearray(1000)]\n    while True: x.append(bytearray(1000))",
}


@pytest.mark.parametrize("script", MEMORY.values(), ids=MEMORY)
def test_memory_ran_out(entry: Entry, script: str) -> None:
    """Running out of memory is an error by the name of MemoryError, even with no memory left to say so."""
    answer = entry.run(script, data_mib=400)
    expected = ("error", "MemoryError")
    assert expected == (answer.kind, answer.value["type"])


@pytest.mark.parametrize("data_mib", range(200, 680, 40))
def test_memory_for_the_args(entry: Entry, data_mib: int) -> None:
    """Args that do not fit are a MemoryError, at any limit; never a crash."""
    args = [{"a": "some text to hold", "b": ["é z", "zz zz"]}] * 200_000
    answer = entry.run("result = len(args)", args, data_mib=data_mib)
    found = answer.value["type"] if answer.kind == "error" else answer.value
    assert found in {"MemoryError", 200_000}


INVALID = {
    "a cycle": ("result = {'a': [1]}\nresult['a'].append(result)", "cycle", "`$.a[1]`"),
    "too deep": ("result = 1\nfor _ in range(65): result = [result]", "too_deep", "deeper than 64"),
    "an object": ("class A: pass\nresult = {'a': [1, A()]}", "no_json_form", "`$.a[1]`: `A`"),
    "a class": ("result = int", "no_json_form", "`type`"),
    "a function": ("result = {'f': len}", "no_json_form", "`builtin_function_or_method`"),
    "a module": ("import os\nresult = os", "no_json_form", "`module`"),
    "an open file": ("result = open(__import__('os').devnull)", "no_json_form", "TextIOWrapper"),
    "two keys, one name": ("result = {1: 'a', '1': 'b'}", "key_collision", '`$["1"]`'),
    "a long integer": ("result = [10 ** 5000]", "integer_too_long", "`$[0]`"),
    "a long integer, limit lifted": (
        "import sys\nsys.set_int_max_str_digits(0)\nresult = 10 ** 5000", "integer_too_long", "4300 digits",
    ),
    "hostile repr": ("class A:\n    def __repr__(self): 1 / 0\nresult = A()", "no_json_form", "`A`"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "code", "message"), INVALID.values(), ids=INVALID)
def test_no_json_form(entry: Entry, script: str, code: str, message: str) -> None:
    """A value without a form under the JSON rule is told by its path and type."""
    answer = entry.run(script)
    assert ("invalid", "InvalidResult", code) == (answer.kind, answer.value["type"], answer.value["code"])
    assert message in answer.value["message"]


def test_request_that_is_no_request(entry: Entry) -> None:
    """Bytes that are not a request are refused with a code, never a crash."""
    for raw in (b"", b"{", b"\xff", b"[]", b'{"task_type": "nope", "parameters": {}}', b"[" * 100_000):
        answer = entry.ask(raw)
        expected = {("error", "invalid_request"), ("error", "unknown_task_type")}
        assert (answer.kind, answer.value["code"]) in expected


@pytest.mark.parametrize("parameters", [{}, {"script": ""}, {"script": "x", "more": 1}, {"script": 1}])
def test_parameters_are_checked_inside_too(entry: Entry, parameters: dict[str, Any]) -> None:
    """The handler refuses what the API would refuse."""
    answer = entry.ask({"task_type": "custom_script", "parameters": parameters})
    expected = ("error", "invalid_parameters")
    assert expected == (answer.kind, answer.value["code"])


def test_args_are_whatever_json_they_are(entry: Entry) -> None:
    """Args arrive as Python's own values and come back unchanged."""
    args = {"a": [1, 2.5, None, True, "é\u0000"], "": {"b": {}}}
    assert args == entry.run("result = args", args).value
    assert json.dumps(args) == json.dumps(entry.run("def main(a): return a", args).value)
