"""A script finds in the sandbox what it finds elsewhere: zones, a locale, a user, harmless calls, forms of results."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.stack import task

FINDS: dict[str, tuple[str, Any]] = {
    "zones of the C library": (
        ("import datetime, os, time\nos.environ['TZ'] = 'Europe/Berlin'\ntime.tzset()\n"
        "result = datetime.datetime.fromtimestamp(0).isoformat()"),
        "1970-01-01T01:00:00",
    ),
    "zones of Python": (
        "import datetime, zoneinfo\nresult = datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Asia/Tokyo'))",
        "2024-07-01T00:00:00+09:00",
    ),
    "the locale of LANG": ("import locale\nresult = locale.setlocale(locale.LC_ALL, '')", "C.UTF-8"),
    "a user": (
        ("import getpass, grp, os, pathlib, pwd\nopen('a', 'w').close()\npath = pathlib.Path('a')\n"
        "result = [getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name, path.owner(), path.group(),\n"
        "          grp.getgrgid(os.getgid()).gr_name]"),
        ["sandbox"] * 5,
    ),
    "a home that can be written": (
        ("import os, pathlib\npathlib.Path.home().joinpath('x').write_text('y')\n"
        "result = os.path.expanduser('~') == os.path.expanduser('~sandbox') == str(pathlib.Path.home())"),
        True,
    ),
    "as many processors as it may use": (
        "import multiprocessing as m, os\nresult = os.cpu_count() == len(os.sched_getaffinity(0)) == m.cpu_count()",
        True,
    ),
    "names of the platform": (
        ("import platform, ctypes.util, uuid\nplatform.uname(), platform.processor(), platform.architecture()\n"
        "uuid.uuid1()\nresult = ctypes.util.find_library('c')"),
        "libc.so.6",
    ),
    "a pool of threads": ("from multiprocessing.pool import ThreadPool\nresult = ThreadPool(2).map(abs, [-1])", [1]),
    "locks of multiprocessing": (
        "import multiprocessing as m\nwith m.Lock(): result = m.Value('i', 3).value", 3,
    ),
    "every journal of SQLite": (
        ("import sqlite3\nconnection = sqlite3.connect('a.db')\nconnection.execute('create table t (x)')\nresult = []\n"
        "for mode in ('wal', 'delete', 'truncate', 'persist', 'memory', 'off'):\n"
        "    result += connection.execute('pragma journal_mode=' + mode).fetchone()\n"
        "    connection.execute('insert into t values (1)')\n    connection.commit()"),
        ["wal", "delete", "truncate", "persist", "memory", "off"],
    ),
    "signals to itself": (
        ("import os, signal\nresult = []\nsignal.signal(signal.SIGUSR1, lambda *_: result.append(1))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\nsignal.raise_signal(signal.SIGUSR1)"),
        [1, 1],
    ),
    "no terminal, said as everywhere": (
        ("import argparse, os, shutil\nargparse.ArgumentParser(prog='x').format_help()\ntry: os.get_terminal_size()\n"
        "except OSError as error: result = [error.errno, shutil.get_terminal_size().columns]"),
        [25, 80],
    ),
    "descriptors that are not open": (
        ("import os\nr = []\nfor act in (os.get_inheritable, os.tcgetpgrp, lambda fd: os.set_inheritable(fd, 1)):\n"
        "    try: act(99)\n    except OSError as error: r.append(error.errno)\nresult = r"),
        [9, 9, 9],
    ),
    "hard links, and files of its own": (
        ("import os, shutil\nopen('a', 'w').close()\nos.link('a', 'b')\nshutil.chown('a', 'sandbox', 'sandbox')\n"
        "result = os.stat('b').st_nlink"),
        2,
    ),
    "a loop of asyncio": (
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return await asyncio.to_thread(abs, -2)", 2,
    ),
}  # fmt: skip


def answer_to(client: httpx.Client, script: str) -> dict[str, Any]:
    response = client.post("/execute", params={"wait": 60}, json=task(script))
    assert 200 == response.status_code, response.text
    return dict(response.json())


@pytest.mark.parametrize(("script", "expected"), FINDS.values(), ids=FINDS)
def test_a_script_finds(client: httpx.Client, script: str, expected: Any) -> None:
    """With the answer that it would get elsewhere, and without a denied call."""
    answer = answer_to(client, script)
    assert ("ok", expected, []) == (answer["exit_reason"], answer["result"], answer["violations"]), answer


DENIALS = {
    "a process": ("import subprocess\nsubprocess.run(['ls'])", ("PermissionError", "custom_script", "process")),
    "a socket": ("import socket\nsocket.socket()", ("PermissionError", "network.allow", "custom_script_network")),
    "a signal": ("import os\nos.kill(2, 9)", ("PermissionError", "signal another process", "custom_script")),
    "another call": ("import os\nos.mkfifo('f')", ("PermissionError", "mknodat", "syscalls.allow")),
}  # fmt: skip


@pytest.mark.parametrize(("script", "words"), DENIALS.values(), ids=DENIALS)
def test_a_denied_call_is_named_with_the_key_that_would_grant_it(
    client: httpx.Client, script: str, words: tuple[str, ...]
) -> None:
    """In the message, for people; the call itself is among the violations."""
    answer = answer_to(client, script)
    assert ("error", True) == (answer["exit_reason"], bool(answer["violations"]))
    assert [] == [word for word in words if word not in answer["message"]], answer["message"]


def test_a_signal_to_itself_that_nothing_handles_ends_the_run(client: httpx.Client) -> None:
    """As it ends any process."""
    answer = answer_to(client, "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    assert ("signaled", "SIGTERM", True) == (
        answer["exit_reason"], answer["signal"], "sent to itself" in answer["message"],
    )  # fmt: skip


SHOWN = {
    "shown": (
        "plt.plot([1, 2])\nplt.figure()\nplt.plot([2])\nplt.show()\nresult = 1",
        ["figure-1.png", "figure-2.png"],
    ),
    "a result": ("figure, axes = plt.subplots(figsize=(2, 1))\nresult = figure", ["result.png"]),
    "axes as a result": ("result = plt.plot([1])[0].axes", ["result.png"]),
    "inside a result": ("figure, axes = plt.subplots()\nresult = {'plot': figure, 'again': axes}", ["figure-1.png"]),
}


@pytest.mark.parametrize(("script", "names"), SHOWN.values(), ids=SHOWN)
def test_a_figure_is_an_artifact(client: httpx.Client, script: str, names: list[str]) -> None:
    """A PNG that can be downloaded; nothing is warned of, and nothing denied."""
    answer = answer_to(client, "import matplotlib.pyplot as plt\n" + script)
    assert ("ok", names) == (answer["exit_reason"], [one["name"] for one in answer["artifacts"]]), answer
    assert ("", []) == (answer["logs"]["stderr"], answer["violations"])
    content = client.get(f"/task/{answer['task_id']}/artifacts/{names[0]}").content
    assert content.startswith(b"\x89PNG")


FORMS: dict[str, tuple[str, Any]] = {
    "polars": ("import polars as pl\nresult = [pl.DataFrame({'a': [1]}), pl.Series([2])]", [[{"a": 1}], [2]]),
    "pyarrow": ("import pyarrow as pa\nresult = pa.table([[1], [2]], names=['a', 'a'])", [{"a": 1, "a_2": 2}]),
    "pydantic": ("import pydantic\nclass M(pydantic.BaseModel):\n    a: int = 1\nresult = M()", {"a": 1}),
    "SQLAlchemy": (
        ("import sqlalchemy as sa\nwith sa.create_engine('sqlite://').connect() as connection:\n"
        "    result = connection.execute(sa.text('select 1 as a, 2 as a')).all()"),
        [{"a": 1, "a_2": 2}],
    ),
    "sympy": ("import sympy\nx = sympy.Symbol('x')\nresult = sympy.solve(x**2 - 4) + [x / 3]", [-2, 2, "x/3"]),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), FORMS.values(), ids=FORMS)
def test_values_of_libraries_have_a_form(client: httpx.Client, script: str, expected: Any) -> None:
    """That of the table in handlers/README.md."""
    assert expected == answer_to(client, script)["result"]
