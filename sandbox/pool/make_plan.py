"""Works a policy, a host and a template out into the plan of a zygote."""

from __future__ import annotations

import base64
import math
import os
import sys
from typing import NamedTuple

from sandbox.errors import HostError
from sandbox.inside.plan import Plan
from sandbox.isolation import landlock, mounts, network, seccomp
from sandbox.policy.policy import Policy
from sandbox.pool.template import (
    CACHES,
    CODE,
    INTERPRETER,
    SITE_PACKAGES,
    Template,
    binds,
    environment,
    find_libraries,
    granted_places,
    ways_out,
    zones,
)
from sandbox.probe import Host

_MIB = 1 << 20


class Filters(NamedTuple):
    """The system call filters of a policy, as BPF."""

    main: bytes
    """Denies by default and reports."""
    last: bytes
    """Goes on top of it once a child is ready."""


def compile_filters(policy: Policy, host: Host) -> Filters:
    """Compile them. Takes some milliseconds, so once for all zygotes of a pool.

    Raises:
        HostError: libseccomp is missing or too old, or knows no such call.
    """
    calls = policy.syscalls
    try:
        main = seccomp.compile_filter(
            processes=calls.profile == "processes",
            network=bool(policy.network.allow),
            extra=calls.allow,
            alone=host.profile == "full",
            landlock_abi=host.landlock_abi,
        )
        return Filters(main, seccomp.compile_last_filter())
    except (ImportError, RuntimeError, OSError) as error:
        raise HostError(f"the system call filter of {policy.name} cannot be made: {error}") from error


def lends_network(policy: Policy, host: Host) -> bool:
    """Whether children may have network namespaces that others had before them.

    Not with a network, which a run changes; nor with processes; nor where Landlock does not confine abstract sockets.
    """
    plain = not policy.network.allow and policy.syscalls.profile == "threads" and not policy.syscalls.allow
    return host.profile == "full" and host.landlock_abi >= landlock.SCOPE_ABI and plain


def make_plan(
    policy: Policy, host: Host, template: Template, filters: Filters, *, ablated: tuple[str, ...] = ()
) -> Plan:
    """The plan of one zygote.

    Args:
        policy: what its children may do.
        host: whose profile and Landlock ABI are used.
        template: what it is made of.
        filters: as ``compile_filters`` makes them.
        ablated: steps of the lock-down to leave out, for the ablation tests.
    Raises:
        HostError: a place or the libraries that the policy grants are not on this host.
    """
    inside, egress, limits = host.profile == "full", bool(policy.network.allow), policy.limits
    places, libraries = granted_places(template, policy), find_libraries(template, policy)
    packages = SITE_PACKAGES if inside else str(libraries.folder)
    return Plan(
        profile=host.profile,
        policy=policy.name,
        task_type=policy.task_type,
        cold=policy.start == "cold",
        entry=template.entry,
        preload=list(policy.preload),
        interpreter=INTERPRETER if inside else os.path.realpath(sys.executable),
        code=CODE if inside else str(template.code),
        site_packages=packages,
        caches=[[*file.split("/"), f"{packages}/{CACHES}/{file}"] for file in libraries.caches],
        environment=environment(
            inside=inside,
            zones=zones(libraries) and mounts.ZONES if inside else zones(libraries),
            places={place: f"/{place}" if inside else str(template.places[place]) for place in places},
            ways_out=ways_out(template) if egress else {},
        ),
        binds=[list(bind) for bind in binds(template, libraries, places, egress=egress)],
        links=[["/work/tmp", "/tmp"], ["/work/tmp", "/dev/shm"]],  # noqa: S108 inside the sandbox
        workspace_base="",  # the zygote's client makes one where it is needed
        outer_uid=template.uid,
        outer_gid=template.gid,
        cpu_s=math.ceil(limits.cpu_s),
        memory_bytes=limits.memory_mib * _MIB,
        threads=limits.threads,
        processes=limits.processes,
        may_fork=policy.syscalls.profile == "processes" or bool(policy.syscalls.allow),
        processors=limits.processors,
        open_files=limits.open_files,
        workspace_bytes=limits.workspace_mib * _MIB,
        workspace_files=limits.workspace_files,
        landlock_abi=host.landlock_abi,
        proxy_port=network.PORT if egress else 0,
        lends_network=lends_network(policy, host) and "enter_namespaces" not in ablated,
        filter_base64=base64.b64encode(filters.main).decode(),
        last_filter_base64=base64.b64encode(filters.last).decode(),
        ablated=list(ablated),
    )
