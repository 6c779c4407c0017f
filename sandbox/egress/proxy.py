"""The egress proxy of one run: accepts inside the run's network namespace, decides, dials from outside, relays.

The order of checks for each connection: how many there are, its head, the policy's hosts, the look-up, every
address, and after CONNECT the TLS greeting. What is dialled is the very address that was checked; no name is
asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Coroutine
from ipaddress import IPv6Address
from typing import Any, Final, TypeVar

from sandbox.egress import greeting, heads
from sandbox.egress.address import Address, IPNetwork
from sandbox.egress.decisions import Decision, Ledger, Refused, answer
from sandbox.egress.hosts import AllowList
from sandbox.egress.lookup import Lookup, Resolve
from sandbox.egress.metered_socket import ByteBudget, MeteredSocket, relay, relay_chunks
from sandbox.policy.policy import Network
from sandbox.result import EgressRow

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_MAX_INTERIM: Final = 8
"""Answers below 200 that may come before the real one."""
_FLOOD_PAUSE_S: Final = 0.001
_LINGER_S: Final = 0.5
_ONE_ADDRESS_S: Final = 5.0
"""Longest wait for one address while there are others to try."""

_T = TypeVar("_T")


class _RunLeftError(Exception):
    """The run closed or broke its own connection. That is no fault, and nobody is left to answer."""


class Proxy:
    """Serves the connections of one run until it is closed."""

    def __init__(self, network: Network, resolve: Resolve, *, exceptions: tuple[IPNetwork, ...] = ()) -> None:
        """
        Args:
            network: hosts and caps, of the policy.
            resolve: asks for the addresses of a name, see ``sandbox.egress.lookup``.
            exceptions: private networks that the operator opens.
        """
        self.network = network
        self.allowed = AllowList(network.allow)
        self.lookup = Lookup(resolve, exceptions, deny_private=network.deny_private)
        self.into = ByteBudget(network.in_mib << 20, "in_mib")
        self.out = ByteBudget(network.out_mib << 20, "out_mib")
        self.ledger = Ledger()
        self._served = 0
        self._open: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def serve(self, listener: socket.socket) -> None:
        """Begin to accept on ``listener``, which listens, does not block, and stays its owner's."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def decisions(self) -> tuple[EgressRow, ...]:
        """The outcomes of the connections that have ended."""
        return self.ledger.rows()

    async def close(self) -> None:
        """End every connection, at once."""
        ending = [*self._open, *([self._accepting] if self._accepting else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self.lookup.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptor left, or it broke before it was accepted
                await asyncio.sleep(0.01)
                continue
            sock.setblocking(False)
            self._served += 1
            refused = self._too_many()
            if refused is not None and len(self._open) >= 2 * self.network.connections:
                self.ledger.add("", 0, refused.decision)
                sock.close()
            else:
                self._begin(ProxiedConnection(self, sock), refused)
            # accepting goes on without a turn of the loop for as long as somebody waits: a flood would stop the worker
            await asyncio.sleep(_FLOOD_PAUSE_S if refused else 0)

    def _begin(self, connection: ProxiedConnection, refused: Refused | None) -> None:
        task = asyncio.get_running_loop().create_task(connection.serve(refused))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: connection.close())  # also of one that was ended before its first step

    def _too_many(self) -> Refused | None:
        network = self.network
        if self._served > network.connections_total:
            return Refused(Decision.TOO_MANY_CONNECTIONS, "the run has had network.connections_total connections")
        if len(self._open) >= network.connections:
            return Refused(Decision.TOO_MANY_CONNECTIONS, "the run has network.connections connections open")
        return None


class ProxiedConnection:
    """One connection of a run, and the one to the host that is made for it."""

    def __init__(self, proxy: Proxy, sock: socket.socket) -> None:
        self._proxy = proxy
        self._caps = proxy.network
        self._run = MeteredSocket(sock, _RunLeftError)
        self._upstream: MeteredSocket | None = None
        self._host, self._port = "", 0
        self._decision = Decision.RUN_ENDED
        self._answered = False
        """Whether the run has been sent anything; then a refusal can no longer be an answer."""

    async def serve(self, refused: Refused | None) -> None:
        """Serve it to its end and record what became of it.

        Args:
            refused: answer with this refusal and nothing else.
        """
        try:
            await self._exchange_in_time(refused)
        except _RunLeftError:
            pass
        except Refused as refusal:
            self._decision = refusal.decision
            await self._answer_refusal(refusal)
        finally:
            self._record()

    def close(self) -> None:
        """Close both sides."""
        self._run.close()
        if self._upstream is not None:
            self._upstream.close()

    async def _exchange_in_time(self, refused: Refused | None) -> None:
        if refused is not None:
            raise refused
        try:
            async with asyncio.timeout(self._caps.total_s):
                await self._exchange()
        except TimeoutError:
            raise Refused(Decision.TIMEOUT, "the connection lasted longer than network.total_s") from None

    async def _exchange(self) -> None:
        """The steps of one connection, in their order."""
        request = await self._read_request()
        if request is None:
            return
        self._check_host(request)
        self._upstream = await self._in_time(self._connect(request), "a connection")
        self._decision = Decision.ALLOWED
        if request.method == "CONNECT":
            await self._tunnel(request, self._upstream)
        else:
            await self._forward(request, self._upstream)
        self._run.finish()

    async def _read_request(self) -> heads.RequestHead | None:
        """The request, ``None`` when the run closed without one."""
        limit_bytes = self._caps.head_kib << 10
        head = await self._in_time(self._run.read_head(limit_bytes), "the request's head")
        if not head:
            return None
        if len(head) > limit_bytes:
            raise Refused(Decision.HEAD_LIMIT, "the request's head is longer than network.head_kib")
        request = heads.parse_request(head)
        self._host, self._port = request.host.name, request.port
        return request

    def _check_host(self, request: heads.RequestHead) -> None:
        if not self._proxy.allowed.grants(request.host, request.port):
            raise Refused(
                Decision.HOST_NOT_ALLOWED,
                f"the policy grants no connection to {request.host.with_port(request.port)} (network.allow)",
            )

    async def _connect(self, request: heads.RequestHead) -> MeteredSocket:
        """Look the host up once and dial what was found, one address after the other.

        Invariant: this is the connection's only look-up, and only addresses that it has checked are dialled. A name
        server that gives another answer a moment later (DNS rebinding) is not asked again. Neither a redirect nor an
        Alt-Svc field leads past it: each is a new connection of the run, with all checks.
        """
        addresses = await self._proxy.lookup.addresses(request.host)
        for count_left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            longest_s = _ONE_ADDRESS_S if count_left > 1 else None
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(longest_s):
                    sock = await _dial(address, request.port)
                return MeteredSocket(sock, _upstream_broke, into=self._proxy.into, out=self._proxy.out)
        raise Refused(Decision.CONNECT_FAILED, f"{request.host.with_port(request.port)} takes no connection")

    async def _tunnel(self, request: heads.RequestHead, upstream: MeteredSocket) -> None:
        """Answer CONNECT, check that the TLS greeting asks for the same host, then relay in both directions."""
        self._answered = True
        await self._run.send(_ESTABLISHED)
        if not await self._read_greeting():
            return
        try:
            greeting.check(self._run.ahead, request.host)
        except Refused:
            await self._run.send(greeting.WRONG_NAME)
            raise
        await _both(_relay_all(self._run, upstream), _relay_all(upstream, self._run))

    async def _read_greeting(self) -> bool:
        """Read a whole TLS greeting ahead. Returns false when the run closed before it was whole."""
        limit_bytes = self._caps.head_kib << 10
        while not greeting.is_whole(self._run.ahead):
            if len(self._run.ahead) > limit_bytes:
                raise Refused(Decision.HEAD_LIMIT, "the TLS greeting is longer than network.head_kib")
            if not await self._in_time(self._run.read_ahead(), "the TLS greeting"):
                return False
        return True

    async def _forward(self, request: heads.RequestHead, upstream: MeteredSocket) -> None:
        """Relay the request, and the answer back. The host may answer before it has the whole body."""
        await upstream.send(request.encode())
        if request.expects_continue:
            await self._run.send(_CONTINUE)
        body = asyncio.create_task(self._send_body(request, upstream))
        try:
            response = await self._or_failed(self._read_response(request, upstream), body)
            self._answered = True
            await self._run.send(response.encode())
            if response.has_body:
                await self._or_failed(_relay_body(upstream, self._run, response.body), body)
        except EOFError:
            raise Refused(Decision.BAD_RESPONSE, "the host's answer broke off") from None
        except ValueError as error:
            raise Refused(Decision.BAD_RESPONSE, f"the host's answer cannot be read: {error}") from None
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)

    async def _send_body(self, request: heads.RequestHead, upstream: MeteredSocket) -> None:
        try:
            if request.body is not None:
                await _relay_body(self._run, upstream, request.body)
        except EOFError:
            raise _RunLeftError from None
        except ValueError as error:
            raise Refused(Decision.BAD_REQUEST, f"the request's body cannot be read: {error}") from None

    async def _read_response(self, request: heads.RequestHead, upstream: MeteredSocket) -> heads.ResponseHead:
        limit_bytes = self._caps.head_kib << 10
        for _ in range(_MAX_INTERIM):
            head = await self._in_time(upstream.read_head(limit_bytes), "the host's answer")
            if len(head) > limit_bytes:
                raise Refused(Decision.BAD_RESPONSE, "the head of the host's answer is longer than network.head_kib")
            response = heads.parse_response(head, request.method)
            if response.status >= 200:
                return response
        raise Refused(Decision.BAD_RESPONSE, "the host keeps announcing an answer and gives none")

    async def _or_failed(self, work: Coroutine[Any, Any, _T], body: asyncio.Task[None]) -> _T:
        """The result of ``work``, unless sending the body fails first. A host that takes no more is no failure."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, body), return_when=asyncio.FIRST_COMPLETED)
            failure = body.exception() if body.done() and not task.done() else None
            if failure is not None and getattr(failure, "decision", None) is not Decision.BAD_RESPONSE:
                raise failure
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _in_time(self, work: Awaitable[_T], what: str) -> _T:
        try:
            async with asyncio.timeout(self._caps.first_byte_s):
                return await work
        except TimeoutError:
            raise Refused(Decision.TIMEOUT, f"{what} took longer than network.first_byte_s") from None

    async def _answer_refusal(self, refused: Refused) -> None:
        """Answer with the refusal. Where an answer has begun, reset the connection: nobody must take it for whole."""
        if self._answered:
            self._run.reset()
            return
        with contextlib.suppress(_RunLeftError, TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                await self._run.send(answer(refused))
                self._run.finish()
                # closed with bytes unread, the connection would be reset and the answer lost: tcp(7)
                buffer = memoryview(bytearray(1 << 16))
                while await self._run.receive_into(buffer):
                    pass

    def _record(self) -> None:
        """Put what became of the connection into the ledger."""
        moved = self._upstream
        if self._decision is Decision.RUN_ENDED and not self._host:
            return  # opened and closed again without a word
        self._proxy.ledger.add(
            self._host,
            self._port,
            self._decision,
            bytes_in=moved.received if moved else 0,
            bytes_out=moved.sent if moved else 0,
        )


async def _dial(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _relay_body(source: MeteredSocket, sink: MeteredSocket, body: heads.Framing) -> None:
    if body == "chunked":
        await relay_chunks(source, sink)
    else:
        await relay(source, sink, body)


async def _relay_all(source: MeteredSocket, sink: MeteredSocket) -> None:
    await relay(source, sink, None)
    sink.finish()


async def _both(*works: Awaitable[None]) -> None:
    """Run all of them. When one fails, end the others and raise its failure."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        for done in asyncio.as_completed(tasks):
            await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _upstream_broke() -> Exception:
    return Refused(Decision.BAD_RESPONSE, "the connection to the host broke")
