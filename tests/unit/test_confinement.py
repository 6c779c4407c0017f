"""What a worker says of its own container: the seccomp filter and the security module's profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.machine import read_confinement
from engine.model.worker_state import OuterConfinement


@pytest.mark.parametrize(
    ("status", "label", "expected"),
    [
        ("Seccomp:\t2\nSeccomp_filters:\t1\n", b"unityai-full (enforce)\n", ("filter", 1, "unityai-full (enforce)")),
        ("Seccomp:\t0\nSeccomp_filters:\t0\n", b"unconfined\n", ("none", 0, "unconfined")),
        ("Seccomp:\t2\n", b"system_u:system_r:container_t:s0\0", ("filter", None, "system_u:system_r:container_t:s0")),
        ("Name:\tpython\n", None, ("unknown", None, None)),
    ],
    ids=["profiles of our own", "none", "SELinux on an old kernel", "a kernel without both"],
)
def test_container_is_described_as_the_kernel_has_it(
    tmp_path: Path, status: str, label: bytes | None, expected: tuple[str, int | None, str | None]
) -> None:
    """proc_pid_status(5) and proc_pid_attr(5); what the kernel does not have is not guessed."""
    (tmp_path / "status").write_text(f"Name:\tpython\n{status}")
    if label is not None:
        (tmp_path / "attr").mkdir()
        (tmp_path / "attr" / "current").write_bytes(label)
    found = read_confinement(tmp_path)
    assert expected == (found.seccomp, found.seccomp_filters, found.security_label)


def test_this_process_is_described() -> None:
    """Whatever holds it."""
    found = read_confinement()
    assert isinstance(found, OuterConfinement)
    assert f"Seccomp:\t{['none', 'strict', 'filter'].index(found.seccomp)}\n" in Path("/proc/self/status").read_text()
