"""A client's request: the one list of its fields.

A new field is one line in ``ExecuteRequest``. From there the body checker, the OpenAPI document, the columns of the
table ``tasks`` and the worker have it by its name.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from engine.model.status import Priority

LABEL = r"\A[^\x00-\x1f\x7f]*\Z"
LABEL_NAME = r"\A[A-Za-z0-9][A-Za-z0-9_./-]*\Z"
NO_PARAMETERS = msgspec.Raw(b"null")
"""Stands for parameters that lie elsewhere."""


class ExecuteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /execute``."""

    task_type: Annotated[str, Meta(description="The sort of task, which decides what `parameters` may be.")]
    parameters: Annotated[msgspec.Raw, Meta(description="The arguments of the task type.")]
    """The client's own JSON text. It is checked once and never decoded again outside a sandbox."""
    policy: (
        Annotated[
            str,
            Meta(
                max_length=64,
                description="Name of the policy to run under. Default: the policy named after the task type.",
                examples=["custom_script"],
            ),
        ]
        | None
    ) = None
    timeout_s: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=86400,
                description="Longest wall time in seconds. It can only shorten what the policy allows.",
                examples=[10],
            ),
        ]
        | None
    ) = None
    memory_mib: (
        Annotated[
            int,
            Meta(
                ge=64,
                le=1 << 20,
                description="Most memory in MiB. It can only lower what the policy allows.",
                examples=[256],
            ),
        ]
        | None
    ) = None
    callback_url: (
        Annotated[
            str,
            Meta(
                max_length=2048,
                description="A signed POST reports the end of the task to this URL. It must lie below N8N_WEBHOOK_URL, "
                "FASTAPI_URL or CALLBACK_ALLOW.",
                examples=["https://n8n.example.com/webhook-waiting/4711"],
            ),
        ]
        | None
    ) = None
    priority: Annotated[
        Priority,
        Meta(
            description="Orders the task among your own tasks. A task of low priority waits longer, but never for ever."
        ),
    ] = Priority.NORMAL
    labels: Annotated[
        dict[
            Annotated[str, Meta(max_length=63, pattern=LABEL_NAME)], Annotated[str, Meta(max_length=200, pattern=LABEL)]
        ],
        Meta(
            max_length=32,
            description="Your own names and values. The task's answer repeats them, and `GET /tasks` filters by them.",
            examples=[{"tenant": "acme"}],
        ),
    ] = {}


class ExecuteItem(ExecuteRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task of ``POST /execute/batch``."""

    idempotency_key: Annotated[str, Meta(description="As the header Idempotency-Key of POST /execute.")] | None = None


class SubmitRequest(ExecuteItem, frozen=True, kw_only=True):
    """A request whose syntax and types have been checked, with what the check found in its parameters."""

    script_name: str | None = None
    """Name of the file in the scripts folder, when the script is a name and not source."""
    file_ids: tuple[str, ...] = ()
    """The uploaded files that the parameters name."""
    source_sha256: str | None = None
    """SHA-256 of the source that the parameters contain, in hex; ``None`` where they contain none."""
    parameters_sha256: str | None = None
    """SHA-256 of the parameters as the client sent them, in hex."""
    request_sha256: bytes | None = None
    """Of what the request means, for its idempotency key to stand for; ``None`` where there is no key."""
