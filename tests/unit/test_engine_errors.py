"""Each exception of the engine knows how it is answered."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import engine
from engine.api.body.checker import CheckerBusyError, CheckerEndedError
from engine.api.problems import RequestError, problem_of
from engine.client import ClientError
from engine.config.settings import SettingsError
from engine.model.errors import (
    EngineError,
    InvalidRequestError,
    KeyTakenError,
    PolicyForbiddenError,
    QueueUnavailableError,
    QuotaError,
    SchemaError,
    StoreUnavailableError,
)
from engine.service.follow import TooManyFollowersError
from handlers.parameters.faults import Fault

ANSWERS: dict[str, tuple[Exception, int, str | None]] = {
    "an invalid request": (InvalidRequestError(Fault(path="$.labels", message="must be an object")), 400, None),
    "a policy that the key does not allow": (
        PolicyForbiddenError(Fault(path="$.policy", message="not for you")),
        403,
        None,
    ),
    "an idempotency key of another request": (KeyTakenError(), 409, None),
    "a quota": (QuotaError("queued_tasks", 3, 1.2), 429, "2"),
    "a refusal before the body is read": (RequestError(415, "Send JSON."), 415, None),
    "PostgreSQL that is unreachable": (StoreUnavailableError("no route to db.internal"), 503, "2"),
    "Redis that is unreachable": (QueueUnavailableError("no route to redis.internal"), 503, "2"),
    "a body checker that ended": (CheckerEndedError(), 503, "2"),
    "a body checker that is busy": (CheckerBusyError(60), 503, "10"),
    "too many followers": (TooManyFollowersError(), 503, "5"),
    "a schema of a newer engine": (SchemaError("the database has schema version 9999"), 500, None),
    "settings that are invalid": (SettingsError(["DATABASE_URL is not set"]), 500, None),
    "an exception that nobody expected": (RuntimeError("db.internal"), 500, None),
}


@pytest.mark.parametrize(("error", "status", "retry_after"), ANSWERS.values(), ids=ANSWERS)
def test_exception_says_its_status_and_when_to_try_again(
    error: Exception, status: int, retry_after: str | None
) -> None:
    """One problem document for each, without a table of classes beside them."""
    problem, headers = problem_of(error)
    assert (status, retry_after) == (problem.status, headers.get("Retry-After"))
    for inside in ("internal", "9999", "DATABASE_URL"):
        assert inside not in problem.detail, "what only the log may say"


def test_invalid_part_of_a_request_is_named() -> None:
    """The path stands by itself, for programs, and in the sentence, for people."""
    problem, _ = problem_of(InvalidRequestError(Fault(path="$.labels", message="must be an object")))
    [fault] = problem.errors
    assert ("$.labels", "must be an object") == (fault.path, fault.message)
    assert "$.labels: must be an object" == problem.detail


def test_dead_checker_is_not_told_as_an_unreachable_database() -> None:
    """The title of an error names the part that failed."""
    problem, _ = problem_of(CheckerEndedError())
    assert "checks large bodies" in problem.detail
    assert "PostgreSQL" not in problem.detail


def test_each_public_exception_of_the_engine_has_the_one_root() -> None:
    """So that one ``except`` finds whatever it raises on purpose: the engine, and its client, which stands alone."""
    found = {}
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if module.name == "engine.__main__":
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == module.name and not name.startswith("_"):
                found[f"{module.name}.{name}"] = kind
    assert len(found) > 15
    roots = {name: ClientError if name.startswith("engine.client.") else EngineError for name in found}
    assert [] == [name for name, kind in found.items() if not issubclass(kind, roots[name])]
