"""Serves the tools: over stdio to the program that started us, or over HTTP to any, each under its own key."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import Context, MCPServer

from engine.client import AsyncClient, ClientError, RequestRefusedError, ServiceUnreachableError
from engine.config.listening import listen
from engine.mcp.tools import AgentTools
from engine.model.errors import EngineError
from engine.model.versions import engine_version

PATIENCE_S = 10.0
"""An agent rather reads that the service is away than waits for it."""
BODY_BYTES = 64 << 20
OPENED = "the service asks for no keys any more: set its API_KEYS_FILE, or have this listen on 127.0.0.1"
GRACEFUL_S = 5
LOCAL = ("127.0.0.1", "::1", "localhost")
"""Addresses at which only this machine's users can ask."""
INSTRUCTIONS = (
    "Runs Python scripts that nobody has read, each in a single-use sandbox under a policy. Use run_python to compute, "
    "to analyse files and to draw pictures; list_libraries says what scripts may import. A script that failed says "
    "why: correct it and run it again. What a policy denies stays denied: list_policies says what there is instead."
)

Message = MutableMapping[str, Any]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class AgentDoorError(EngineError):
    """The agents' door cannot be opened; the message says why and what to do."""


class AgentDoor:
    """The tools, and the way from a call to the service."""

    def __init__(self, url: str, key: str | None) -> None:
        """
        Args:
            url: of the service.
            key: under which calls are made that come without HTTP; over HTTP each has the key of its own request.
        """
        self._url, self._key = url, key
        self._tls = httpx.create_ssl_context()  # the dear part of a client; all share it
        self.server = MCPServer(
            "unityai-python-worker", instructions=INSTRUCTIONS, version=engine_version(), log_level="WARNING"
        )
        for tool in AgentTools(self._client_of).all:
            self.server.add_tool(tool)

    async def run_stdio(self) -> None:
        """Serve the program at the other end of stdin and stdout until it closes them."""
        await self.server.run_stdio_async()

    async def run_http(self, host: str, port: int, ready: Callable[[str], None]) -> None:
        """Serve ``/mcp`` over HTTP until SIGTERM or SIGINT.

        Args:
            host: address to listen on.
            port: likewise.
            ready: is told the URL once it can be connected to.

        Raises:
            ListenError: the address is taken, or not ours.
            AgentDoorError: the service does not answer, or others could run scripts without a key.
        """
        await self._refuse_open(host)
        served = self.server.streamable_http_app(host=host, max_request_body_size=BODY_BYTES)
        app = KeyGuard(served, self.asked, needs_key=host not in LOCAL)
        listener = listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}/mcp")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACEFUL_S
        )
        await uvicorn.Server(config).serve(sockets=[listener])

    async def asked(self, key: str | None) -> dict[str, Any]:
        """Who asks with this key, as the service knows it.

        Raises:
            RequestRefusedError: 401 for a missing or invalid key.
            ServiceUnreachableError: the service does not answer.
        """
        async with self._client(key) as client:
            found: dict[str, Any] = await client.ask("GET", "/session")
            return found

    async def _refuse_open(self, host: str) -> None:
        """Without keys anybody could run scripts, so then only this machine may ask."""
        try:
            await self.asked(None)
        except RequestRefusedError as refusal:
            if refusal.status == 401:
                return
            raise AgentDoorError(f"{self._url} refuses: {refusal.detail}") from refusal
        except ClientError as error:
            raise AgentDoorError(str(error)) from error
        if host not in LOCAL:
            raise AgentDoorError(
                f"--host {host}: the service at {self._url} asks for no keys, so that anybody could run scripts here: "
                "set its API_KEYS_FILE, or listen on 127.0.0.1"
            )

    @contextlib.asynccontextmanager
    async def _client_of(self, ctx: Context[Any, Any]) -> AsyncIterator[AsyncClient]:
        async with self._client(self._key if ctx.headers is None else key_of(ctx.headers)) as client:
            yield client

    def _client(self, key: str | None) -> AsyncClient:
        return AsyncClient(self._url, key, patience_s=PATIENCE_S, transport=httpx.AsyncHTTPTransport(verify=self._tls))


class KeyGuard:
    """Lets a request pass whose key the service knows; a session of the protocol belongs to the key that began it."""

    def __init__(self, app: Asgi, asked: Callable[[str | None], Awaitable[dict[str, Any]]], *, needs_key: bool) -> None:
        """
        Args:
            app: what it guards.
            asked: says who asks with a key.
            needs_key: refuse everybody where the service has come to ask for no keys: others than this machine's users
                could ask.
        """
        self._app, self._asked, self._needs_key = app, asked, needs_key

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "http":
            key = key_of({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
            try:
                who = await self._asked(key)
            except RequestRefusedError as refusal:
                await _refuse(send, refusal.status, refusal.detail)
                return
            except ServiceUnreachableError as error:
                await _refuse(send, 503, str(error))
                return
            except ClientError as error:  # a key that no header can have
                await _refuse(send, 401, str(error))
                return
            if self._needs_key and who["key_id"] is None:
                await _refuse(send, 503, OPENED)
                return
            owner = f"{who['key_id']}:{hashlib.sha256((key or '').encode()).hexdigest()}"
            scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=owner, scopes=[]))
        await self._app(scope, receive, send)


def key_of(headers: Any) -> str | None:
    """The API key that a request's headers name, as the service takes it; ``None`` without one."""
    scheme, _, rest = str(headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return headers.get("x-api-key") or None


async def _refuse(send: Callable[[Message], Awaitable[None]], status: int, detail: str) -> None:
    body = json.dumps({"status": status, "detail": detail}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="unityai"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
