"""What an innocent tenant feels of each known attack: ``python -m tests.programs.neighbours`` (make neighbours).

A service of its own, with one worker and two tenants. The innocent one sends a small task after the other and waits for
each. The hostile one sends the attack again and again, as many at once as it was found with, or ``--at-once`` times as
many. Rounds with and without the attack take turns, so that a busy machine spoils both alike; so do rounds beside as
many ordinary tasks at once, which show what is only company. ``/health/live`` is asked all the time. The table has the
median and the worst latency of the innocent tenant's tasks, and the worst of ``/health/live``. ``as tasks``: a bar is
missed, and the attack costs what as many ordinary tasks cost; the machine has too few free cores for either.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from engine.config.keys import add_key, make_key
from engine.model.principal import Scope
from tests.support.stack import Stack, open_folder, task, until

PAUSE_S = 0.02
MEDIAN_TIMES, WORST_S, LIVE_S = 2.0, 1.0, 0.5
"""The bars: the median with the attack, of that without; the worst; the worst of ``/health/live``."""

OWN_FRAME = """
import json, os
p = json.dumps({"type": "a" * 45000 + "=", "message": "m"}).encode()
os.write(3, b"E" + len(p).to_bytes(8, "big") + p)
os._exit(1)
"""
SHARED_MEMORY = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
size = 1000 << 20
at = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, 0)
if at not in (None, ctypes.c_void_p(-1).value):
    for start in range(at, at + size, 8 << 20):
        ctypes.memset(start, 1, 8 << 20)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(8 << 20), 4)
"""
SOCKET_BUFFERS = """
import socket
pairs = []
for _ in range(62):
    try:
        pair = socket.socketpair()
    except OSError:
        break
    pairs.append(pair)
    for one in pair:
        one.setblocking(False)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        except OSError:
            pass
        try:
            while one.send(b"x" * 65536):
                pass
        except OSError:
            pass
"""
REAL_TIME_SIGNAL = "import signal\nsignal.raise_signal(35)"
BRACKETS = """
import os
p = b"[" + b"[]," * 2796000 + b"[]]"
os.write(3, b"R" + len(p).to_bytes(8, "big"))
while p:
    p = p[os.write(3, p):]
os._exit(0)
"""
COMPUTES = "import time\nwhile time.process_time() < 2: pass"
REPEATED_NAME = (
    '{"task_type":"custom_script","parameters":{"script":"x","args":{'
    + ",".join(f'"n{number}":0' for number in range(40_000))
    + ',"n39999":0}}}'
).encode()

SLOW_NUMBERS = (
    b'{"task_type":"custom_script","parameters":{"script":"result = 1","args":['
    + b"1e308," * 21_000  # 128 KB
    + b"1]}}"
)
FAULTY_BATCH = (
    b"["
    + b",".join(
        [b'{"task_type":"data_processing","parameters":{"operation":"group","data":[{}],"group_by":3,"agg":1}}'] * 1000
    )
    + b"]"
)
BATCH = msgspec.json.encode([task("result = 1", priority="low")] * 1000)


class Hostile(NamedTuple):
    """One attack: sends it once and waits for its answer."""

    name: str
    send: Callable[[httpx.Client], httpx.Response]
    at_once: int = 1
    """How many senders the attack was found with."""

    def times(self, many: int) -> Hostile:
        """The same with so many times as many senders."""
        return self._replace(at_once=self.at_once * many)


def _script(source: str, **more: int) -> Callable[[httpx.Client], httpx.Response]:
    return lambda client: client.post("/execute", json=task(source, **more), params={"wait": 60})


def upload(mib: int) -> Callable[[httpx.Client], httpx.Response]:
    """Sends a file of so many MiB."""
    return lambda client: client.post("/files", content=bytes(mib << 20))


def _body(content: bytes, path: str = "/execute?wait=60") -> Callable[[httpx.Client], httpx.Response]:
    kind = {"Content-Type": "application/json"}
    return lambda client: client.post(path, content=content, headers=kind)


ATTACKS = (
    Hostile("1 an error's type of 45 KB", _script(OWN_FRAME)),
    Hostile("2 shared memory that is let go", _script(SHARED_MEMORY, memory_mib=64)),
    Hostile("3 buffers of socket pairs", _script(SOCKET_BUFFERS)),
    Hostile("4 a body of 40,000 names, the last repeated", _body(REPEATED_NAME)),
    Hostile("5 a real-time signal", _script(REAL_TIME_SIGNAL)),
    Hostile("6 files of 60 MiB", upload(60)),
    Hostile("7 results of 8 MiB of brackets", _script(BRACKETS), at_once=8),
    Hostile("8 a body of 21,000 numbers that are slow to read", _body(SLOW_NUMBERS)),
    Hostile("9 a batch of 1,000 tasks with faults", _body(FAULTY_BATCH, "/execute/batch")),
    Hostile("10 runs that compute for two seconds", _script(COMPUTES), at_once=4),
)
FLOODS = (Hostile("11 a batch of 1,000 tasks that are accepted", _body(BATCH, "/execute/batch")),)
"""No attacks, but the heaviest requests that there are: for ``--only``, since their tasks take minutes."""


def ordinary(attack: Hostile) -> Hostile:
    """As many ordinary tasks at once as the attack sends."""
    return Hostile("ordinary tasks", _script("result = sum(range(1_000_000))"), attack.at_once)


class Felt(NamedTuple):
    """Seconds that each call took in some rounds."""

    tasks: list[float]
    live: list[float]


class Two:
    """A service with an innocent and a hostile tenant."""

    def __init__(self, folder: Path, **environ: str) -> None:
        keys = {name: make_key(name, tuple(Scope)) for name in ("innocent", "hostile")}
        for key in keys.values():
            add_key(folder / "keys.toml", key)
        self._bearers = {name: {"Authorization": f"Bearer {key.text}"} for name, key in keys.items()}
        file = str(folder / "keys.toml")
        self.stack = Stack(folder, headers=self._bearers["innocent"], **{"API_KEYS_FILE": file, **environ})  # type: ignore[arg-type]
        self.stack.worker()

    @contextlib.contextmanager
    def client(self, tenant: str) -> Iterator[httpx.Client]:
        """A client with the key of a tenant."""
        url = self.stack.client.base_url
        with httpx.Client(base_url=url, timeout=120, headers=self._bearers[tenant]) as client:
            yield client

    @contextlib.contextmanager
    def under(self, attack: Hostile, *, apart: bool = False) -> Iterator[threading.Semaphore]:
        """While the attack goes on; the semaphore counts its answers.

        Args:
            attack: what is sent.
            apart: from processes of their own, so that the attack takes nothing from the process that measures.
        """
        sort: Any = multiprocessing.get_context("fork") if apart else threading
        over, answered = sort.Event(), sort.Semaphore(0)

        def go_on() -> None:
            with self.client("hostile") as client:
                while not over.is_set():
                    with contextlib.suppress(httpx.TransportError):
                        attack.send(client)
                    answered.release()

        one = sort.Process if apart else sort.Thread
        senders = [one(target=go_on) for _ in range(attack.at_once)]
        for sender in senders:
            sender.start()
        try:
            yield answered
        finally:
            over.set()
            for sender in senders:
                sender.join()

    def feel(self, seconds: float) -> Felt:
        """What the innocent tenant feels for so long."""
        over, live = threading.Event(), list[float]()

        def ask_live() -> None:
            with self.client("innocent") as client:
                while not over.is_set():
                    live.append(_timed(lambda: client.get("/health/live"), 200))
                    time.sleep(PAUSE_S)

        asking, tasks = threading.Thread(target=ask_live), list[float]()
        asking.start()
        ends = time.monotonic() + seconds
        try:
            with self.client("innocent") as client:
                while time.monotonic() < ends:
                    body = task("result = sum(range(1000))")
                    tasks.append(_timed(lambda body=body: client.post("/execute?wait=60", json=body), 200))  # type: ignore[misc]
                    time.sleep(PAUSE_S)
        finally:
            over.set()
            asking.join()
        return Felt(tasks, live)


def _timed(send: Callable[[], httpx.Response], status: int) -> float:
    started = time.perf_counter()
    answer = send()
    took_s = time.perf_counter() - started
    if answer.status_code != status or answer.json().get("exit_reason") not in (None, "ok"):
        raise RuntimeError(f"an innocent call ended with {answer.status_code}: {answer.text[:300]}")
    return took_s


def main() -> int:
    """Print the table; exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.neighbours", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="of each kind, for each attack")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--at-once", type=int, default=1, help="as many times as many at once as it was found with")
    parser.add_argument("--only", default="", help="the attacks whose name has this text")
    parser.add_argument("--isolation", default="auto", help="SANDBOX_ISOLATION")
    given = parser.parse_args()
    measured = ("median", "worst", "live")
    of_tasks, of_attack = ([f"{who}: {what}" for what in measured] for who in ("tasks", "attack"))
    table = Table("attack", "alone: median", "worst", *of_tasks, *of_attack, "bars")
    missed = 0
    with open_folder() as folder:
        two = Two(folder, SANDBOX_ISOLATION=given.isolation, FILES_PER_MINUTE="0", STORED_MIB="2048")
        try:
            two.feel(given.seconds)  # what is slow only once
            chosen = ATTACKS + FLOODS if given.only else ATTACKS
            for attack in [one.times(given.at_once) for one in chosen if given.only in one.name]:
                print(f"{attack.name} ...", file=sys.stderr)
                cells, verdict = _measure(two, attack, given.rounds, given.seconds)
                table.add_row(attack.name, *cells, verdict)
                print("   ", *cells, verdict, sep="  ", file=sys.stderr)
                missed += verdict == "missed"
        finally:
            two.stack.close()
    Console(width=140).print(table)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 1 if missed else 0


def _measure(two: Two, attack: Hostile, rounds: int, seconds: float) -> tuple[list[str], str]:
    alone, company, under = Felt([], []), Felt([], []), Felt([], [])
    for _ in range(rounds):
        _add(alone, two.feel(seconds))
        for what, felt in ((ordinary(attack), company), (attack, under)):
            with two.under(what, apart=True) as answered:
                answered.acquire()
                _add(felt, two.feel(seconds))
            until(lambda: two.stack.get_worker()["running"] == 0, "it is over")
    calm = statistics.median(alone.tasks)
    cells = [_shown(calm), _shown(max(alone.tasks))]
    for felt in (company, under):
        median = statistics.median(felt.tasks)
        cells += [f"{_shown(median)} ({median / calm:.1f} x)", _shown(max(felt.tasks)), _shown(max(felt.live))]
    return cells, _verdict(alone, company, under)


def _verdict(alone: Felt, company: Felt, under: Felt) -> str:
    """``held``; ``as tasks`` when a bar is missed, and the attack costs no more than twice what ordinary tasks do."""
    felt, worst, live = statistics.median(under.tasks), max(under.tasks), max(under.live)
    if felt <= MEDIAN_TIMES * statistics.median(alone.tasks) and worst <= WORST_S and live <= LIVE_S:
        return "held"
    as_tasks = (
        felt <= MEDIAN_TIMES * statistics.median(company.tasks)
        and worst <= max(WORST_S, MEDIAN_TIMES * max(company.tasks))
        and live <= max(LIVE_S, MEDIAN_TIMES * max(company.live))
    )
    return "as tasks" if as_tasks else "missed"


def _add(all_of_it: Felt, more: Felt) -> None:
    all_of_it.tasks.extend(more.tasks)
    all_of_it.live.extend(more.live)


def _shown(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)} ms"


if __name__ == "__main__":
    sys.exit(main())
