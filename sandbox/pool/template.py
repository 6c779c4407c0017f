"""The parts of a zygote: the code, the folders and the interpreter, by their paths on the host."""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sandbox.egress.address import IPNetwork
from sandbox.errors import HostError
from sandbox.isolation import mounts, network
from sandbox.policy.policy import Policy

SITE_PACKAGES = "/python/site-packages"
CODE = "/app"
INTERPRETER = "/python/bin/python3"
CERTIFICATES = "/certificates.pem"
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
"""By these urllib, requests, httpx, curl and most others find a forward proxy."""
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_SANDBOX = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""Where the C part of ``sandbox.isolation.prepared`` lies, which is shown with the code."""
START_S = 60.0
"""Of a zygote or a child, see ``Template.start_s``; and of each try of the host."""
CACHES = ".caches"
"""Folder beside the packages of a set, with what a library would otherwise work out in every run: ``LIBRARY/FILE``."""
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", *glob.glob("/lib/ld-musl-*.so.1"))


class LibrarySet(msgspec.Struct, frozen=True, kw_only=True):
    """Packages that runs may import."""

    folder: Path
    """Holds the packages, as a ``site-packages`` does."""
    digest: str
    """Of all of its files."""

    @property
    def caches(self) -> list[str]:
        """The files below ``CACHES``, as ``LIBRARY/FILE``."""
        return sorted(str(path.relative_to(self.folder / CACHES)) for path in self.folder.glob(f"{CACHES}/*/*"))


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that all zygotes of a worker share, besides their policies."""

    code: Path
    """Folder that holds ``handlers/`` and ``sandbox/``; these two, nothing beside them, are visible inside."""
    entry: str
    """``module:function`` that answers a request, e.g. ``handlers.entry:main``."""
    libraries: dict[str, LibrarySet]
    """What a policy's ``libraries`` can name. The code needs some of it itself, such as msgspec."""
    places: dict[str, Path]
    """Place name in a policy's ``filesystem.read`` → host folder, e.g. ``{"scripts": Path("scripts")}``; and
    ``inputs``, the operator's files, if there are any."""
    ca_file: Path | None = None
    """Certificates that runs with egress trust (PEM); ``None`` for none at all."""
    egress_exceptions: tuple[IPNetwork, ...] = ()
    """Private networks that the operator opens to runs whose policy names the host."""
    start_s: float = START_S
    """Seconds of processor time that a zygote may use until it can fork, and of the wall that it may use none; and of
    the wall until a child is locked down."""
    uid: int
    """Outer user id of zygotes and children when the worker is root; unused otherwise."""
    gid: int


def granted_places(template: Template, policy: Policy) -> tuple[str, ...]:
    """The places, beside the interpreter itself, that runs under a policy see.

    Inputs are there only if the operator has set a folder of them; a place that a policy reads must be there.
    """
    inputs = ("inputs",) if policy.filesystem.inputs != "none" and "inputs" in template.places else ()
    return (*(place for place in policy.filesystem.read if place != "python"), *inputs)


def find_libraries(template: Template, policy: Policy) -> LibrarySet:
    """The set that a policy names.

    Raises:
        HostError: there is none of this name, or it is gone.
    """
    found = template.libraries.get(policy.libraries)
    if found is None or not found.folder.is_dir():
        there_are = ", ".join(template.libraries) or "none"
        raise HostError(f"policy {policy.name} uses the libraries {policy.libraries!r}; sets on this host: {there_are}")
    return found


def binds(
    template: Template, libraries: LibrarySet, places: tuple[str, ...], *, egress: bool = False
) -> list[tuple[str, str]]:
    """(host path, path inside) of everything that is shown read-only.

    Args:
        template: what zygotes are made of.
        libraries: what ``find_libraries`` says.
        places: what ``granted_places`` says.
        egress: whether the policy grants network, and so certificates.
    Raises:
        HostError: a granted place has no folder on this host.
    """
    packages = ("sandbox", *_entry_packages(template))
    found = [*_interpreter(), *_shared_libraries(), *_zones_and_locale(libraries)]
    found += [(str(libraries.folder), SITE_PACKAGES)]
    found += [(str(template.code / package), f"{CODE}/{package}") for package in packages]
    for place in places:
        folder = template.places.get(place)
        if folder is None or not folder.is_dir():
            raise HostError(f"the place {place!r} that the policy grants is not a folder on this host: {folder}")
        found.append((str(folder), f"/{place}"))
    if egress and template.ca_file:
        found.append((str(template.ca_file), CERTIFICATES))
    return [(os.path.realpath(source), target) for source, target in found]


def _entry_packages(template: Template) -> list[str]:
    package = template.entry.partition(":")[0].partition(".")[0]
    return [] if package == "sandbox" else [package]


def _interpreter() -> list[tuple[str, str]]:
    found = [(sys.executable, INTERPRETER)]
    for name in ("stdlib", "platstdlib"):
        folder = sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
        folder = os.path.join(sys.base_prefix, os.path.relpath(folder, sys.base_prefix))
        found.append((folder, "/python/" + os.path.relpath(folder, sys.base_prefix)))
    library = sysconfig.get_config_var("INSTSONAME") or ""
    path = os.path.join(sysconfig.get_config_var("LIBDIR") or "", library)
    if ".so" in library and os.path.exists(path):
        found.append((path, f"/python/lib/{library}"))
    return list(dict.fromkeys(found))


def _shared_libraries() -> list[tuple[str, str]]:
    """Folders of the shared libraries that this very interpreter runs on, and its dynamic loader."""
    own = [os.path.realpath(sys.prefix), _SANDBOX]
    if sys.base_prefix != "/usr":
        own.append(os.path.realpath(sys.base_prefix))
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}
    folders = {os.path.dirname(os.path.realpath(path)) for path in paths if path.startswith("/")}
    found = [
        (folder, folder)
        for folder in sorted(folders)
        # what lies with Python packages is shown with them, and may lie anywhere on the host
        if not folder.startswith(tuple(own)) and "-packages" not in folder and "lib-dynload" not in folder
    ]
    return found + [(loader, loader) for loader in _LOADERS if os.path.exists(loader)]


def zones(libraries: LibrarySet) -> str | None:
    """The host's folder of time zones: the package tzdata's, which is the same everywhere, or else the system's."""
    folders = (str(libraries.folder / "tzdata" / "zoneinfo"), mounts.ZONES)
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def _zones_and_locale(libraries: LibrarySet) -> list[tuple[str, str]]:
    found = zones(libraries)
    locale = [(mounts.LOCALE, mounts.LOCALE)] if os.path.isdir(mounts.LOCALE) else []
    return locale + ([(found, mounts.ZONES)] if found else [])


def ways_out(template: Template) -> dict[str, str]:
    """Variables by which programs find the egress proxy and the certificates to trust."""
    proxy = f"http://{network.ADDRESS}:{network.PORT}"
    found = dict.fromkeys(_PROXY_VARIABLES, proxy)
    return found | (dict.fromkeys(_CERTIFICATE_VARIABLES, CERTIFICATES) if template.ca_file else {})


def environment(
    *,
    inside: bool = True,
    zones: str | None = None,
    places: Mapping[str, str] | None = None,
    ways_out: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of zygotes and children: an allow-list with fixed values, nothing of the worker's.

    Args:
        inside: whether there is a root of our own; without one the paths are the host's, and the child sets HOME and
            TMPDIR to its workspace.
        zones: the folder of time zones as a run sees it.
        places: granted place → its path as a run sees it, which becomes e.g. ``INPUTS_DIR``.
        ways_out: what ``ways_out()`` says, for a policy that grants network.
    """
    paths = {"PATH": "/python/bin", "LD_LIBRARY_PATH": "/python/lib"} if inside else {"PATH": ""}
    paths |= {"TZDIR": zones, "PYTHONTZPATH": zones} if zones else {}
    folders = {f"{place.upper()}_DIR": path for place, path in (places or {}).items()}
    fixed = {
        "HOME": "/work",
        "TMPDIR": "/tmp",  # noqa: S108 the run's own, see isolation/mounts.py
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        # What pyplot.show() shows is kept; read by matplotlib when it is imported.
        "MPLBACKEND": "module://handlers.show_figures",
        # One thread at import, or the zygote could not fork: OpenBLAS and Arrow's jemalloc start theirs otherwise.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        # onnxruntime would report to its maker, and start a thread for that.
        "ORT_DISABLE_TELEMETRY": "1",
        # Each further malloc arena reserves 64 MiB of address space, which RLIMIT_AS counts.
        "MALLOC_ARENA_MAX": "2",
    }
    return paths | folders | dict(ways_out or {}) | fixed
