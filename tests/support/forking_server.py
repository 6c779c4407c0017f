"""Answers each request in a fork of its own, as the sandbox does but without locking anything down.

A script changes the interpreter that it runs in, so no two tests may share one. One line of JSON in, one line out.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import sys
import tempfile

sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: F401 as the policy preloads it
import pandas as pd  # noqa: F401 likewise

import handlers.custom_script
import handlers.entry

# a script may take json apart, and leave no memory
_dumps = json.JSONEncoder().encode
_set_limit = resource.setrlimit


def answer(order: dict[str, object], output: int) -> None:
    """In the fork: one task, its answer to ``output``."""
    os.chdir(str(order["folder"]))
    with tempfile.TemporaryFile() as prints:
        os.dup2(prints.fileno(), 1)
        if order["data_mib"]:
            limit = int(str(order["data_mib"])) << 20
            _set_limit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
        try:
            kind, payload = handlers.entry.main(base64.b64decode(str(order["request"])))
        except SystemExit as leaving:
            kind, payload = "exit", _dumps(leaving.code).encode()
        _set_limit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        printed = os.pread(prints.fileno(), 1 << 20, 0)
        found = [kind, base64.b64encode(payload).decode(), base64.b64encode(printed).decode()]
        with os.fdopen(output, "w") as pipe:
            pipe.write(_dumps(found))


def serve() -> None:
    """Until stdin ends."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                answer(json.loads(line), writing)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            found = pipe.read()
        _, status = os.waitpid(pid, 0)
        print(found if found and status == 0 else json.dumps(["died", "", ""]), flush=True)


if __name__ == "__main__":
    serve()
