"""System calls that one process prepares, and another makes: a zygote and its child.

What a child decides and makes itself costs it a copy of each page that this touches. So its zygote writes the calls
down, with the buffers that they read, and the child goes through that list. A small C part (``_prepared.c``) does it
without the interpreter where there was a C compiler at installation. Elsewhere the loop is in Python: the same list,
the same calls, and only dearer.

Sources: syscall(2); arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64) of the
Linux source.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, NamedTuple, NoReturn, ParamSpec, TypeVar

from sandbox.isolation import libc

with contextlib.suppress(ImportError):  # it is optional
    from sandbox.isolation import _prepared  # type: ignore[attr-defined]

WHATEVER = -1
"""Forgives a call every errno."""
_ARGUMENTS = 6
_LONG = (1 << 64) - 1
_BEFORE, _FORK = 0, 2  # parts of fork_between in _prepared.c
_NEVER_LIVED = 70  # EX_SOFTWARE of sysexits(3)
_Parameters = ParamSpec("_Parameters")
_Returned = TypeVar("_Returned")


class _CallRow(ctypes.Structure):
    # struct call of _prepared.c
    _fields_ = [
        ("number", ctypes.c_long),
        ("arguments", ctypes.c_ulong * _ARGUMENTS),
        ("known_later", ctypes.c_ulong),
        ("result", ctypes.c_void_p),
        ("least", ctypes.c_long),
        ("forgiven", ctypes.c_long),
    ]


class Later:
    """An int that is known only when the calls are made."""

    __slots__ = ("address", "kept")

    def __init__(self, address: int = 0) -> None:
        """
        Args:
            address: where it then stands; 0 as long as its place is not known either.
        """
        self.address = address
        self.kept: object = None
        """What the address lies in, where nothing else keeps that."""

    @property
    def value(self) -> int:
        """As it is now."""
        return ctypes.c_int.from_address(self.address).value

    @value.setter
    def value(self, value: int) -> None:
        ctypes.c_int.from_address(self.address).value = value


class _Noted(NamedTuple):
    """One call, before it has a place in a list."""

    what: str
    name: str
    arguments: tuple[object, ...]
    least: int
    forgiven: int
    result: Later


class Calls:
    """Prepares calls, one after the other."""

    def __init__(self) -> None:
        self.noted: list[_Noted] = []
        self.kept: list[Any] = []

    def call(self, what: str, name: str, *arguments: object, least: int = 0, forgiven: int = 0, into: int = 0) -> Later:
        """Prepare one call, and return what it will return.

        Args:
            what: what it is for; it stands in the error.
            name: of the system call, one of ``libc.NUMBERS``.
            arguments: numbers, ``None`` for NULL, bytes for a string, a ctypes object for its address, or what an
                earlier call returns.
            least: the call has failed if it returns less; with ENODATA, where the kernel itself sees no failure.
            forgiven: an errno that is no failure, or ``WHATEVER``.
            into: address of an int that is to become what the call returns.
        """
        self.noted.append(_Noted(what, name, arguments, least, forgiven, result := Later(into)))
        return result

    def write_file(self, folder: int, path: str, text: str, *, forgiven: int = 0) -> None:
        """Prepare that a file which exists is written to.

        Args:
            folder: descriptor of where the path begins.
            forgiven: as of ``call``.
        """
        fd = self.call(f"open {path}", "openat", folder, path.encode(), os.O_WRONLY | os.O_CLOEXEC, forgiven=forgiven)
        size = len(text.encode())
        self.call(f"write {path}", "write", fd, text.encode(), size, least=size, forgiven=forgiven)
        self.call(f"close {path}", "close", fd, forgiven=forgiven)

    def keep(self, buffer: Any) -> int:
        """Keep a ctypes object for as long as the calls, and return its address."""
        self.kept.append(buffer)
        return ctypes.addressof(buffer)

    def number(self, argument: object) -> int:
        """What the kernel is to get for an argument."""
        match argument:
            case Later():
                return argument.address
            case None:
                return 0
            case int():
                return argument & _LONG
            case bytes():
                return self.keep(ctypes.create_string_buffer(argument))
            case _:
                return self.keep(argument)


class CallFailedError(OSError):
    """A prepared call failed."""

    step = ""
    """To which it belongs."""


class Prepared:
    """A list of calls, ready to be made, by whoever inherits this process's memory."""

    def __init__(self, steps: Sequence[tuple[str, Calls]], *, in_c: bool = True) -> None:
        """
        Args:
            steps: name and calls of each.
            in_c: whether to use the C part where it is there.
        """
        self.in_c = in_c and HAS_C_PART
        self._calls = [calls for _, calls in steps]  # which keep the buffers
        noted = [(step, calls, one) for step, calls in steps for one in calls.noted]
        self._said = [(step, one.what) for step, _, one in noted]
        # what calls return lies side by side: nothing else is written to while a list is gone through
        self._results = (ctypes.c_int * len(noted))()
        for place, (_, _, one) in enumerate(noted):
            if not one.result.address:
                one.result.address, one.result.kept = ctypes.addressof(self._results) + 4 * place, self._results
        self.rows = (_CallRow * len(noted))()
        for row, (_, calls, one) in zip(self.rows, noted, strict=True):
            row.number, row.result = libc.NUMBERS[one.name], one.result.address
            row.least, row.forgiven = one.least, one.forgiven
            for i, argument in enumerate(one.arguments):
                row.arguments[i] = calls.number(argument)
                row.known_later |= isinstance(argument, Later) << i

    def make(self) -> None:
        """Make all calls, in their order.

        Raises:
            CallFailedError: one failed; those after it were not made.
        """
        place, failure = _prepared.make(self.rows) if self.in_c else self._make_by_python()
        if failure or place != len(self.rows):
            raise self.fault(place, failure)

    def _make_by_python(self) -> tuple[int, int]:
        make = libc.make_syscall
        for place, call in enumerate(self.rows):
            later, given = call.known_later, list(call.arguments)
            for i in range(_ARGUMENTS):
                if later >> i & 1:
                    given[i] = ctypes.c_int.from_address(given[i]).value
            result = make(call.number, *given)
            failure = ctypes.get_errno() if result == -1 else errno.ENODATA
            ctypes.c_int.from_address(call.result).value = result
            if result < call.least and failure != call.forgiven != WHATEVER:
                return place, failure
        return len(self.rows), 0

    def fault(self, place: int, failure: int) -> CallFailedError:
        """What is to be raised where the call at a place has failed."""
        step, what = self._said[place]
        error = CallFailedError(failure, f"{what}: {os.strerror(failure)}")
        error.step = step
        return error


class Fork:
    """A fork, with the calls that come before it, those of the child, and those that the parent makes after it."""

    def __init__(
        self,
        before: Prepared,
        children: tuple[Prepared, Prepared],
        after: Prepared,
        *,
        chosen: ctypes.c_ubyte,
        pid: ctypes.c_int,
        live: Callable[[bool, CallFailedError | None], NoReturn],
    ) -> None:
        """
        Args:
            before: among others, it may set ``chosen``.
            children: what a child does, of which one is chosen.
            after: made where there is a child.
            chosen: 0, or else the second.
            pid: becomes the pid of the child, before ``after``.
            live: called in the child, with what was chosen, and how its calls failed.
        """
        self._before, self._children, self._after = before, children, after
        self._chosen, self._pid, self._live = chosen, pid, live
        lists = [before.rows, children[0].rows, children[1].rows, after.rows]
        self._arguments = (*lists, ctypes.addressof(chosen), ctypes.addressof(pid))

    def make(self) -> int:
        """Do it all, and return the child's pid. It never returns in the child.

        As ``os.fork`` does, it runs what the interpreter and its libraries have registered for a fork; in the child
        after its calls.

        Raises:
            CallFailedError: a call before it, or after it, failed.
            OSError: as of fork(2).
        """
        if not self._before.in_c:
            return self._make_by_python()
        pid, part, place, failure = _prepared.fork_between(*self._arguments)
        if pid == 0:
            calls = self._children[bool(self._chosen.value)]
            is_whole = place == len(calls.rows) and not failure
            self._be_the_child(None if is_whole else calls.fault(place, failure))
        if failure or place != len(self._after.rows):
            raise self._fault(part, place, failure)
        return int(pid)

    def _be_the_child(self, failed: CallFailedError | None) -> NoReturn:
        try:
            self._live(bool(self._chosen.value), failed)
        finally:  # whatever happens: what comes after a fork is the parent's
            os._exit(_NEVER_LIVED)

    def _fault(self, part: int, place: int, failure: int) -> OSError:
        if part == _FORK:
            return OSError(failure, f"fork: {os.strerror(failure)}")
        return (self._before if part == _BEFORE else self._after).fault(place, failure)

    def _make_by_python(self) -> int:
        self._before.make()
        if (pid := os.fork()) == 0:
            failed = None
            try:
                self._children[bool(self._chosen.value)].make()
            except CallFailedError as error:
                failed = error
            self._be_the_child(failed)
        self._pid.value = pid
        self._after.make()
        return pid


HAS_C_PART = "_prepared" in globals()


def at_once(
    prepare: Callable[Concatenate[Calls, _Parameters], _Returned], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Returned:
    """Prepare calls and make them in this process; returns what ``prepare`` does."""
    calls = Calls()
    prepared = prepare(calls, *args, **kwargs)
    Prepared([("", calls)]).make()
    return prepared
