"""The tools that an agent has: each is one or two calls of the service, made under the caller's key."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import mimetypes
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import BlobResourceContents, CallToolResult, ContentBlock, EmbeddedResource, ImageContent, TextContent
from pydantic import Field

from engine.client import AsyncClient, ClientError, RequestRefusedError, TaskInfo, TaskNotEndedError, script_request
from engine.mcp.present import (
    PICTURES,
    FileEntry,
    FileList,
    TaskFacts,
    may_be_picture,
    picture_of,
    shorten,
    show_file,
    show_files,
    show_task,
)

WAIT_S = 50.0
"""Shorter than the 60 s after which many programs of agents give a call up."""
LONGEST_WAIT_S = 300.0
ARTIFACT_BYTES = 8 << 20
"""An artifact beyond it is not handed to a model."""
CANCEL_S = 10.0
_KINDS = ("text", "base64", "file_id")

AgentContext = Context[Any, Any]
OpenClient = Callable[[AgentContext], contextlib.AbstractAsyncContextManager[AsyncClient]]
"""The client that asks the service under the key of a call."""
TaskAnswer = Annotated[CallToolResult, TaskFacts]

TaskId = Annotated[str, Field(description="The task's id, as run_python answered it.")]
Wait = Annotated[
    float,
    Field(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the task's end. It goes on when they are over."),
]


class AgentTools:
    """The tools. Each method is one; its docstring is what a model reads of it."""

    def __init__(self, open_client: OpenClient) -> None:
        """
        Args:
            open_client: opens a client of the service under the key of a call.
        """
        self._open = open_client

    @property
    def all(self) -> tuple[Callable[..., Any], ...]:
        """Those that there are."""
        return (
            self.run_python, self.get_task, self.cancel_task, self.put_file, self.list_files, self.get_artifact,
            self.list_libraries, self.list_policies,
        )  # fmt: skip

    async def run_python(  # noqa: PLR0917  each is an argument of the tool
        self,
        ctx: AgentContext,
        script: Annotated[
            str,
            Field(description="Python source, or NAME.py of a script that the service has. `result` is its answer."),
        ],
        args: Annotated[Any, Field(description="Any JSON, which the script finds in its global `args`.")] = None,
        inputs: Annotated[
            dict[str, dict[str, str]] | None,
            Field(
                description="Name in inputs/ → the file: {'text': …}, {'base64': …}, or {'file_id': …} as put_file "
                "answered it."
            ),
        ] = None,
        policy: Annotated[
            str | None, Field(description="The policy to run under, as list_policies names it; default: custom_script.")
        ] = None,
        timeout_s: Annotated[float | None, Field(gt=0, description="Longest wall time of the script.")] = None,
        wait_s: Wait = WAIT_S,
    ) -> TaskAnswer:
        """Run a Python script in a single-use sandbox, and return what it printed, its result and its pictures.

        The script has no network, unless the policy names hosts. It reads files in inputs/, and keeps what it writes to
        artifacts/. Figures of matplotlib are kept by plt.show(). report_progress(0.4, "half way") reports progress.
        list_libraries says what it may import; nothing can be installed.
        """
        with _sentences():
            request = script_request(
                script, args, inputs=_checked(inputs), policy=policy, timeout_s=timeout_s, labels={"via": "mcp"}
            )
            async with self._open(ctx) as client:
                with anyio.CancelScope(shield=True):  # a call that is given up meanwhile cancels the task below
                    task = await client.submit(request)
                return await self._shown(client, await _follow(ctx, client, task, wait_s))

    async def get_task(self, ctx: AgentContext, task_id: TaskId, wait_s: Wait = 0.0) -> TaskAnswer:
        """Look at a task, or wait for its end: status, output, result, pictures."""
        with _sentences():
            async with self._open(ctx) as client:
                return await self._shown(client, await _wait(client, task_id, wait_s))

    async def cancel_task(self, ctx: AgentContext, task_id: TaskId) -> TaskAnswer:
        """Stop a task. One that has ended stays as it is."""
        with _sentences():
            async with self._open(ctx) as client:
                task = await client.cancel(task_id)
                return CallToolResult(
                    content=[TextContent(type="text", text=f"{task.status}: {task.message}\ntask {task.task_id}")],
                    structured_content=show_task(task).structured_content,
                )

    async def put_file(
        self,
        ctx: AgentContext,
        name: Annotated[str, Field(description="A name for people, such as table.csv.")],
        text: Annotated[str | None, Field(description="The content of a text file.")] = None,
        content_base64: Annotated[str | None, Field(description="The content of any other file, as base64.")] = None,
    ) -> Annotated[CallToolResult, FileEntry]:
        """Upload a file that several scripts are to read, and return its file_id for `inputs` of run_python."""
        with _sentences():
            content = _content(text, content_base64)
            async with self._open(ctx) as client:
                return show_file(await client.upload(content, name=name))

    async def list_files(self, ctx: AgentContext) -> Annotated[CallToolResult, FileList]:
        """List the uploaded files, the newest first."""
        with _sentences():
            async with self._open(ctx) as client:
                return show_files(await client.files())

    async def get_artifact(
        self,
        ctx: AgentContext,
        task_id: TaskId,
        name: Annotated[str, Field(description="Its name below artifacts/, as the task lists it.")],
    ) -> CallToolResult:
        """Get a file that a task wrote to artifacts/: a picture to look at, a text, or any other file as base64."""
        with _sentences():
            async with self._open(ctx) as client:
                task = await client.get(task_id)
                known = {str(one["name"]): one["size_bytes"] for one in task.artifacts}
                if name not in known:
                    there_are = ", ".join(known) or "none"
                    raise ToolError(f"the task has no artifact {name}; there are: {there_are}")
                if known[name] > ARTIFACT_BYTES:
                    raise ToolError(
                        f"{name} has {known[name]:,} bytes, and more than {ARTIFACT_BYTES:,} are not handed to a "
                        "model; have a script read a part of it"
                    )
                content = await client.artifact(task_id, name)
        return CallToolResult(content=[_shown_file(task_id, name, content)])

    async def list_libraries(
        self,
        ctx: AgentContext,
        library_set: Annotated[str, Field(description="Which set; scripts import the set `scripts`.")] = "scripts",
    ) -> CallToolResult:
        """List the libraries that a script may import beside the standard library: name, version, what it is for."""
        with _sentences():
            async with self._open(ctx) as client:
                sets = {one["name"]: one["libraries"] for one in (await client.ask("GET", "/libraries"))["sets"]}
        if library_set not in sets:
            raise ToolError(f"there is no set {library_set}; there are: {', '.join(sets)}")
        lines = (f"{one['name']} {one['version']}: {one['summary']}" for one in sets[library_set])
        return _as_text("\n".join(lines))

    async def list_policies(self, ctx: AgentContext) -> CallToolResult:
        """List the policies of scripts that the caller's key may use, and what each grants, as far as it may see it."""
        with _sentences():
            async with self._open(ctx) as client:
                session = await client.ask("GET", "/session")
                grants = await _grants(client)
        allowed = session["policies"]
        if grants is None:
            names = "every policy" if allowed is None else ", ".join(allowed)
            told = "What a policy grants is told to keys with the scope audit only."
            return _as_text(f"The key may use {names}. {told}")
        mine = [one for one in grants if one["task_type"] == "custom_script"]
        texts = [f"# {one['name']}\n{one['text']}" for one in mine if allowed is None or one["name"] in allowed]
        return _as_text("\n\n".join(texts) or "the key may use no policy of scripts")

    async def _shown(self, client: AsyncClient, task: TaskInfo) -> CallToolResult:
        return show_task(task, await _pictures(client, task) if task.is_final else ())


async def _follow(ctx: AgentContext, client: AsyncClient, task: TaskInfo, wait_s: float) -> TaskInfo:
    """The task as it ended, or as it stands after ``wait_s``; its progress is passed on. Given up, it is cancelled.

    Raises:
        ToolError: the service cannot be asked any more. The task goes on.
    """
    ended: TaskInfo | None = None
    try:
        with anyio.move_on_after(wait_s):
            async with contextlib.aclosing(_progress_to_end(ctx, client, task.task_id)) as found:
                async for one in found:
                    ended = one
        return ended or await client.get(task.task_id)
    except ClientError as error:
        raise ToolError(f"{error} (the task {task.task_id} goes on: ask for it, do not run it again)") from error
    except BaseException:  # cancelled, as a rule; also when the caller cannot be told of progress
        with anyio.move_on_after(CANCEL_S, shield=True), contextlib.suppress(ClientError):
            await client.cancel(task.task_id, wait_s=0)
        raise


async def _progress_to_end(ctx: AgentContext, client: AsyncClient, task_id: str) -> AsyncGenerator[TaskInfo, None]:
    """Pass on what a script reports, as far as it goes up, which the protocol asks for; the task at its end."""
    told = -1.0
    try:
        async for event in client.follow(task_id):
            fraction = event.data.get("fraction") if event.name == "progress" else None
            if fraction is not None and fraction > told:
                told = fraction
                await ctx.report_progress(fraction, 1.0, event.data.get("message"))
            if event.task is not None:
                yield event.task
    except RequestRefusedError as refusal:
        if refusal.status != 503:  # no place for another follower: its end is told without its progress
            raise
        yield await client.wait(task_id)


async def _wait(client: AsyncClient, task_id: str, wait_s: float) -> TaskInfo:
    if wait_s <= 0:
        return await client.get(task_id)
    try:
        return await client.wait(task_id, wait_s=wait_s)
    except TaskNotEndedError as error:
        return error.task


async def _pictures(client: AsyncClient, task: TaskInfo) -> list[ImageContent]:
    """The first pictures that a task drew; one that has been deleted is left out."""
    found: list[ImageContent] = []
    for one in [one for one in task.artifacts if may_be_picture(one)][:PICTURES]:
        with contextlib.suppress(RequestRefusedError):
            if (picture := picture_of(await client.artifact(task.task_id, one["name"]))) is not None:
                found.append(picture)
    return found


async def _grants(client: AsyncClient) -> list[dict[str, Any]] | None:
    """Every policy; ``None`` where the key may not look."""
    try:
        found: list[dict[str, Any]] = (await client.ask("GET", "/policies"))["policies"]
    except RequestRefusedError as refusal:
        if refusal.status != 403:
            raise
        return None
    return found


def _as_text(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


def _checked(inputs: dict[str, dict[str, str]] | None) -> dict[str, dict[str, str]] | None:
    for name, file in (inputs or {}).items():
        if len(file) != 1 or not set(file) <= set(_KINDS):
            raise ToolError(f"inputs.{name}: give exactly one of {', '.join(_KINDS)}, not {json.dumps(sorted(file))}")
    return inputs


def _content(text: str | None, content_base64: str | None) -> bytes:
    if (text is None) is (content_base64 is None):
        raise ToolError("give either `text` or `content_base64`")
    if text is not None:
        return text.encode()
    try:
        return base64.b64decode(content_base64 or "", validate=True)
    except binascii.Error as error:
        raise ToolError(f"content_base64 is no base64: {error}") from None


def _shown_file(task_id: str, name: str, content: bytes) -> ContentBlock:
    if (picture := picture_of(content)) is not None:
        return picture
    with contextlib.suppress(UnicodeDecodeError):
        return TextContent(type="text", text=shorten(content.decode()))
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    blob = base64.b64encode(content).decode("ascii")
    held = BlobResourceContents(uri=f"artifact:///{task_id}/{name}", mime_type=kind, blob=blob)
    return EmbeddedResource(type="resource", resource=held)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """What the service refuses, a model reads as a sentence."""
    try:
        yield
    except ClientError as error:
        raise ToolError(error.detail if isinstance(error, RequestRefusedError) else str(error)) from error
