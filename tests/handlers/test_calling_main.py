"""custom_script: when a script's ``main`` is called for it, and with what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.entry_process import Entry

ABSENT = object()

CALLED_BY_ITSELF = {
    "under the guard": "def main():\n    print('ran')\nif __name__ == '__main__':\n    main()",
    "and left by its code": (
        "import sys\ndef main():\n    print('ran')\n    return 0\nif __name__ == '__main__':\n    sys.exit(main())"
    ),
    "by raising SystemExit": "def main():\n    print('ran')\nraise SystemExit(main())",
    "through asyncio": "import asyncio\nasync def main():\n    print('ran')\nasyncio.run(main())",
    "through click": "import click\n@click.command()\ndef main():\n    print('ran')\nif __name__:\n    main()",
    "through typer": "import typer\ndef main(name: str = 'x'):\n    print('ran')\ntyper.run(main)",
    "in a thread": "import threading\ndef main():\n    print('ran')\nthreading.Thread(target=main).start()",
    "in a timer": "import threading\ndef main():\n    print('ran')\nthreading.Timer(0.1, main).start()",
    "in an executor": (
        "from concurrent.futures import ThreadPoolExecutor as Pool\ndef main():\n    print('ran')\nPool(1).submit(main)"
    ),
    "at exit": "import atexit\ndef main():\n    print('ran')\natexit.register(main)",
    "by another function": "def main():\n    print('ran')\ndef go():\n    main()\ngo()",
    "by another name": "def main():\n    print('ran')\ngo = main\ngo()",
    "out of its globals": "def main():\n    print('ran')\nglobals()['main']()",
    "behind a decorator": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n"
        "    return inner\n@twice\ndef main():\n    print('ran')\nmain()"
    ),
    "that is cached": "import functools\n@functools.cache\ndef main():\n    print('ran')\nmain()",
    "that stands for another": "def go():\n    print('ran')\nmain = go\nmain()",
    "that is a lambda": "main = lambda: print('ran')\nmain()",
    "that is a class": "class main:\n    def __init__(self):\n        print('ran')\nmain()",
    "with a docstring": "def main():\n    'It runs.'\n    print('ran' if main.__doc__ == 'It runs.' else '')\nmain()",
    "that is made in a branch": "if True:\n    def main():\n        print('ran')\n    main()",
}  # fmt: skip


@pytest.mark.parametrize("script", CALLED_BY_ITSELF.values(), ids=CALLED_BY_ITSELF)
def test_a_main_that_the_script_has_called_is_not_called_again(entry: Entry, script: str) -> None:
    """Whatever way it took: it runs once, as with ``python script.py``."""
    answer = entry.run(script)
    assert ("result", None, b"ran\n") == (answer.kind, answer.value, answer.printed)


CALLED_FOR_IT = {
    "that nobody calls": "def main():\n    return 'ran'",
    "whose guard does not hold": "def main():\n    return 'ran'\nif __name__ == 'other':\n    main()",
    "that is only mentioned": "def main():\n    return 'ran'\nCOMMANDS = {'main': main}",
    "that is checked": "def main():\n    return 'ran'\nassert callable(main)",
    "of a script that speaks of main": "# main() is the main thing\ndef main():\n    return 'ran'",
    "beside a placeholder": "result = None\ndef main():\n    return 'ran'",
    "that is cached": "import functools\n@functools.lru_cache\ndef main():\n    return 'ran'",
    "that is partial": "import functools\ndef go(word):\n    return word\nmain = functools.partial(go, 'ran')",
    "that is an object": "class Main:\n    def __call__(self):\n        return 'ran'\nmain = Main()",
    "that is a coroutine": "async def main():\n    return 'ran'",
    "beside an idle executor": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
        "def main():\n    return pool.submit(str, 'ran').result()"
    ),
}


@pytest.mark.parametrize("script", CALLED_FOR_IT.values(), ids=CALLED_FOR_IT)
def test_a_main_that_nobody_called_is_called(entry: Entry, script: str) -> None:
    """Mentioning it is not calling it."""
    answer = entry.run(script)
    assert ("result", "ran") == (answer.kind, answer.value)


ARGUMENTS: dict[str, tuple[str, Any, Any]] = {
    "no args, nothing taken": ("def main(): return 'x'", ABSENT, "x"),
    "no args, a default": ("def main(name='world'): return name", ABSENT, "world"),
    "no args, one without a default": ("def main(args): return args", ABSENT, None),
    "no args, one without and one with": ("def main(args, n=1): return [args, n]", ABSENT, [None, 1]),
    "no args, anything": ("def main(*a, **k): return [a, k]", ABSENT, [[], {}]),
    "no args, by name only": ("def main(*, n=1): return n", ABSENT, 1),
    "null is a value": ("def main(name='world'): return name", None, None),
    "null, nothing taken": ("def main(): return 'x'", None, "x"),
    "fields by name": ("def main(a, b): return a - b", {"a": 5, "b": 3}, 2),
    "fields in another order": ("def main(a, b): return a - b", {"b": 3, "a": 5}, 2),
    "a default holds": ("def main(a, b=2): return [a, b]", {"a": 1}, [1, 2]),
    "by name only": ("def main(*, a, b=2): return [a, b]", {"a": 1}, [1, 2]),
    "by position only": ("def main(a, b, /): return a - b", {"b": 3, "a": 5}, 2),
    "the rest of the fields": ("def main(a, **more): return [a, more]", {"a": 1, "b": 2}, [1, {"b": 2}]),
    "any fields": ("def main(**fields): return fields", {"a": 1, "b c": 2}, {"a": 1, "b c": 2}),
    "an empty object, all with defaults": ("def main(a=1, b=2): return [a, b]", {}, [1, 2]),
    "a wrapper's own parameters": (
        (
            "import functools\ndef same(f):\n    @functools.wraps(f)\n    def inner(*a, **k): return f(*a, **k)\n"
            "    return inner\n@same\ndef main(a, b): return a - b"
        ),
        {"a": 5, "b": 3}, 2,
    ),
    "a coroutine's": ("async def main(a, b): return a - b", {"a": 5, "b": 3}, 2),
    "a class's": ("class main(dict):\n    def __init__(self, a, b): self['x'] = a - b", {"a": 5, "b": 3}, {"x": 2}),
    "one gets all": ("def main(args): return args", {"a": 1}, {"a": 1}),
    "one gets all, even of its name": ("def main(data): return data", {"data": 1}, {"data": 1}),
    "one with a default gets its field": ("def main(name='world'): return name", {"name": "Ada"}, "Ada"),
    "one with a default gets all else": ("def main(args=None): return args", {"a": 1}, {"a": 1}),
    "no field has a parameter": ("def main(args, verbose=False): return [args, verbose]", {"a": 1}, [{"a": 1}, False]),
    "a field is missing": ("def main(args, n=1): return [args, n]", {"n": 2}, [{"n": 2}, 1]),
    "an array is one value": ("def main(a, b=2): return [a, b]", [1, 3], [[1, 3], 2]),
    "an array, anything": ("def main(*a): return a", [1, 3], [[1, 3]]),
}  # fmt: skip


@pytest.mark.parametrize(("script", "args", "expected"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_what_main_is_called_with(entry: Entry, script: str, args: Any, expected: Any) -> None:
    """Fields by name where they fit, else all of args; without args the defaults hold."""
    parameters = {"script": script} | ({} if args is ABSENT else {"args": args})
    answer = entry.ask({"task_type": "custom_script", "parameters": parameters})
    assert ("result", expected) == (answer.kind, answer.value)


FAULTS: dict[str, tuple[str, Any, str]] = {
    "a field too many": ("def main(a, b): return 1", {"a": 1, "b": 2, "c": 3}, "unexpected keyword argument 'c'"),
    "a field too few": ("def main(a, b): return 1", {"a": 1}, "missing 1 required positional argument: 'b'"),
    "two without args": ("def main(a, b): return 1", ABSENT, "missing 2 required positional arguments"),
}


@pytest.mark.parametrize(("script", "args", "message"), FAULTS.values(), ids=FAULTS)
def test_args_that_do_not_fit_are_pythons_own_error(entry: Entry, script: str, args: Any, message: str) -> None:
    """A TypeError in its words; nothing is left out without a word."""
    parameters = {"script": script} | ({} if args is ABSENT else {"args": args})
    answer = entry.ask({"task_type": "custom_script", "parameters": parameters})
    assert ("error", "TypeError") == (answer.kind, answer.value["type"])
    assert message in answer.value["message"]


def test_counting_shows_in_no_line_of_a_traceback(entry: Entry) -> None:
    """The call that counts has the place of the first statement, and no name of it is told."""
    answer = entry.run("def main():\n    '''Doc.'''\n    1 / 0\n\nmain()")
    assert 'File "script.py", line 3, in main\n    1 / 0' in answer.value["traceback"]
    assert "__main_was_called__" not in answer.value["traceback"]
