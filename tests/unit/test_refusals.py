"""Why a host refuses a layer: each cause has its own fix, and what is not known is not guessed."""

from __future__ import annotations

import errno

import msgspec
import pytest

from sandbox.refusals import UNKNOWN, Surroundings, describe_landlock, namespaces_fix, seccomp_fix

PLAIN = Surroundings(settings={}, label="", is_filtered=False, is_in_chroot=False)
NO_CLONE = {"kernel/unprivileged_userns_clone": "0"}
UBUNTU = {"kernel/apparmor_restrict_unprivileged_userns": "1"}
CAUSES = {
    "no user namespaces for users": ("unshare", errno.EPERM, {"settings": NO_CLONE}, "unprivileged_userns_clone=1"),
    "none allowed": ("unshare", errno.ENOSPC, {"settings": {"user/max_user_namespaces": "0"}}, "max_user_namespaces=1"),
    "no network one": ("unshare", errno.ENOSPC, {"settings": {"user/max_net_namespaces": "0"}}, "max_net_namespaces=1"),
    "too many": ("unshare", errno.ENOSPC, {"settings": {"user/max_net_namespaces": "9"}}, "in use"),
    "too deep": ("unshare", errno.EUSERS, {}, "nested"),
    "AppArmor denies": ("unshare", errno.EACCES, {"label": "denyuserns (enforce)"}, "`denyuserns (enforce)`"),
    "AppArmor loses the path": ("uid_map", errno.EACCES, {"label": "worker (enforce)"}, "attach_disconnected"),
    "Ubuntu's restriction": ("mount", errno.EPERM, {"settings": UBUNTU}, "apparmor_restrict_unprivileged_userns=0"),
    "a chroot": ("unshare", errno.EPERM, {"is_in_chroot": True}, "chroot"),
    "a filter": ("unshare", errno.EPERM, {"is_filtered": True}, "Seccomp: 2"),
    "a kernel without": ("unshare", errno.EINVAL, {}, "CONFIG_USER_NS"),
    "nothing known": ("unshare", errno.EPERM, {}, UNKNOWN),
}


@pytest.mark.parametrize(("step", "number", "around", "fix"), CAUSES.values(), ids=CAUSES)
def test_each_cause_has_its_fix(step: str, number: int, around: dict[str, object], fix: str) -> None:
    """By step, errno, and what is known of the process."""
    assert fix in namespaces_fix(step, number, msgspec.structs.replace(PLAIN, **around))


def test_second_listener_is_named() -> None:
    """EBUSY is no fault of libseccomp."""
    assert "one listener" in seccomp_fix(errno.EBUSY)
    assert "listener" not in seccomp_fix(errno.EINVAL)


LANDLOCK = {
    1: "not truncation, tcp, signals, abstract sockets: namespaces, read-only mounts and seccomp close these; "
    "scripts cannot rename between folders (EXDEV)",
    2: "not truncation, tcp, signals, abstract sockets: namespaces, read-only mounts and seccomp close these",
    4: "truncation, tcp; not signals, abstract sockets: namespaces, read-only mounts and seccomp close these",
    7: "truncation, tcp, signals, abstract sockets",
}


@pytest.mark.parametrize(("abi", "expected"), LANDLOCK.items())
def test_row_of_landlock_says_what_its_abi_holds(abi: int, expected: str) -> None:
    """And what it does not."""
    assert expected == describe_landlock(abi).removeprefix("files, ").removeprefix("files; ")
