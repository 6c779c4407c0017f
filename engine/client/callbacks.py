"""Verifies a callback: that this service signed it, and lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import CallbackError
from .tasks import TaskInfo, read_task


@dataclass(frozen=True, kw_only=True)
class CallbackMessage:
    """What a callback tells."""

    message_id: str
    """The same when the callback comes twice: remember those that you handled."""
    type: str
    """``task.succeeded``, ``task.failed`` or ``task.cancelled``."""
    timestamp: str
    task: TaskInfo


def read_callback(secret: str, body: bytes | str, headers: Mapping[str, str]) -> CallbackMessage:
    """The message of a callback, verified. Needs the package ``standardwebhooks``.

    Args:
        secret: the service's CALLBACK_SECRET.
        body: of the request, as it came.
        headers: of the request, in small letters or as they came.

    Raises:
        CallbackError: the signature is wrong, or older than five minutes.
        ImportError: ``standardwebhooks`` is not installed.
    """
    from standardwebhooks import Webhook, WebhookVerificationError  # noqa: PLC0415  only who gets callbacks needs it

    given = {name.lower(): value for name, value in headers.items()}
    try:
        said = Webhook(secret).verify(body, given)
        return CallbackMessage(
            message_id=given["webhook-id"],
            type=said["type"],
            timestamp=said["timestamp"],
            task=read_task(said["data"]),
        )
    except WebhookVerificationError as error:
        raise CallbackError(f"this is no callback of the service: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CallbackError(f"this is signed, and not what the service sends: {error!r}") from None
