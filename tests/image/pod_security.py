"""The rules of Kubernetes' Pod Security Standard ``restricted``, those of ``baseline`` included.

From https://kubernetes.io/docs/concepts/security/pod-security-standards (Kubernetes 1.34), for pods of Linux. Each rule
yields the field that breaks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)  # fmt: skip
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")


def breaches(spec: dict[str, Any]) -> list[str]:
    """What of a pod's specification the admission controller would refuse at the level ``restricted``."""
    found = list(_of_pod(spec))
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for one in spec.get(kind, []):
            found += [f"{one['name']}: {breach}" for breach in _of_container(one, spec.get("securityContext", {}))]
    return found


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes", []):
        yield from (f"volume {name}" for name in volume if name not in ("name", *VOLUMES))
    context = spec.get("securityContext", {})
    yield from (f"sysctl {one['name']}" for one in context.get("sysctls", []) if one["name"] not in SAFE_SYSCTLS)
    yield from _of_context(context)


def _of_container(one: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    context = one.get("securityContext", {})
    yield from _of_context(context)
    yield from ("hostPort" for port in one.get("ports", []) if port.get("hostPort"))
    probes = [value for name, value in one.items() if name.endswith("Probe")]
    yield from (
        "host of a probe" for probe in probes for way in probe.values() if isinstance(way, dict) and "host" in way
    )
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    if context.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"


def _of_context(context: dict[str, Any]) -> Iterator[str]:
    """Of what pods and containers have alike."""
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if context.get("appArmorProfile", {"type": "RuntimeDefault"})["type"] not in ("RuntimeDefault", "Localhost"):
        yield "appArmorProfile"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    options = context.get("seLinuxOptions", {})
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "seLinuxOptions"
