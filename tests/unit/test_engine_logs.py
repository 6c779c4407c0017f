"""Logs: one line an event, whatever is in it; no passwords."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from engine.model.redact import redact
from engine.telemetry.logs import MAX_FIELD_CHARACTERS, configure_logs, escape_controls, get_logger

pytestmark = pytest.mark.usefixtures("logs_as_before")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_control_characters_cannot_forge_a_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """A value with line breaks, escapes or bidirectional marks stays on its line, in plain sight."""
    configure_logs(level="INFO", log_format=log_format)
    get_logger().info("event", value='a\n{"level": "error"}\r\x1b[31m\u2028\u202e', other="\x85")
    [line] = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_libraries_speak_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the standard logging is one of ours."""
    configure_logs(level="INFO", log_format="json")
    logging.getLogger("some.library").warning("broken\n%s", "pipe")
    line = json.loads(capsys.readouterr().err)
    assert ("broken\npipe", "warning", "some.library") == (line["event"], line["level"], line["logger"])


def test_lines_of_a_task_carry_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    """Each log line of a task has its bound fields, lines of libraries included."""
    configure_logs(level="INFO", log_format="json")
    with structlog.contextvars.bound_contextvars(task_id="t1"):
        get_logger().info("ours")
        logging.getLogger("some.library").warning("theirs")
    assert ["t1", "t1"] == [json.loads(line)["task_id"] for line in capsys.readouterr().err.splitlines()]


def test_tracebacks_are_structured_without_locals(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception is data: type, value, frames; local variables, which may hold what clients sent, are not in it."""
    configure_logs(level="INFO", log_format="json")
    secret = "local-secret"  # noqa: F841  what must not be seen
    try:
        raise ValueError("cannot reach postgresql://user:hunter2@db/x")  # noqa: TRY301  to be logged here
    except ValueError:
        get_logger().exception("failed")
    text = capsys.readouterr().err
    [raised] = json.loads(text)["exception"]
    assert ("ValueError", "cannot reach postgresql://***@db/x") == (raised["exc_type"], raised["exc_value"])
    assert raised["frames"]
    assert "local-secret" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:pw@h:1/0", "redis://***@h:1/0"),
        ("unix:///run/x.sock?password=pw&db=1", "unix:///run/x.sock?password=***&db=1"),
        ("no secret here", "no secret here"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("sent Bearer abcdef123456 there", "sent Bearer *** there"),
        ("key whsec_MfKQ9r8GKYqrTwjU is bad", "key whsec_*** is bad"),
        ('{"api_key": "abc", "token":"def"}', '{"api_key": "***", "token":"***"}'),
        ("?secret=abc&page=2", "?secret=***&page=2"),
        ("the token is missing", "the token is missing"),
    ],
)
def test_passwords_are_cut_out(text: str, expected: str) -> None:
    """A log contains no password."""
    assert expected == redact(text)


@pytest.mark.parametrize(
    "text", ["postgresql://user:hunter2@host/db", "Bearer hunter2hunter2", "whsec_hunter2hunter2", "password=hunter2"]
)
def test_secret_that_the_cut_goes_through_is_redacted(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Wherever in it the cut falls, nothing of the secret is logged."""
    configure_logs(level="INFO", log_format="json")
    secret = text[text.index("hunter2") :][:7]
    for inside in range(len(text)):
        get_logger().info("event", value="-" * (MAX_FIELD_CHARACTERS - 1 - inside) + " " + text + " and more" * 300)
    lines = capsys.readouterr().err.splitlines()
    assert len(text) == len(lines)
    assert [] == [line[-80:] for line in lines if any(secret[:length] in line for length in (3, 5, 7))]


def test_levels_below_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """LOG_LEVEL=WARNING drops information."""
    configure_logs(level="WARNING", log_format="json")
    get_logger().info("quiet")
    assert "" == capsys.readouterr().err


def test_escaped_text_is_plain() -> None:
    """Escapes show what was there."""
    assert "a\\nb\\x1b" == escape_controls("a\nb\x1b")
