"""The targets of an attack: planted secrets, listeners, throw-away trees; and their count afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sandbox import Result, Template
from tests.support.synchronous import Sandbox, as_before, inventory


class Secrets:
    """One secret text in every place that a careless sandbox would leave open: file, environment, descriptor."""

    def __init__(self) -> None:
        self.canary = "canary-" + secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="field-"))
        self.folder.chmod(0o755)  # no file mode protects what lies here: only the sandbox does
        self.file = self.plant("secret.txt")
        self.plant("home/.ssh/id_rsa")
        self.plant("home/.aws/credentials")
        self.plant("home/.env")
        os.environ["WORKER_SECRET"] = self.canary
        self._descriptor = os.open(self.file, os.O_RDONLY)
        os.set_inheritable(self._descriptor, True)

    def plant(self, name: str) -> Path:
        """Make a file that anyone may read, with the secret in it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"password = {self.canary}\n", encoding="utf-8")
        path.chmod(0o644)
        return path

    def close(self) -> None:
        """Take all of it away again."""
        del os.environ["WORKER_SECRET"]
        os.close(self._descriptor)
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)  # shutil gives up on very deep trees


class Field:
    """Everything around the sandbox that an attack must not touch, and the means to see that it did not."""

    def __init__(self, box: Sandbox, template: Template, planted: Secrets) -> None:
        self.box = box
        self.template = template
        self.planted = planted
        self.canary = planted.canary
        self.folder = planted.folder
        self._listeners: dict[str, socket.socket] = {}
        self._listen()
        self._kept_open: list[int] = []
        self.victim = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)

    # -- what is there to reach

    def _listen(self) -> None:
        self.unix_path = str(self.folder / "service.sock")
        self.unix_datagram_path = str(self.folder / "log.sock")
        self.abstract = "\0field-" + secrets.token_hex(8)
        self.abstract_datagram = self.abstract + "-datagram"
        for name, family, kind, address in (
            ("tcp4", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp4", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, self.unix_path),
            ("unix datagram", socket.AF_UNIX, socket.SOCK_DGRAM, self.unix_datagram_path),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, self.abstract),
            ("abstract datagram", socket.AF_UNIX, socket.SOCK_DGRAM, self.abstract_datagram),
        ):
            listener = socket.socket(family, kind)
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen(64)
            if family == socket.AF_UNIX and isinstance(address, str) and address.startswith("/"):
                os.chmod(address, 0o777)
            listener.setblocking(False)
            listener.set_inheritable(True)  # what a careless worker would hand on
            self._listeners[name] = listener
        self.tcp_port = self._listeners["tcp4"].getsockname()[1]
        self.udp_port = self._listeners["udp4"].getsockname()[1]

    def contacts(self) -> int:
        """How many connections and datagrams have arrived since the last time."""
        count = 0
        for listener in self._listeners.values():
            with contextlib.suppress(BlockingIOError):
                while True:
                    if listener.type == socket.SOCK_STREAM:
                        listener.accept()[0].close()
                    else:
                        listener.recv(65536)
                    count += 1
        return count

    def addresses(self) -> dict[str, Any]:
        """Where the listeners are, as args of a program."""
        return {
            "tcp": self.tcp_port, "udp": self.udp_port, "unix": self.unix_path, "log": self.unix_datagram_path,
            "abstract": self.abstract, "abstract_log": self.abstract_datagram,
        }  # fmt: skip

    def keep_open(self, path: str, *, inheritable: bool) -> None:
        """Open a file or folder and leave it so until the end."""
        fd = os.open(path, os.O_RDONLY)
        os.set_inheritable(fd, inheritable)
        self._kept_open.append(fd)

    def throw_away(self, name: str = "tree") -> Path:
        """A fresh folder with a file and a folder in it, for the control to spoil."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        (folder / "sub").mkdir()
        (folder / "file.py").write_text("x = 1\n" * 100, encoding="utf-8")
        return folder

    def new_victim(self) -> int:
        """A living process that belongs to whoever runs the tests."""
        if self.victim.poll() is not None:
            self.victim = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        return self.victim.pid

    # -- what must be unchanged

    def fingerprint(self) -> dict[str, tuple[int, ...]]:
        """Mode, owner, links, size and times of what is shown inside read-only."""
        found: dict[str, tuple[int, ...]] = {}
        for tree in self._trees():
            found[str(tree)] = _facts(str(tree))
            for folder, folders, files in os.walk(tree):
                if "__pycache__" in folders:
                    folders.remove("__pycache__")  # the tests' own imports write there
                found |= {path: _facts(path) for name in (*folders, *files) for path in (f"{folder}/{name}",)}
        return found

    def _trees(self) -> list[Path]:
        interpreter = Path(os.path.realpath(sys.executable))
        packages = Path(msgspec.__file__).parent
        return [self.template.code, self.planted.file, interpreter, packages, Path(os.__file__)]

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Whatever is done meanwhile leaves no trace, and the next task is served."""
        assert self.box.settle(), "the pool is not at rest"
        self.contacts()
        before, trees = inventory(), self.fingerprint()
        yield
        assert self.contacts() == 0, "something arrived at a listener of the host"
        assert trees == self.fingerprint(), "a file of the host was changed"
        assert self.victim.poll() is None, "a process of the host was killed"
        benign = self.box.run("result = sorted(args)", [2, 1])
        assert (benign.exit_reason.value, bytes(benign.value or b"")) == ("ok", b"[1,2]"), benign
        assert self.box.settle()
        assert {} == as_before(before)

    def assert_secret(self, result: Result) -> None:
        """The secret is nowhere in the whole answer."""
        encoded = msgspec.json.encode(result) + b"".join(artifact.content for artifact in result.artifacts)
        assert self.canary.encode() not in encoded

    def close(self) -> None:
        """End what was started."""
        self.victim.kill()
        self.victim.wait()
        for listener in self._listeners.values():
            listener.close()
        for fd in self._kept_open:
            os.close(fd)


def _facts(path: str) -> tuple[int, ...]:
    seen = os.lstat(path)
    return (
        seen.st_ino, seen.st_mode, seen.st_uid, seen.st_nlink, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns,
    )  # fmt: skip
