"""Every environment variable, in one typed place.

The fields of ``Settings`` are the single list: type, range, default, unit and effect of a variable stand on its
field, and the table of ``python -m engine settings`` and README.md beside this file are printed from them. Nothing is
read when this module is imported; ``load_settings`` is handed the environment and reports every fault at once.
"""

from __future__ import annotations

import base64
import enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import certifi
import msgspec
from msgspec import Meta

from engine.config.server_urls import check_database_url, check_redis_url
from engine.model.errors import EngineError
from engine.model.principal import Quotas
from sandbox import parse_exceptions

PROJECT_DIR = Path(__file__).resolve().parents[2]
HTTP_SCHEMES = ("http", "https")
RECEIPT_KEY_PREFIX = "uarec_"


class SettingsError(EngineError):
    """The environment cannot be used. ``faults`` has one sentence for each variable that is at fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each variable that is at fault."""
        return tuple(self.faults)


class Group(enum.StrEnum):
    """How often an operator changes a variable; the table has one part for each group."""

    MUST_SET = "Must set"
    """Production requires it."""
    TUNE = "Tune"
    """Sizes, addresses and folders that differ from one installation to the next."""
    RARELY = "Rarely"
    """The default fits almost everywhere."""


def _about(env: str, effect: str, *, group: Group, unit: str = "", default: str = "", **facts: Any) -> Meta:
    """The texts that the table prints of a field, beside its type and range."""
    return Meta(description=effect, extra={"env": env, "group": group, "unit": unit, "default": default, **facts})


def _parse_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(name.isprintable() and name and " " not in name for name in names):
        raise ValueError(text)
    return names


def _parse_bases(text: str) -> tuple[str, ...]:
    return tuple(_parse_url(url.strip(), HTTP_SCHEMES) for url in text.split(","))


def _parse_secrets(text: str) -> tuple[str, ...]:
    """Secrets of the Standard Webhooks scheme. The error never shows what was given."""
    secrets = tuple(secret.strip() for secret in text.split(","))
    for secret in secrets:
        try:
            length = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except ValueError:
            length = 0
        if not secret.startswith("whsec_") or not 24 <= length <= 64:
            raise ValueError("make one by `python -m engine keys secret`")
    return secrets


def _parse_receipt_keys(text: str) -> tuple[str, ...]:
    """Secret keys of Ed25519. The error never shows what was given."""
    secrets = tuple(secret.strip() for secret in text.split(","))
    for secret in secrets:
        try:
            length = len(base64.b64decode(secret.removeprefix(RECEIPT_KEY_PREFIX), validate=True))
        except ValueError:
            length = 0
        if not secret.startswith(RECEIPT_KEY_PREFIX) or length != 32:
            raise ValueError("make one by `python -m engine keys receipt-key`")
    return secrets


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process."""

    environment: Annotated[
        Literal["development", "production"],
        _about(
            "ENVIRONMENT",
            "`production` requires every variable of this group. The API then listens on all addresses, and no "
            "command starts servers of its own.",
            group=Group.MUST_SET,
        ),
    ] = "development"
    database_url: Annotated[
        str | None,
        _about(
            "DATABASE_URL",
            "URL of PostgreSQL, which stores tasks, results and files.",
            group=Group.MUST_SET,
            unit="URL",
            parse=check_database_url,
            allowed="a URL that starts with postgresql:// or postgres://",
            secret=True,
            required=True,
            default="embedded server in development",
        ),
    ] = None
    redis_url: Annotated[
        str | None,
        _about(
            "REDIS_URL",
            "URL of Redis or Valkey, which orders tasks and wakes workers. When Redis loses its data, no task is lost.",
            group=Group.MUST_SET,
            unit="URL",
            parse=check_redis_url,
            allowed="a URL that starts with redis:// or rediss:// or unix://",
            secret=True,
            required=True,
            default="embedded server in development",
        ),
    ] = None
    n8n_webhook_url: Annotated[
        str | None,
        _about(
            "N8N_WEBHOOK_URL",
            "Base URL of n8n's webhooks. Callbacks may go to URLs below it.",
            group=Group.MUST_SET,
            unit="URL",
            schemes=HTTP_SCHEMES,
            secret=True,
            required=True,
            default="no callbacks to n8n in development",
        ),
    ] = None
    fastapi_url: Annotated[
        str | None,
        _about(
            "FASTAPI_URL",
            "Base URL of the main app. Callbacks may go to URLs below it.",
            group=Group.MUST_SET,
            unit="URL",
            schemes=HTTP_SCHEMES,
            secret=True,
            required=True,
            default="no callbacks to the main app in development",
        ),
    ] = None
    api_keys_file: Annotated[
        Path | None,
        _about(
            "API_KEYS_FILE",
            "File with the hashes of the API keys; `python -m engine keys new` writes it. Without it the API asks"
            " for no key, and listens on loopback only.",
            group=Group.MUST_SET,
            unit="file",
            required=True,
            default="no keys in development",
        ),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...],
        _about(
            "CORS_ORIGINS",
            "Origins whose web pages may call the API. Example: https://app.example.com.",
            group=Group.TUNE,
            unit="origins",
            default="none",
            parse=_parse_bases,
            allowed="URLs that start with http:// or https://, separated by commas",
        ),
    ] = ()
    callback_allow: Annotated[
        tuple[str, ...],
        _about(
            "CALLBACK_ALLOW",
            "More base URLs below which callbacks may go.",
            group=Group.TUNE,
            unit="URLs",
            default="none",
            parse=_parse_bases,
            allowed="URLs that start with http:// or https://, separated by commas",
        ),
    ] = ()
    callback_secrets: Annotated[
        tuple[str, ...],
        _about(
            "CALLBACK_SECRET",
            "Secret that signs callbacks (Standard Webhooks); `python -m engine keys secret` makes one. To "
            "replace it, give the new and the old one, separated by a comma.",
            group=Group.MUST_SET,
            unit="secret",
            default="no callbacks in development",
            secret=True,
            required=True,
            parse=_parse_secrets,
            allowed="whsec_ and the base64 of 24 to 64 random bytes",
        ),
    ] = ()
    callback_retry_s: Annotated[
        float,
        Meta(ge=0.05, le=3600),
        _about(
            "CALLBACK_RETRY_S",
            "Pause after the first failed delivery of a callback. Each later pause is three times as long, up to "
            "four hours.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 5.0
    callback_give_up_s: Annotated[
        float,
        Meta(ge=1, le=2_592_000),
        _about(
            "CALLBACK_GIVE_UP_S",
            "Time during which the service tries to deliver a callback. After that the callback is dead, and `GET"
            " /callbacks` lists it.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 86400.0
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        _about("LOG_LEVEL", "The service drops log lines below this level.", group=Group.TUNE, upper=True),
    ] = "INFO"
    log_format: Annotated[
        Literal["json", "console"],
        _about("LOG_FORMAT", "`json`: one object per line, for machines. `console`: for people.", group=Group.TUNE),
    ] = "json"
    audit_log: Annotated[
        Path | None,
        _about(
            "AUDIT_LOG",
            "File to which APIs, workers and commands append the audit log: a JSON line for each attempt, refusal and"
            " change of keys. `python -m engine audit verify` checks it.",
            group=Group.TUNE,
            unit="file",
            default="among the other log lines, as `logger: audit`",
        ),
    ] = None
    receipt_keys: Annotated[
        tuple[str, ...],
        _about(
            "RECEIPT_KEY",
            "Secret key that signs receipts of tasks (Ed25519); `python -m engine keys receipt-key` makes one. To "
            "replace it, give the new and the old one, separated by a comma: the first one signs.",
            group=Group.TUNE,
            unit="secret",
            default="no receipts",
            secret=True,
            parse=_parse_receipt_keys,
            allowed="uarec_ and the base64 of 32 random bytes",
        ),
    ] = ()
    max_task_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=86400),
        _about(
            "MAX_TASK_TIMEOUT",
            "Longest wall time of a run. A policy or a request can only shorten it.",
            group=Group.TUNE,
            unit="seconds",
        ),
    ] = 300.0
    max_task_memory_mib: Annotated[
        Annotated[int, Meta(ge=64, le=1 << 20)] | None,
        _about(
            "MAX_TASK_MEMORY_MIB",
            "Most memory of a run. A policy or a request can only lower it.",
            group=Group.TUNE,
            unit="MiB",
            default="what each policy says",
        ),
    ] = None
    worker_memory_mib: Annotated[
        Annotated[int, Meta(ge=64, le=1 << 30)] | None,
        _about(
            "WORKER_MEMORY_MIB",
            "Memory that all running tasks of one worker may have together, by their limits. A task that does not fit "
            "waits in the queue. The API refuses a task whose own limit is higher, so give APIs and workers the same "
            "value.",
            group=Group.TUNE,
            unit="MiB",
            default="the container's or machine's memory without 1536 MiB (half of it at most), and at least the "
            "highest limit of a policy; `up` shares it among its workers",
        ),
    ] = None
    max_concurrent_tasks: Annotated[
        int,
        Meta(ge=1, le=1000),
        _about("MAX_CONCURRENT_TASKS", "Tasks that one worker runs at the same time.", group=Group.TUNE, unit="tasks"),
    ] = 10
    cleanup_interval_s: Annotated[
        float,
        Meta(ge=1, le=604800),
        _about(
            "CLEANUP_INTERVAL",
            "Time between two clean-ups. A clean-up deletes tasks older than RESULT_TTL and files older than FILE_TTL.",
            group=Group.TUNE,
            unit="seconds",
        ),
    ] = 3600.0
    result_ttl_s: Annotated[
        float,
        Meta(ge=1, le=3_153_600_000),
        _about(
            "RESULT_TTL",
            "Time that the service keeps a task after its end, with result, logs and artifacts. While the task's "
            "callback is due, the service keeps the task longer.",
            group=Group.TUNE,
            unit="seconds",
        ),
    ] = 2_592_000.0
    host: Annotated[
        str | None,
        _about(
            "HOST",
            "Address on which the API listens.",
            group=Group.TUNE,
            unit="address",
            default="127.0.0.1 in development, 0.0.0.0 in production",
        ),
    ] = None
    port: Annotated[
        int, Meta(ge=1, le=65535), _about("PORT", "TCP port on which the API listens.", group=Group.TUNE, unit="port")
    ] = 8001
    otlp_endpoint: Annotated[
        str | None,
        _about(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "Base URL of an OpenTelemetry collector (OTLP over HTTP) that receives the service's traces. "
            "OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_RESOURCE_ATTRIBUTES work as OpenTelemetry "
            "defines them.",
            group=Group.TUNE,
            unit="URL",
            schemes=HTTP_SCHEMES,
            secret=True,
            default="no traces",
        ),
    ] = None
    worker_metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        _about(
            "WORKER_METRICS_PORT",
            "TCP port on which a worker serves its metrics; 0 is any free port. `up` gives its workers this port "
            "and the ones after it. `GET /metrics/targets` lists all of them.",
            group=Group.TUNE,
            unit="port",
            default="none; 0 under `up`",
        ),
    ] = None
    worker_metrics_host: Annotated[
        str,
        _about(
            "WORKER_METRICS_HOST",
            "Address on which a worker serves its metrics. They need no key, so let only Prometheus reach it.",
            group=Group.TUNE,
            unit="address",
        ),
    ] = "127.0.0.1"
    max_body_mib: Annotated[
        int,
        Meta(ge=1, le=1024),
        _about(
            "MAX_BODY_MIB", "Longest request body. The API answers a longer one with 413.", group=Group.TUNE, unit="MiB"
        ),
    ] = 64
    check_memory_mib: Annotated[
        Annotated[int, Meta(ge=64, le=1 << 20)] | None,
        _about(
            "CHECK_MEMORY_MIB",
            "Memory that each of an API's two processes that check large bodies may take. JSON that takes more is "
            "refused with 400.",
            group=Group.TUNE,
            unit="MiB",
            default="a third of what the API leaves of the container's or machine's memory, at least six times "
            "MAX_BODY_MIB and 64 MiB more, at most 3072",
        ),
    ] = None
    policies_dir: Annotated[
        Path,
        _about(
            "POLICIES_DIR",
            "Folder of the policy files.",
            group=Group.RARELY,
            unit="folder",
            default="policies/ beside engine/",
        ),
    ] = PROJECT_DIR / "policies"
    policy_lock: Annotated[
        Literal["off", "required"],
        _about(
            "POLICY_LOCK",
            "`required`: the service does not start when a policy file differs from policies.lock, which `python "
            "-m engine policies lock` writes.",
            group=Group.TUNE,
        ),
    ] = "off"
    disabled_policies: Annotated[
        tuple[str, ...],
        _about(
            "DISABLED_POLICIES",
            "Policies that this process leaves out, for hosts that cannot meet them. The API refuses tasks that need "
            "one of them.",
            group=Group.TUNE,
            unit="names",
            default="none",
            parse=_parse_names,
            allowed="names of policies, separated by commas",
        ),
    ] = ()
    scripts_dir: Annotated[
        Path,
        _about(
            "SCRIPTS_DIR",
            "Folder of the named scripts that custom_script runs.",
            group=Group.RARELY,
            unit="folder",
            default="scripts/ beside engine/",
        ),
    ] = PROJECT_DIR / "scripts"
    files_dir: Annotated[
        Path | None,
        _about(
            "FILES_DIR",
            "Folder of files that tasks may name by path. Sandboxes see it read-only where their policy grants inputs.",
            group=Group.TUNE,
            unit="folder",
            default="none: tasks name no files by path",
        ),
    ] = None
    file_ttl_s: Annotated[
        float,
        Meta(ge=1, le=31_536_000),
        _about(
            "FILE_TTL",
            "Time that the service keeps an uploaded file. While a task waits for the file, the service keeps it "
            "longer.",
            group=Group.TUNE,
            unit="seconds",
        ),
    ] = 86400.0
    models_dir: Annotated[
        Path,
        _about(
            "MODELS_DIR",
            "Folder of the models of ml_inference: those that `make models` downloads, and the operator's own.",
            group=Group.RARELY,
            unit="folder",
            default="models/ beside engine/",
        ),
    ] = PROJECT_DIR / "models"
    libraries_dir: Annotated[
        Path,
        _about(
            "LIBRARIES_DIR",
            "Folder of the sets of libraries that scripts and handlers may import: those of `make install`, and the "
            "operator's own.",
            group=Group.RARELY,
            unit="folder",
            default=".libraries/ beside engine/",
        ),
    ] = PROJECT_DIR / ".libraries"
    data_dir: Annotated[
        Path | None,
        _about(
            "DATA_DIR",
            "Folder in which the embedded servers keep their data between two starts.",
            group=Group.TUNE,
            unit="folder",
            default=".data/ beside engine/; as root /var/lib/unityai-python-worker when the server's user cannot "
            "reach it",
        ),
    ] = None
    egress_allow_private: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        _about(
            "EGRESS_ALLOW_PRIVATE",
            "Private networks that runs may reach although their policy sets `deny_private`. The policy must name the "
            "host.",
            group=Group.TUNE,
            unit="networks",
            default="none",
            parse=parse_exceptions,
            allowed="private networks, separated by commas, such as 10.1.0.0/16",
        ),
    ] = ()
    egress_ca_file: Annotated[
        Path | None,
        _about(
            "EGRESS_CA_FILE",
            "Certificate authorities (PEM) that callbacks and runs with network trust.",
            group=Group.RARELY,
            unit="file",
            default="those of the certifi package",
        ),
    ] = None
    sandbox_isolation: Annotated[
        Literal["full", "unprivileged", "auto"] | None,
        _about(
            "SANDBOX_ISOLATION",
            "`full`: the worker starts only if the host has every layer that a policy requires. `unprivileged`: "
            "no namespaces, for hosts that refuse them; weaker, see sandbox/README.md. `auto`: the stronger of "
            "the two that the host offers. The log and every result name the choice.",
            group=Group.TUNE,
            default="auto in development, full in production",
        ),
    ] = None
    sandbox_landlock_abi_max: Annotated[
        int,
        Meta(ge=1, le=99),
        _about(
            "SANDBOX_LANDLOCK_ABI_MAX",
            "Latest Landlock ABI that the sandbox uses. Lower it to try what an older kernel does.",
            group=Group.RARELY,
        ),
    ] = 99
    sandbox_uid: Annotated[
        int,
        Meta(ge=1, le=4294967293),
        _about(
            "SANDBOX_UID",
            "User id of sandboxes when the worker is root. Unused otherwise.",
            group=Group.RARELY,
            unit="uid",
        ),
    ] = 60999
    sandbox_gid: Annotated[
        int,
        Meta(ge=1, le=4294967293),
        _about(
            "SANDBOX_GID",
            "Group id of sandboxes when the worker is root. Unused otherwise.",
            group=Group.RARELY,
            unit="gid",
        ),
    ] = 60999
    pool_ready: Annotated[
        int,
        Meta(ge=1, le=256),
        _about(
            "POOL_READY", "Ready sandboxes that a worker keeps for each policy.", group=Group.TUNE, unit="sandboxes"
        ),
    ] = 2
    rotate_after: Annotated[
        int,
        Meta(ge=1, le=10_000_000),
        _about(
            "ROTATE_AFTER",
            "Sandboxes that one zygote forks. Then a new zygote, with another address layout and hash seed, takes"
            " its place.",
            group=Group.RARELY,
            unit="sandboxes",
        ),
    ] = 1000
    zygote_start_s: Annotated[
        float,
        Meta(ge=1, le=3600),
        _about(
            "ZYGOTE_START_S",
            "How long a zygote may take to start, in processor time: on a busy machine it has as long as it needs."
            " One that uses none for as long on the wall is given up. A child has as long on the wall until it is"
            " ready, and so has each thing that `check` tries.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 60.0
    queue_name: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9:._-]{0,99}\Z"),
        _about(
            "QUEUE_NAME",
            "Prefix of the service's keys in Redis. APIs and workers with the same prefix share one queue.",
            group=Group.RARELY,
        ),
    ] = "unityai:tasks"
    lease_s: Annotated[
        float,
        Meta(ge=2, le=300),
        _about(
            "LEASE_S",
            "Time after which a silent worker loses its tasks. They then run again on any worker.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 12.0
    worker_stall_s: Annotated[
        float,
        Meta(ge=5, le=3600),
        _about(
            "WORKER_STALL_S",
            "Time for which a worker that is alive and does not answer keeps its tasks. After that it counts as lost.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 60.0
    debug_stall_s: Annotated[
        Annotated[float, Meta(gt=0, le=300)] | None,
        _about(
            "DEBUG_STALL_S",
            "For tests: SIGUSR2 stops a worker's event loop for this time. Production refuses it.",
            group=Group.RARELY,
            unit="seconds",
            default="SIGUSR2 has no such effect",
            development_only=True,
        ),
    ] = None
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        _about(
            "MAX_ATTEMPTS",
            "Most attempts at a task whose worker is lost; after the last one the task fails. The first loss is free"
            " when other tasks ran on the same worker. A policy can only lower it.",
            group=Group.RARELY,
            unit="attempts",
            default="what each policy says",
        ),
    ] = None
    drain_s: Annotated[
        float,
        Meta(ge=0, le=86400),
        _about(
            "DRAIN_S",
            "Time that a stopping worker gives its running tasks. Then it returns them to the queue without "
            "spending an attempt.",
            group=Group.TUNE,
            unit="seconds",
        ),
    ] = 20.0
    event_followers: Annotated[
        int,
        Meta(ge=1, le=1500),
        _about(
            "EVENT_FOLLOWERS",
            "Clients that can follow events at one API process at the same time. The API answers one more with 503.",
            group=Group.RARELY,
            unit="clients",
        ),
    ] = 512
    event_followers_per_tenant: Annotated[
        int | None,
        Meta(ge=1, le=1500),
        _about(
            "EVENT_FOLLOWERS_PER_TENANT",
            "How many of EVENT_FOLLOWERS one tenant can have; without it, half of them.",
            group=Group.RARELY,
            unit="clients",
        ),
    ] = None
    event_heartbeat_s: Annotated[
        float,
        Meta(ge=0.1, le=300),
        _about(
            "EVENT_HEARTBEAT_S",
            "Time after which an idle stream of events sends a comment, so that no proxy closes it.",
            group=Group.RARELY,
            unit="seconds",
        ),
    ] = 15.0
    database_connections: Annotated[
        int,
        Meta(ge=2, le=200),
        _about(
            "DATABASE_CONNECTIONS",
            "Most connections to PostgreSQL that one process opens.",
            group=Group.TUNE,
            unit="connections",
        ),
    ] = 8

    stored_mib: Annotated[
        int,
        Meta(ge=0, le=1 << 40),
        _about(
            "STORED_MIB",
            "MiB that one tenant may store: files, artifacts and tasks; 0 for no limit. A key can have its own.",
            group=Group.TUNE,
            unit="MiB",
        ),
    ] = 10_240
    files_per_minute: Annotated[
        int,
        Meta(ge=0, le=1_000_000),
        _about(
            "FILES_PER_MINUTE",
            "Files that one tenant may upload within any 60 seconds; 0 for no limit. A key can have its own number.",
            group=Group.TUNE,
            unit="files",
        ),
    ] = 1000
    database_max_mib: Annotated[
        Annotated[int, Meta(ge=16, le=1 << 40)] | None,
        _about(
            "DATABASE_MAX_MIB",
            "Size of the database from which on the API accepts no tasks and no files (507). Set it below the size of"
            " PostgreSQL's disk.",
            group=Group.TUNE,
            unit="MiB",
            default="no limit",
        ),
    ] = None
    database_free_mib: Annotated[
        int,
        Meta(ge=0, le=1 << 40),
        _about(
            "DATABASE_FREE_MIB",
            "Free space on PostgreSQL's disk below which the API accepts no tasks and no files (507). The API sees the"
            " disk where PostgreSQL listens on a Unix socket, as the embedded server does.",
            group=Group.TUNE,
            unit="MiB",
        ),
    ] = 256

    def quotas_of(self, own: Quotas) -> Quotas:
        """The quotas of a key, with the defaults of this service for those that it has not."""
        return msgspec.structs.replace(
            own,
            stored_mib=own.stored_mib or self.stored_mib or None,
            files_per_minute=own.files_per_minute or self.files_per_minute or None,
        )

    @property
    def listen_host(self) -> str:
        """The address to listen on: loopback unless someone, or production, says otherwise."""
        everywhere = "0.0.0.0"  # noqa: S104  in a container, in front of which somebody else decides who gets in
        return self.host or (everywhere if self.environment == "production" else "127.0.0.1")

    @property
    def servers(self) -> tuple[str, str]:
        """``DATABASE_URL`` and ``REDIS_URL``.

        Raises:
            SettingsError: one of them is not set.
        """
        if self.database_url and self.redis_url:
            return self.database_url, self.redis_url
        urls = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        raise SettingsError(
            [
                f"{name} is not set. (`python -m engine up` starts servers of its own.)"
                for name in urls
                if not urls[name]
            ]
        )

    @property
    def ca_file(self) -> Path:
        """Certificates that runs with network trust."""
        return self.egress_ca_file or Path(certifi.where())

    @property
    def isolation(self) -> Literal["full", "unprivileged", "auto"]:
        """The profile asked for."""
        return self.sandbox_isolation or ("full" if self.environment == "production" else "auto")

    @property
    def callback_urls(self) -> tuple[str, ...]:
        """The base URLs that callbacks may go to."""
        return tuple(url for url in (self.n8n_webhook_url, self.fastapi_url, *self.callback_allow) if url)


def _parse_url(text: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(text)
    reachable = parts.hostname or "host=" in parts.query or (parts.scheme == "unix" and parts.path)
    if parts.scheme not in schemes or not reachable or not text.isprintable():
        raise ValueError(text)
    _ = parts.port  # raises ValueError when it is no port
    return text
