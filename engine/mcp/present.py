"""Shows a task to a model: a text, the pictures that it drew, and the same facts for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from engine.client import TaskInfo, UploadedFile

SHOWN_CHARACTERS = 30_000
"""Of each text that a model is shown: what is longer loses its middle."""
PICTURES = 6
PICTURE_BYTES = 3 << 20
"""So many pictures of at most so many bytes are shown with a task; ``get_artifact`` gives any other."""
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


@dataclass(frozen=True, kw_only=True)
class ArtifactEntry:
    """A file that a task wrote to ``artifacts/``."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """An uploaded file, which a script finds in ``inputs/`` when its call names the ``file_id``."""

    file_id: str
    name: str
    size_bytes: int
    expires_at: str


@dataclass(frozen=True, kw_only=True)
class FileList:
    """Uploaded files, the newest first."""

    files: list[FileEntry]


@dataclass(frozen=True, kw_only=True)
class DeniedCall:
    """A system call that the policy denied, and how often."""

    syscall: str
    count: int


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """How a task stands or ended. What is not known yet is null."""

    task_id: str
    status: str
    exit_reason: str | None
    message: str | None
    result: Any
    stdout: str
    stderr: str
    traceback: str | None
    policy: str
    denied: list[DeniedCall]
    artifacts: list[ArtifactEntry]


def show_task(task: TaskInfo, pictures: Sequence[ImageContent] = ()) -> CallToolResult:
    """A task as the answer of a tool; one that failed is marked as an error, for the model to read and correct."""
    content: list[ContentBlock] = [TextContent(type="text", text=_text(task)), *pictures]
    return CallToolResult(
        content=content,
        structured_content=asdict(facts_of(task)),
        is_error=task.is_final and task.status != "succeeded",
    )


def facts_of(task: TaskInfo) -> TaskFacts:
    """A task without what no model needs."""
    result = json.dumps(task.result, ensure_ascii=False)
    return TaskFacts(
        task_id=task.task_id,
        status=task.status,
        exit_reason=task.exit_reason,
        message=task.message,
        result=task.result if len(result) <= SHOWN_CHARACTERS else shorten(result),
        stdout=shorten(task.stdout),
        stderr=shorten(task.stderr),
        traceback=None if task.traceback is None else shorten(task.traceback),
        policy=task.policy,
        denied=[DeniedCall(syscall=one["syscall"], count=one["count"]) for one in task.answer["violations"] or ()],
        artifacts=[_artifact(one) for one in task.artifacts],
    )


def show_files(files: Sequence[UploadedFile]) -> CallToolResult:
    """Uploaded files, without what no model needs."""
    listed = FileList(files=[file_entry(one) for one in files])
    lines = [f"{one.file_id}  {one.size_bytes:,} bytes  {one.name}" for one in listed.files]
    content: list[ContentBlock] = [TextContent(type="text", text="\n".join(lines) or "no files")]
    return CallToolResult(content=content, structured_content=asdict(listed))


def show_file(file: UploadedFile) -> CallToolResult:
    """A file that was just uploaded."""
    one = file_entry(file)
    text = f"file_id {one.file_id}\n{one.name}, {one.size_bytes:,} bytes, kept until {one.expires_at}"
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=asdict(one))


def file_entry(file: UploadedFile) -> FileEntry:
    """An uploaded file as a model names it."""
    return FileEntry(file_id=file.file_id, name=file.name, size_bytes=file.size_bytes, expires_at=file.expires_at)


def shorten(text: str) -> str:
    """A text of at most about ``SHOWN_CHARACTERS``, with its beginning and its end."""
    left_out = len(text) - SHOWN_CHARACTERS
    if left_out <= 0:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[{left_out:,} characters left out]\n{text[-half:]}"


def picture_of(content: bytes) -> ImageContent | None:
    """The picture that these bytes are, by their own signature, whatever the file is called; ``None`` for others."""
    kind = next((kind for signature, kind in _SIGNATURES.items() if content.startswith(signature)), None)
    if kind is None and content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        return None
    return ImageContent(type="image", data=base64.b64encode(content).decode("ascii"), mime_type=kind)


def may_be_picture(artifact: Mapping[str, Any]) -> bool:
    """Whether an artifact is worth fetching for a look at it."""
    is_named_so = str(artifact["name"]).lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".webp"))
    return is_named_so and artifact["size_bytes"] <= PICTURE_BYTES


def _text(task: TaskInfo) -> str:
    facts = facts_of(task)
    head = f"{facts.status}: {facts.exit_reason}: {facts.message}" if task.is_final else _unfinished(task)
    parts = [head]
    printed = {"stdout": facts.stdout, "stderr": facts.stderr, "traceback": facts.traceback}
    parts += [f"--- {name}\n{text}" for name, text in printed.items() if text]
    if task.status == "succeeded":
        parts.append(f"--- result\n{shorten(json.dumps(task.result, ensure_ascii=False))}")
    parts += [f"artifact {one.name}: {one.size_bytes:,} bytes" for one in facts.artifacts]
    parts += [f"denied by the policy {task.policy}: {one.syscall}, {one.count} times" for one in facts.denied]
    return "\n".join([*parts, f"task {task.task_id}"])


def _unfinished(task: TaskInfo) -> str:
    return f"{task.status}: it goes on. Call get_task with its id to wait for its end, or cancel_task to stop it"


def _artifact(one: Mapping[str, Any]) -> ArtifactEntry:
    return ArtifactEntry(name=one["name"], size_bytes=one["size_bytes"], sha256=one["sha256"])
