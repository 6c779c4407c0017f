"""The audit log: who did what. One JSON line for each attempt, each refusal, and each change of keys and policies.

It holds no parameters, no results and nothing that a run printed: digests stand for them. Names of system calls and
hosts are all that comes from a run, and JSON in pure ASCII lets none of it forge a line. LOG_LEVEL and LOG_FORMAT have
no effect on it.

The lines are a hash chain: each has a number, and the SHA-256 of the line before it. All processes that write to one
file write one chain, under one lock. A small file beside the log, ``FILE.head``, has the number and digest of the last
line, so that lines which are removed at the end are missed too. Who may write to both files can still remove the last
lines and set the head back: only a number and digest that were kept elsewhere show that (``audit verify --anchor``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from engine.model.errors import EngineError
from engine.model.result import TaskResult
from engine.telemetry.logs import get_logger
from sandbox import Result

LOGGER = "audit"
TAIL_BYTES = 1 << 14
PART_BYTES = 1 << 20
"""So much of the file is read at once for who looks through it."""
WINDOW_S = 60.0
REFUSALS_OF_ONE = 20
"""Of one key or address in a minute; further ones are counted in one line."""
REFUSALS_OF_ALL = 600
"""Of one process in a minute."""


class AuditError(EngineError):
    """The audit log cannot be written; the message says why, and the fix."""


class ChainEnd(NamedTuple):
    """The last line of a chain."""

    chain: str
    number: int
    digest: str
    """SHA-256 of the line without its end, in hex."""


class AuditLog:
    """Where the audit lines of a process go."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: file to append to; ``None`` puts the lines among the other log lines.

        Raises:
            AuditError: the file cannot be opened for appending.
        """
        self._fd: int | None = None
        self._head_fd: int | None = None
        self._own = ChainEnd(uuid4().hex, 0, "")
        """The head of a chain that no other process writes to: where there is no regular file."""
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, os.O_RDWR | flags, 0o640)
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                beside = path.with_name(f"{path.name}.head")
                self._head_fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise AuditError(
                f"AUDIT_LOG {path}: cannot be appended to: {error.strerror}; name a file in a folder that this "
                "user may write to"
            ) from error

    def attempt_failed(self, facts: dict[str, Any], stage: str) -> None:
        """Note one attempt that ended by our own failure, before or after the task's code ran.

        Args:
            facts: as of ``attempt_ended``.
            stage: the named step that failed.
        """
        self.note("attempt failed", facts | {"exit_reason": None, "failed_at": stage})

    def attempt_ended(self, facts: dict[str, Any], result: TaskResult) -> None:
        """Note one attempt.

        Args:
            facts: which task, attempt, tenant, key and policy; each a plain value.
            result: how it ended.
        """
        run = result.run if isinstance(result.run, Result) else None
        entry = facts | {
            "exit_reason": result.exit_reason.value,
            "policy_digest": run.policy_digest if run else None,
            "libraries_digest": run.libraries_digest if run else None,
            "isolation": run.isolation.profile if run else None,
            "layers": run.isolation.layers if run else {},
            "limits": msgspec.to_builtins(run.limits) if run else None,
            "violations": msgspec.to_builtins(run.violations) if run else [],
            "egress": msgspec.to_builtins(run.usage.egress) if run else [],
            "artifacts": [{"name": one.name, "sha256": one.sha256} for one in result.artifacts],
        }
        if result.script is not None:
            entry["source_sha256"] = result.script.sha256
        self.note("attempt ended", entry)

    def note(self, event: str, entry: Mapping[str, Any]) -> None:
        """Write one line. What cannot be written to the file goes among the other log lines instead.

        Args:
            event: what happened, in two words or so.
            entry: plain values that say more.
        """
        if self._fd is None or self._head_fd is None:
            self._own, line = _next_line(self._own, self._own.digest or None, event, entry)
            self._append(self._fd, line)
            return
        with _locked(self._head_fd):
            head, previous, torn = self._last(self._fd, self._head_fd)
            new, line = _next_line(head, previous, event, entry)
            # one write, and on O_APPEND: lines never mix (write(2)), whoever else has the file open
            if self._append(self._fd, b"\n" + line if torn else line):
                os.pwrite(self._head_fd, f"{new.chain} {new.number:020} {new.digest}\n".encode("ascii"), 0)

    def _last(self, fd: int, head_fd: int) -> tuple[ChainEnd, str | None, bool]:
        """The last line of the chain, what the next one gives as the digest before it, and whether the file breaks off.

        The head counts where it is ahead of the file: lines that are gone stay missing in the chain. The file counts
        where it is ahead: a process was killed between the two writes.
        """
        kept, text = _parse_head(os.pread(head_fd, 200, 0)), _tail(fd)
        torn = bool(text) and not text.endswith(b"\n")
        last = text.rstrip(b"\n").rpartition(b"\n")[2]
        found = _head_of(last) if last and not torn else None
        head = max((one for one in (kept, found) if one), key=lambda one: one.number, default=None) or self._own
        return head, _digest(last) if torn else head.digest or None, torn

    def _append(self, fd: int | None, line: bytes) -> bool:
        if fd is None:
            self._say(line)
            return True
        try:
            written = os.write(fd, line)
        except OSError as error:
            written, reason = 0, error.strerror
        else:
            reason = "it took a part of the line only"
        if written < len(line):  # the run is over: its result is not lost for that, and the line is not either
            get_logger().error("audit line not written", reason=reason)
            self._say(line.lstrip(b"\n"))
            return False
        return True

    def _say(self, line: bytes) -> None:
        sys.stderr.write(line.decode("ascii"))
        sys.stderr.flush()

    def close(self) -> None:
        """Close the file. The log gets its last number and digest, so that they stand in two places."""
        if self._fd is not None and self._head_fd is not None:
            head = _parse_head(os.pread(self._head_fd, 200, 0))
            if head is not None:
                get_logger().info("audit log closed", chain=head.chain, number=head.number, digest=head.digest)
        for fd in (self._fd, self._head_fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._head_fd = None

    @property
    def is_file(self) -> bool:
        """Whether the lines go to a regular file, which can be read again."""
        return self._head_fd is not None

    def read_back(self, end: int | None) -> list[tuple[int, bytes]]:
        """The last whole lines of the file, the last one first, each with the byte at which it begins.

        Args:
            end: only lines before this byte, at which one begins; ``None`` for the end of the file.

        Raises:
            OSError: the file cannot be read.
        """
        if self._fd is None or self._head_fd is None:
            return []
        size = os.fstat(self._fd).st_size
        end = size if end is None else min(end, size)
        start = max(0, end - PART_BYTES)
        text = os.pread(self._fd, end - start, start)
        found = []
        for line in text.splitlines(keepends=True):
            found.append((start, line.rstrip(b"\n")))
            start += len(line)
        return found[:0:-1] if end > PART_BYTES else found[::-1]  # else the first is a part of a line


class Refusals:
    """Notes refused requests, and counts those that are too many: nobody fills the audit log by being refused."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._since_s = time.monotonic()
        self._noted: dict[str, int] = {}
        self._left_out = 0

    def note(self, facts: Mapping[str, Any]) -> None:
        """Note one refusal.

        Args:
            facts: with ``key_id`` and ``client``, which tell whose it is.
        """
        if time.monotonic() - self._since_s >= WINDOW_S:
            self.flush()
        who = str(facts["key_id"] or facts["client"])
        if self._noted.get(who, 0) >= REFUSALS_OF_ONE or sum(self._noted.values()) >= REFUSALS_OF_ALL:
            self._left_out += 1
            return
        self._noted[who] = self._noted.get(who, 0) + 1
        self._audit.note("request refused", facts)

    def flush(self) -> None:
        """Note how many were left out, and begin a new minute."""
        if self._left_out:
            self._audit.note("requests refused", {"count": self._left_out})
        self._since_s, self._noted, self._left_out = time.monotonic(), {}, 0


class ChainCheck(NamedTuple):
    """What was found in an audit log."""

    lines: int
    faults: tuple[str, ...]
    """A sentence each."""
    last: ChainEnd | None


def verify(paths: list[Path], anchor: tuple[int, str] | None = None) -> ChainCheck:
    """Hold an audit log against its own chain.

    Args:
        paths: the files of one log, the oldest first, when it was rotated.
        anchor: number and digest of a line, which were kept elsewhere.

    Raises:
        OSError: a file cannot be read.
    """
    lines = [(where, line, _head_of(line)) for where, line in _lines(paths)]
    torn = {_digest(line): where for where, line, found in lines if found is None}
    faults = [f"{where}: this is no line of the audit log, or it broke off" for where in torn.values()]
    last: ChainEnd | None = None
    known: dict[int, str] = {}
    # by number: of two processes at the time of a rotation, one may still have written to the older file
    good = sorted(((where, line, found) for where, line, found in lines if found), key=lambda one: one[2].number)
    for where, line, found in good:
        previous = json.loads(line).get("previous")
        if last is None and found.number != 1:
            faults.append(f"{where}: the log begins at number {found.number}: the lines before it are missing")
        elif last is not None and (found.chain != last.chain or found.number != last.number + 1):
            faults.append(
                f"{where}: number {found.number} of {found.chain} follows number {last.number} of {last.chain}"
            )
        elif last is not None and previous != last.digest and previous not in torn:
            faults.append(f"{where}: the line before number {found.number} is not the one that it followed")
        last = found
        known[found.number] = found.digest
    faults += _end_faults(paths, last, known, anchor)
    return ChainCheck(len(known), tuple(faults), last)


def _end_faults(
    paths: list[Path], last: ChainEnd | None, known: Mapping[int, str], anchor: tuple[int, str] | None
) -> Iterator[str]:
    """What is wrong with the end of a log, which no later line can tell."""
    beside = paths[-1].with_name(f"{paths[-1].name}.head")
    kept = _parse_head(beside.read_bytes()) if beside.exists() else None
    if kept is None:
        yield f"{beside}: is missing or invalid, so that lines removed at the end are not seen"
    elif last is None or kept.number > last.number:
        yield f"the log ends at number {last.number if last else 0}, and its head says {kept.number}: lines are missing"
    elif kept.number == last.number and kept.digest != last.digest:
        yield f"number {last.number} is not the line of which the head has the digest"
    if anchor is not None and known.get(anchor[0]) != anchor[1]:
        yield f"number {anchor[0]} is missing, or is not the line of which the anchor has the digest"


def _lines(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}:{number}", line.rstrip(b"\n")


def _next_line(head: ChainEnd, previous: str | None, event: str, entry: Mapping[str, Any]) -> tuple[ChainEnd, bytes]:
    """The line that follows ``head``, and the head that it makes."""
    first = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "logger": LOGGER,
        "event": event,
        "chain": head.chain,
        "number": head.number + 1,
        "previous": previous,
    }
    line = json.dumps(first | dict(entry), ensure_ascii=True).encode("ascii")
    return ChainEnd(head.chain, head.number + 1, _digest(line)), line + b"\n"


def _head_of(line: bytes) -> ChainEnd | None:
    try:
        entry = json.loads(line)
        return ChainEnd(str(entry["chain"]), int(entry["number"]), _digest(line))
    except (ValueError, KeyError, TypeError):
        return None


def _parse_head(text: bytes) -> ChainEnd | None:
    try:
        chain, number, digest = text.decode("ascii").split()
        return ChainEnd(chain, int(number), digest)
    except ValueError:
        return None


def _tail(fd: int) -> bytes:
    """The end of a file, with its last line whole."""
    size, length = os.fstat(fd).st_size, TAIL_BYTES
    while True:
        length = min(length, size)
        text = os.pread(fd, length, size - length)
        if length == size or b"\n" in text[:-1]:
            return text
        length *= 4


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock of one that dies (flock(2))."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
