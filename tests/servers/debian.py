"""Debian's PostgreSQL, PgBouncer and Redis on TCP ports of the loopback, as a test wants them, with or without TLS."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import trustme

from tests.support.stack import free_port, until

PASSWORD = "p@ss/w?rd#1%:"
ESCAPED = quote(PASSWORD, safe="")
POOLER = """
[databases]
* = host=127.0.0.1 port={behind}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = plain
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = {sessions}
unix_socket_dir =
logfile = {folder}/pgbouncer.log
"""
PROGRAMS = ("pgbouncer", "redis-server")


def missing() -> list[str]:
    """The programs that this machine has not."""
    found = [name for name in PROGRAMS if shutil.which(name) is None]
    return found + ([] if list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) else ["postgresql"])


class Debian:
    """The servers of one run, in one folder, all by one user that is not root; they end with the context."""

    def __init__(self) -> None:
        self._ends = contextlib.ExitStack()
        self.folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        self._user = "postgres" if os.geteuid() == 0 else None
        authority, stranger = trustme.CA(), trustme.CA()
        self.ca, self.other_ca = self.folder / "ca.pem", self.folder / "other-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        stranger.cert_pem.write_to_path(str(self.other_ca))
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.certificate, self.key = self.folder / "server.pem", self.folder / "server.key"
        certificate.cert_chain_pems[0].write_to_path(str(self.certificate))
        certificate.private_key_pem.write_to_path(str(self.key))
        for path in (self.folder, self.ca, self.other_ca, self.certificate, self.key):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.key.chmod(0o600)
        self.hand_over(self.folder, self.key)

    def hand_over(self, *paths: Path) -> None:
        """Give files to the user of the servers."""
        if self._user:
            account = pwd.getpwnam(self._user)
            for path in paths:
                os.chown(path, account.pw_uid, account.pw_gid)

    def postgres(self, *options: str, hba: str = "host all all 127.0.0.1/32 scram-sha-256") -> int:
        """Start a PostgreSQL whose user ``app`` has the password; returns its port."""
        [*_, programs] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        data, port = Path(tempfile.mkdtemp(dir=self.folder)), free_port()
        self.hand_over(data)
        word = data.with_suffix(".password")
        word.write_text(PASSWORD)
        self.hand_over(word)
        make = [str(programs / "initdb"), "-D", str(data), "-U", "app", f"--pwfile={word}", "-A", "scram-sha-256", "-N"]
        subprocess.run(make, check=True, user=self._user, stdout=subprocess.DEVNULL, cwd="/")
        (data / "pg_hba.conf").write_text(hba + "\n")
        settings = ("listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off", *options)
        command = [str(programs / "postgres"), "-D", str(data), *(part for one in settings for part in ("-c", one))]
        self._start(command, port)
        return port

    def postgres_with_tls(self) -> int:
        """Start a PostgreSQL that takes nobody without TLS; returns its port."""
        tls = ("ssl=on", f"ssl_cert_file={self.certificate}", f"ssl_key_file={self.key}")
        return self.postgres(*tls, hba="hostssl all all 127.0.0.1/32 scram-sha-256")

    def pgbouncer(self, behind: int, mode: str) -> int:
        """Start a PgBouncer before a PostgreSQL; returns its port."""
        folder, port = Path(tempfile.mkdtemp(dir=self.folder)), free_port()
        sessions = 3 if mode == "transaction" else 20  # fewer than clients; as many as Debian's settings have
        settings, users = folder / "pgbouncer.ini", folder / "users"
        settings.write_text(POOLER.format(behind=behind, port=port, folder=folder, mode=mode, sessions=sessions))
        users.write_text(f'"app" "{PASSWORD}"\n')
        self.hand_over(folder, settings, users)
        self._start(["pgbouncer", str(settings)], port)
        return port

    def redis(self, *, tls: bool = False) -> int:
        """Start a Redis that asks for the password; returns its port."""
        port = free_port()
        ports = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
        files = ["--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file", self.ca]
        more = [*map(str, files), "--tls-auth-clients", "no"] if tls else []
        settings = self.folder / f"redis-{port}.conf"
        settings.write_text(f'requirepass "{PASSWORD}"\nsave ""\nbind 127.0.0.1\ndir {self.folder}\n')
        self.hand_over(settings)
        self._start(["redis-server", str(settings), *ports, *more], port)
        return port

    def _start(self, command: list[str], port: int) -> None:
        log = self._ends.enter_context((self.folder / f"{Path(command[0]).name}-{port}.log").open("ab"))
        server = subprocess.Popen(command, user=self._user, cwd="/", stdout=log, stderr=log)
        self._ends.callback(server.wait)
        self._ends.callback(server.kill)
        until(lambda: _listens(port), f"{command[0]} listens; see {log.name}", 60)

    def close(self) -> None:
        """End every server."""
        self._ends.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def debian() -> Iterator[Debian]:
    """Servers that end with the context."""
    with contextlib.closing(Debian()) as servers:
        yield servers
