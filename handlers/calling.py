"""Whether a script's ``main`` is called for it, and with what; README.md has the rule in five lines.

A script that calls its own ``main`` must not have it called once more. So its first statement becomes a call that
counts, which no line number, docstring or source text shows. Only a script that names ``main`` twice can have called
it: all others are compiled as they are.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
import re
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

COUNTER = "__main_was_called__"
"""Name among the builtins of what ``main`` calls first."""
_MAIN = re.compile(r"\bmain\b")
_LATER = frozenset(
    {
        "register", "submit", "map", "apply_async", "call_soon", "call_later", "run_in_executor", "start_new_thread",
    }
)  # fmt: skip
"""Methods that take a function and call it some time."""
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FLAGS_OF_VARIADIC = 0x04 | 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS

ABSENT = object()
"""Stands for ``args`` that were not given: another thing than ``null``."""


class ScriptCode:
    """A compiled script that knows whether it has called its own ``main``."""

    def __init__(self, source: str, filename: str) -> None:
        """
        Raises:
            SyntaxError: it is no Python.
        """
        text = source.removeprefix("\ufeff")
        if "\0" in text:  # compile() raises a ValueError for it before Python 3.12, but a script file never does
            before = text[: text.index("\0")].split("\n")
            raise SyntaxError("source code cannot contain null bytes", (filename, len(before), None, before[-1]))
        self._counter: Callable[[], int] | None = None
        self._calls_it_surely = False
        self.code: CodeType
        if len(_MAIN.findall(text)) > 1 and (counted := self._count_calls(text, filename)) is not None:
            self.code = counted
        else:
            self.code = compile(text, filename, "exec", dont_inherit=True)

    def _count_calls(self, text: str, filename: str) -> CodeType | None:
        """Compile it so that calls of ``main`` count; ``None`` where its tree is too deep to be looked at."""
        try:
            tree: Any = compile(text, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
            defined = [one for one in _module_level(tree.body) if _defines_main(one)]
            nodes = list(ast.walk(tree))
            names = [one for one in nodes if isinstance(one, ast.Name) and one.id == "main"]
            # what is no `def` cannot count; then naming it is taken for calling it
            named = not defined and any(isinstance(one.ctx, ast.Load) for one in names)
            self._calls_it_surely = named or (bool(names) and any(map(_hands_main_on, nodes)))
            for function in defined:
                _count_in(function)
            code: CodeType = compile(tree, filename, "exec", dont_inherit=True)
        except RecursionError:
            return None
        if defined:
            self._counter = itertools.count().__next__
            setattr(builtins, COUNTER, self._counter)
        return code

    def has_called(self, main: object) -> bool:
        """Whether the script has called ``main`` by itself, or a thread that it started is about to. Ask once."""
        if self._calls_it_surely:
            return True
        threads = threading.enumerate() if threading.active_count() > 1 else []
        # of a Thread and of a Timer
        about_to = any(getattr(one, name, None) is main for one in threads for name in ("_target", "function"))
        return about_to or (self._counter is not None and self._counter() > 0)


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run with the module itself, those inside of ``if``, ``try`` and the like included."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.stmt):
            yield one
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            waiting += ast.iter_child_nodes(one)


def _defines_main(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == "main"


def _count_in(function: Any) -> None:
    """Put the call that counts in front of a function's first statement, behind its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    call = ast.Expr(ast.Call(ast.Name(COUNTER, ast.Load()), [], []))
    for node in ast.walk(call):
        if isinstance(node, (ast.expr, ast.stmt)):
            ast.copy_location(node, first)
    function.body.insert(int(has_docstring), call)


def _hands_main_on(node: ast.AST) -> bool:
    """Whether a call hands ``main`` to what will call it some time, as ``atexit.register(main)``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _LATER:
        return False
    return any(isinstance(one, ast.Name) and one.id == "main" for one in node.args)


def call_main(main: Callable[..., object], args: object) -> object:
    """Call ``main`` with ``args``, which may be ``ABSENT``.

    Raises:
        TypeError: it does not take them; the words are Python's.
    """
    positional, named = arguments_for(main, args)
    return main(*positional, **named)


def arguments_for(main: Callable[..., object], args: object) -> tuple[list[object], dict[str, object]]:
    """What ``main`` is called with, by position and by name."""
    whole: list[object] = [None if args is ABSENT else args]
    if _takes_exactly_one(main):
        return whole, {}
    try:
        parameters = list(inspect.signature(main).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not say what it takes
        return whole, {}
    required = [one for one in parameters if one.default is one.empty and one.kind not in _VARIADIC]
    if isinstance(args, dict) and _go_by_name(parameters, required, args):
        return _by_name(parameters, args)
    takes_one = any(one.kind in _POSITIONAL for one in (required if args is ABSENT else parameters))
    variadic = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    if args is ABSENT:
        return whole if takes_one and len(required) == 1 else [], {}
    return whole if takes_one or (variadic and args is not None) else [], {}


def _takes_exactly_one(main: object) -> bool:
    """Whether it is a plain function of one parameter without a default: then there is nothing to find out."""
    if type(main) is not FunctionType or main.__dict__ or main.__defaults__:
        return False
    code = main.__code__
    return (code.co_argcount, code.co_kwonlyargcount, code.co_flags & _FLAGS_OF_VARIADIC) == (1, 0, 0)


def _go_by_name(
    parameters: list[inspect.Parameter], required: list[inspect.Parameter], args: dict[str, object]
) -> bool:
    """Whether an object's fields become arguments of their names, rather than the object the first argument."""
    named = [one for one in parameters if one.kind not in _VARIADIC]
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    if any(one.name not in args for one in required):
        return False
    if not named:
        return takes_any and len(parameters) == 1
    if len(named) == 1 and named[0].kind in _POSITIONAL and not takes_any:
        return named[0] not in required and list(args) == [named[0].name]
    return takes_any or not args or any(one.name in args for one in named)


def _by_name(parameters: list[inspect.Parameter], args: dict[str, object]) -> tuple[list[object], dict[str, object]]:
    """Positional-only parameters get theirs by position. What has no parameter stays, for Python to complain of."""
    named, positional = dict(args), []
    for one in parameters:
        if one.kind is not inspect.Parameter.POSITIONAL_ONLY or one.name not in named:
            break
        positional.append(named.pop(one.name))
    return positional, named
