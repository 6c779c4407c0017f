"""URLs of PostgreSQL and Redis: each mistake in one gets a sentence with its fix, before anything is connected.

No sentence shows a user name, a password or a host. What a URL may hold is what asyncpg and redis-py take
(``asyncpg.connect``, ``redis.asyncio.ConnectionPool.from_url``); names that one of them would pass on or ignore in
silence are refused here.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

DATABASE_SCHEMES = ("postgresql", "postgres")
REDIS_SCHEMES = ("redis", "rediss", "unix")
ESCAPE = (
    "a user name or password in it has a character that must be percent-encoded: "
    "@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25"
)
NO_SENTINEL = "Sentinel, Cluster and lists of hosts are not supported: name the primary, or a proxy that follows it"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
DATABASE_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
DATABASE_TLS = (
    *DATABASE_FILES, "sslmode", "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip
NOT_ASYNCPG = (
    "channel_binding", "client_encoding", "connect_timeout", "fallback_application_name", "gssencmode", "hostaddr",
    "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "replication",
    "requirepeer", "require_auth", "tcp_user_timeout",
)  # fmt: skip
"""Parameters of libpq that asyncpg does not know, and would send to the server as settings."""
REDIS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
REDIS_TLS = (*REDIS_FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password")
REDIS_PARAMETERS = ("db", "username", "password", "protocol", "client_name")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+)(?::([0-9]{1,5}))?")
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


def check_database_url(text: str) -> str:
    """The URL of PostgreSQL as given; several hosts may be named, of which ``target_session_attrs`` chooses one.

    Raises:
        ValueError: a sentence that says what is wrong, and never shows the value.
    """
    parts, parameters = _split(text, DATABASE_SCHEMES)
    hosts = parts.netloc.rpartition("@")[2]
    if hosts:
        for host in hosts.split(","):
            _check_host(host)
    elif "host" not in parameters:
        raise ValueError("it names no host")
    for name, value in parameters.items():
        _check_database_parameter(name, value)
    _check_files(DATABASE_FILES, parameters)
    return text


def check_redis_url(text: str) -> str:
    """The URL of Redis or Valkey as given.

    Raises:
        ValueError: a sentence that says what is wrong, and never shows the value.
    """
    if text.partition("+")[2].startswith("sentinel:") or "," in text.partition("://")[2].rpartition("@")[2]:
        raise ValueError(NO_SENTINEL)
    parts, parameters = _split(text, REDIS_SCHEMES)
    if parts.scheme != "unix":
        _check_host(parts.netloc.rpartition("@")[2])
        if not re.fullmatch(r"/?|/[0-9]+", parts.path):
            raise ValueError("its path is no number of a database, such as /0")
    elif not parts.path:
        raise ValueError("it names no socket")
    for name in parameters:
        if name in REDIS_TLS and parts.scheme != "rediss":
            raise ValueError(f"{name} needs TLS: let it begin with rediss://")
        _check_known(name, (*REDIS_PARAMETERS, *REDIS_TLS))
    _check_files(REDIS_FILES, parameters)
    return text


def _split(text: str, schemes: tuple[str, ...]) -> tuple[SplitResult, dict[str, str]]:
    """The parts of a URL, and the parameters behind its question mark."""
    if not text.isprintable() or " " in text:
        raise ValueError("it has a space or a control character")
    if text.partition("://")[0] not in schemes:
        raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    try:
        parts = urlsplit(text)
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise ValueError(ESCAPE if "@" in text else "what follows its ? is no list of name=value") from None
    user, _, _ = parts.netloc.rpartition("@")
    behind = (parts.path if parts.scheme != "unix" else "") + parts.fragment + ("" if user else parts.query)
    if "@" in user or "@" in behind or not _ESCAPED.fullmatch(user):
        raise ValueError(ESCAPE)
    if "#" in text:
        raise ValueError(ESCAPE if user else "it has a fragment (#)")
    return parts, {name: values[-1] for name, values in query.items()}


def _check_host(text: str) -> None:
    found = _HOST.fullmatch(text)
    if not text or found is None:
        raise ValueError("its host is none" if text else "it names no host")
    if found[1] and not 1 <= int(found[1]) <= 65535:
        raise ValueError("its port is no number from 1 to 65535")


def _check_database_parameter(name: str, value: str) -> None:
    for known, choices in (("sslmode", SSL_MODES), ("target_session_attrs", SESSION_ATTRIBUTES)):
        if name == known and value not in choices:
            raise ValueError(f"{name} is none of {', '.join(choices)}")
    if name in NOT_ASYNCPG:
        raise ValueError(f"{name} is a parameter of other clients, without effect here: leave it out")
    if name.startswith("ssl"):
        _check_known(name, DATABASE_TLS)


def _check_known(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"it has an unknown parameter; known are {', '.join(known)}")


def _check_files(names: tuple[str, ...], parameters: dict[str, str]) -> None:
    """A file that is missing here would be an error without its name at each connection."""
    for name in names:
        if name in parameters:
            try:
                Path(parameters[name]).read_bytes()
            except OSError as error:
                raise ValueError(f"{name}={parameters[name]!r} cannot be read: {error.strerror}") from None
