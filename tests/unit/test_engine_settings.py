"""Settings: every fault at once, no secret shown, nothing guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.load import load_settings, variables
from engine.config.settings import Settings, SettingsError
from engine.model.principal import Quotas

URLS = {
    "DATABASE_URL": "postgresql://user:pw@db/app",
    "REDIS_URL": "redis://cache:6379/0",
    "N8N_WEBHOOK_URL": "https://n8n.example/webhook",
    "FASTAPI_URL": "http://app:8000",
}
REQUIRED = URLS | {"API_KEYS_FILE": "/etc/keys.toml", "CALLBACK_SECRET": "whsec_" + 32 * "A"}


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return caught.value.faults


def test_empty_environment_is_a_development_service_on_loopback() -> None:
    """Without any variable the service runs for its developer only."""
    settings = load_settings({})
    assert ("development", "127.0.0.1", 8001, "auto") == (
        settings.environment,
        settings.listen_host,
        settings.port,
        settings.isolation,
    )


def test_production_listens_everywhere_and_never_falls_back() -> None:
    """Production has its four URLs and the full isolation."""
    settings = load_settings(REQUIRED | {"ENVIRONMENT": "production"})
    assert ("0.0.0.0", "full") == (settings.listen_host, settings.isolation)
    assert (URLS["N8N_WEBHOOK_URL"], URLS["FASTAPI_URL"]) == settings.callback_urls
    assert (URLS["DATABASE_URL"], URLS["REDIS_URL"]) == settings.servers


def test_production_names_all_that_is_missing() -> None:
    """Each of the four missing URLs has its sentence, and each missing secret."""
    assert list(REQUIRED) == [fault.split()[0] for fault in faults({"ENVIRONMENT": "production"})]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "prod"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("MAX_TASK_TIMEOUT", "0"),
        ("MAX_TASK_TIMEOUT", "nan"),
        ("MAX_TASK_TIMEOUT", "1e9"),
        ("MAX_CONCURRENT_TASKS", "2.5"),
        ("MAX_CONCURRENT_TASKS", "-1"),
        ("CLEANUP_INTERVAL", "hourly"),
        ("PORT", "65536"),
        ("HOST", "my host"),
        ("DATABASE_URL", "mysql://h/db"),
        ("DATABASE_URL", "postgresql://"),
        ("REDIS_URL", "http://h"),
        ("REDIS_URL", "redis://h:port"),
        ("N8N_WEBHOOK_URL", "ftp://h"),
        ("FASTAPI_URL", "app:8000"),
        ("SANDBOX_ISOLATION", "none"),
        ("SANDBOX_UID", "0"),
        ("QUEUE_NAME", "a b"),
    ],
)
def test_value_that_cannot_be_is_named_with_what_may(name: str, value: str) -> None:
    """A bad value is an error with its name and what is allowed."""
    [fault] = faults({name: value})
    assert fault.startswith(name)
    assert "must be" in fault


WORD = "ask/w#rd"
MISTAKES = [
    (f"postgresql://u:{WORD}@h/db", "%2F"),
    ("postgresql://u:p@ss@h/db", "%40"),
    ("postgresql://u:12/34@h/db", "%2F"),
    ("postgresql://u:p?q@h/db", "%3F"),
    ("postgresql://u:p%zz@h/db", "%25"),
    ("postgresql://u:[x@h/db", "%40"),
    ("postgresql:///db", "names no host"),
    ("postgresql://h:70000/db", "port"),
    ("postgresql://h:1,:2/db", "host"),
    ("postgresql://h/db#x", "fragment"),
    ("postgresql://h/db?sslmode", "name=value"),
    ("postgresql://h/db?sslmode=full", "verify-full"),
    ("postgresql://h/db?ssl_mode=require", "sslmode"),
    ("postgresql://h/db?sslrootcert=/no/ca.pem", "'/no/ca.pem' cannot be read: No such file"),
    ("postgresql://h/db?sslkey=/no/key.pem", "'/no/key.pem' cannot be read: No such file"),
    ("postgresql://h/db?target_session_attrs=master", "read-write"),
    ("postgresql://h/db?connect_timeout=3", "leave it out"),
    ("mysql://h/db", "does not begin with postgresql://"),
    (f"redis://:{WORD}@h:6379/0", "%2F"),
    ("redis://u:12/34@h/0", "%2F"),
    ("redis://:p@ss@h/0", "%40"),
    ("redis://:p%zz@h/0", "%25"),
    ("redis://h/zero", "number of a database"),
    ("redis://h:0/0", "port"),
    ("redis://h?ssl_ca_certs=/etc/hostname", "rediss://"),
    ("rediss://h?ssl_ca_certs=/no/ca.pem", "'/no/ca.pem' cannot be read: No such file"),
    ("rediss://h?sslrootcert=/etc/hostname", "ssl_ca_certs"),
    ("redis+sentinel://h:26379/mymaster", "Sentinel"),
    ("redis://h1:6379,h2:6379/0", "lists of hosts"),
    ("unix://", "no socket"),
    ("http://h", "does not begin with redis://"),
]
RIGHT = [
    "postgresql://u:p%40ss%2Fw%23rd%25@h:5432/db?sslmode=require",
    "postgresql://u@h1:5432,h2/db?target_session_attrs=read-write",
    "postgres://[::1]:5432/db",
    "postgresql://u:p@/db?host=/run/postgresql",
    "postgresql://h/db?sslmode=verify-full&sslrootcert=/etc/hostname&application_name=x",
    "redis://h", "redis://:p%40ss@h:6379/1", "redis://u:p@h?db=2", "rediss://h/0?ssl_ca_certs=/etc/hostname",
    "unix:///run/redis.sock?db=1", "unix://:p%40@/run/redis.sock",
]  # fmt: skip


@pytest.mark.parametrize(("url", "said"), MISTAKES)
def test_mistake_in_a_url_is_one_sentence_without_the_url(url: str, said: str) -> None:
    """It says what to write instead; a password that is not escaped is neither shown nor taken for a host."""
    [fault] = faults({"DATABASE_URL" if url.partition("://")[0] in ("postgresql", "mysql") else "REDIS_URL": url})
    assert said in fault
    assert not any(part in fault for part in ("ask/w", "12/34", "ss@h", "%zz"))


@pytest.mark.parametrize("url", RIGHT)
def test_url_that_both_drivers_take_is_taken(url: str) -> None:
    """TLS parameters, several hosts, sockets, and passwords of any characters that are percent-encoded."""
    settings = load_settings({"DATABASE_URL" if url.startswith("postgres") else "REDIS_URL": url})
    assert url in (settings.database_url, settings.redis_url)


def test_all_faults_come_at_once_and_secrets_stay_secret() -> None:
    """Two bad values, two sentences; a password in neither."""
    found = faults({"DATABASE_URL": "mysql://u:hunter2@h/db", "PORT": "x"})
    assert ["DATABASE_URL", "PORT"] == [fault.split()[0] for fault in found]
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize("chosen", ["full", "unprivileged", "auto"])
def test_isolation_is_what_the_operator_says(chosen: str) -> None:
    """SANDBOX_ISOLATION overrules what the environment would choose."""
    assert chosen == load_settings(REQUIRED | {"ENVIRONMENT": "production", "SANDBOX_ISOLATION": chosen}).isolation


def test_empty_value_counts_as_not_set() -> None:
    """Compose files set variables to nothing."""
    assert Settings() == load_settings({"DATABASE_URL": "", "PORT": " ", "LOG_LEVEL": ""})


def test_values_are_typed() -> None:
    """Numbers, paths and levels come as such."""
    settings = load_settings({"MAX_TASK_TIMEOUT": "12.5", "LOG_LEVEL": "debug", "SCRIPTS_DIR": "/srv/scripts"})
    assert (12.5, "DEBUG", Path("/srv/scripts")) == (
        settings.max_task_timeout_s,
        settings.log_level,
        settings.scripts_dir,
    )


def test_each_variable_says_what_it_does() -> None:
    """The table has no empty effect, range or default."""
    assert [] == [variable.env for variable in variables() if not (variable.effect and variable.allowed)]
    assert [] == [variable.env for variable in variables() if not variable.default]
    assert len(variables()) == len({variable.env for variable in variables()})


@pytest.mark.parametrize("text", ["secret", "whsec_", "whsec_" + 28 * "A", "whsec_" + 32 * "A" + ",x", "whsec_€"])
def test_callback_secret_that_is_none_is_refused_and_not_shown(text: str) -> None:
    """Too short, without its prefix, no base64: refused with the fix, never printed."""
    (fault,) = faults({"CALLBACK_SECRET": text})
    assert fault.startswith("CALLBACK_SECRET (value not shown): must be whsec_")
    assert "keys secret" in fault


@pytest.mark.parametrize("text", ["ftp://x", "n8n", "https://a/x,", "https://a/\x01"])
def test_callback_base_that_is_no_url_is_refused(text: str) -> None:
    """CALLBACK_ALLOW is a list of URLs."""
    assert faults({"CALLBACK_ALLOW": text})


def test_secrets_may_lie_in_files(tmp_path: Path) -> None:
    """NAME_FILE stands for each secret's NAME, in production too; the newline that editors leave is none of it."""
    environ = {"ENVIRONMENT": "production", "API_KEYS_FILE": REQUIRED["API_KEYS_FILE"]}
    for name, value in REQUIRED.items() - environ.items():
        (tmp_path / name).write_text(f"{value}\n")
        environ[f"{name}_FILE"] = str(tmp_path / name)
    assert load_settings(REQUIRED | {"ENVIRONMENT": "production"}) == load_settings(environ)


def test_what_is_no_secret_has_no_file(tmp_path: Path) -> None:
    """PORT_FILE is nobody's variable."""
    (tmp_path / "port").write_text("9999")
    assert Settings() == load_settings({"PORT_FILE": str(tmp_path / "port")})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file or directory"), (b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8")],
    ids=["missing", "empty", "binary"],
)
def test_file_of_a_secret_that_cannot_be_read_is_one_fault(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    """It never means "not set": a development server would start in place of the real one."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    others = {name: value for name, value in REQUIRED.items() if name != "DATABASE_URL"}
    (fault,) = faults(others | {"ENVIRONMENT": "production", "DATABASE_URL_FILE": str(path)})
    assert fault.startswith(f"DATABASE_URL_FILE '{path}': ")
    assert sentence in fault


def test_value_and_file_together_are_refused(tmp_path: Path) -> None:
    """Nobody could tell which of them counts; neither is shown."""
    path = tmp_path / "secret"
    path.write_text("redis://:hunter2@cache")
    (fault,) = faults({"REDIS_URL": "redis://:hunter2@cache", "REDIS_URL_FILE": str(path)})
    assert "REDIS_URL and REDIS_URL_FILE are both set: only one of them may be" == fault


def test_what_a_file_of_a_secret_holds_is_not_shown(tmp_path: Path) -> None:
    """Wrong as a value, wrong in a file: the same sentence without it."""
    path = tmp_path / "secret"
    path.write_text("mysql://u:hunter2@h/db")
    (fault,) = faults({"DATABASE_URL_FILE": str(path)})
    assert fault.startswith("DATABASE_URL (value not shown): must be ")
    assert "hunter2" not in fault


def test_every_tenant_has_quotas_of_bytes_unless_the_operator_says_none() -> None:
    """A key's own counts; without one the default, and 0 is no limit."""
    quotas = load_settings({}).quotas_of(Quotas(stored_mib=7))
    assert (7, 1000) == (quotas.stored_mib, quotas.files_per_minute)
    assert 10_240 << 20 == load_settings({}).quotas_of(Quotas()).stored_bytes
    free = load_settings({"STORED_MIB": "0", "FILES_PER_MINUTE": "0"})
    assert Quotas() == free.quotas_of(Quotas())
    assert Quotas(stored_mib=7) == free.quotas_of(Quotas(stored_mib=7))
