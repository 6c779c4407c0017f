"""A receipt: how a task ended and under what, in a form that anybody can check without the service."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from engine.model.result import ArtifactFacts
from engine.model.status import Status
from engine.model.task import StoredTask
from sandbox import ExitReason, Result

VERSION = 1


class FileDigest(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file that the task named."""

    file_id: str
    sha256: str | None
    """In hex; ``None`` when the file has been deleted since."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """Who submitted a task, and the digests of what was submitted."""

    key_id: str | None
    request_id: str | None
    source_sha256: str | None
    parameters_sha256: str | None
    files: tuple[FileDigest, ...]


class ReceiptStatement(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a receipt that is signed. Digests are SHA-256 in hex unless they begin with their algorithm."""

    version: int = VERSION
    task_id: UUID
    tenant: str
    key_id: str | None
    """The API key that submitted the task."""
    request_id: str | None
    task_type: str
    source_sha256: str | None
    """Of the script that ran, whether it was sent or named; ``None`` where the task has none."""
    parameters_sha256: str | None
    """Of the parameters' JSON text, as it was sent."""
    files: tuple[FileDigest, ...]
    policy: str
    policy_digest: str | None
    libraries_digest: str | None
    limits: dict[str, Any] | None
    isolation: dict[str, Any] | None
    """The layers in force; ``None`` when the task ended without a run."""
    status: Status
    exit_reason: ExitReason
    exit_code: int | None
    signal: str | None
    error_type: str | None
    result_sha256: str | None
    """Of the result's JSON text, as the task's answer has it; ``None`` where the result is null."""
    stdout_sha256: str | None
    """Of the text in ``logs``, in UTF-8."""
    stderr_sha256: str | None
    artifacts: tuple[ArtifactFacts, ...]
    usage: dict[str, Any] | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receipt, with the signature that ``engine audit receipt`` checks."""

    receipt: Annotated[
        dict[str, Any],
        Meta(
            description="What is signed: who submitted what, under which grant it ran, and how it ended. A number with "
            "a fraction is a string."
        ),
    ]
    algorithm: Annotated[str, Meta(description="Ed25519, over the canonical JSON (RFC 8785) of `receipt`.")]
    kid: Annotated[str, Meta(description="The signing key, as `GET /.well-known/unityai-receipt-keys` names it.")]
    signature: Annotated[str, Meta(description="The 64 bytes, in base64.")]


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a signing key, as a JSON Web Key (RFC 8037)."""

    kty: str = "OKP"
    crv: str = "Ed25519"
    x: Annotated[str, Meta(description="The 32 bytes, in base64url without padding.")]
    kid: Annotated[str, Meta(description="The key's thumbprint (RFC 7638).")]
    use: str = "sig"
    alg: str = "EdDSA"


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that sign receipts now, or did before."""

    keys: tuple[PublicKey, ...]


def state_receipt(task: StoredTask, submission: Submitted) -> ReceiptStatement | None:
    """What a receipt of a task says; ``None`` while the task is not final."""
    if task.result is None or task.finished_at is None:
        return None
    result = task.result
    run = result.run if isinstance(result.run, Result) else None
    return ReceiptStatement(
        task_id=task.task_id,
        tenant=task.tenant,
        key_id=submission.key_id,
        request_id=submission.request_id,
        task_type=task.task_type,
        source_sha256=result.script.sha256 if result.script else submission.source_sha256,
        parameters_sha256=submission.parameters_sha256,
        files=submission.files,
        policy=task.policy,
        policy_digest=run.policy_digest if run else None,
        libraries_digest=(run.libraries_digest or None) if run else None,
        limits=msgspec.to_builtins(run.limits) if run else None,
        isolation=msgspec.to_builtins(run.isolation) if run else None,
        status=task.status,
        exit_reason=result.exit_reason,
        exit_code=run.exit_code if run else None,
        signal=run.signal if run else None,
        error_type=result.run.error.type if result.run.error else None,
        result_sha256=_sha256(bytes(run.value)) if run and run.value is not None else None,
        stdout_sha256=_sha256(run.logs.stdout.encode()) if run else None,
        stderr_sha256=_sha256(run.logs.stderr.encode()) if run else None,
        artifacts=result.artifacts,
        usage=msgspec.to_builtins(run.usage) | {"queue_s": result.queue_s or 0.0} if run else None,
        attempts=task.attempts,
        created_at=task.created_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
