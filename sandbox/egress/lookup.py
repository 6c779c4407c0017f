"""Looks a host's name up, once, and checks every address that it leads to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final

from sandbox.egress.address import Address, IPNetwork, why_refused
from sandbox.egress.decisions import Decision, Refused
from sandbox.egress.hosts import EgressHost, is_internal

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Name → its addresses as text. Raises ``OSError`` when it has none."""

_THREADS: Final = 32


class SystemResolver:
    """Asks the system's resolver in threads of its own, so that a silent name server holds up no other work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="egress-lookup")

    async def __call__(self, name: str) -> list[str]:
        """The addresses of a name.

        Raises:
            OSError: it has none, or no name server answers.
        """
        # a final dot keeps the host's search domains out: else example.com may be read as example.com.corp.example
        asked = name if is_internal(name) else name + "."
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._ask, asked.encode("ascii"))
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    @staticmethod
    def _ask(name: bytes) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
        return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)  # type: ignore[return-value]  # of any family

    def close(self) -> None:
        """Ask nothing more. Threads that still wait for a name server end when it answers or times out."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Lookup:
    """Looks names up for one run."""

    def __init__(
        self, resolve: Resolve, exceptions: tuple[IPNetwork, ...], *, deny_private: bool, at_once: int = 4
    ) -> None:
        """
        Args:
            resolve: asks for the addresses of a name.
            exceptions: private networks that the operator opens.
            deny_private: whether the policy keeps private networks shut.
            at_once: questions that may be open at a time, the given-up ones included.
        """
        self._resolve = resolve
        self._exceptions = exceptions
        self._deny_private = deny_private
        self._places = asyncio.Semaphore(at_once)
        self._asking: set[asyncio.Future[Sequence[str]]] = set()

    async def addresses(self, host: EgressHost) -> tuple[Address, ...]:
        """The addresses of a host, all of them allowed.

        Invariant: one address that is not public refuses the whole name. Otherwise the answer of a hostile name server
        could hide it behind a public one, to be dialled when that fails.


        Raises:
            Refused: ``private_address`` when any of them is not, ``dns_failed`` when there is none.
        """
        if host.address is not None:
            return (self._checked(host, str(host.address)),)
        if self._deny_private and not self._exceptions and is_internal(host.name):
            raise Refused(Decision.PRIVATE_ADDRESS, f"{host.name} is a name of private networks")
        try:
            found = await self._ask(host.name)
        except (OSError, UnicodeError) as error:
            raise Refused(Decision.DNS_FAILED, f"{host.name} cannot be looked up") from error
        if not found:
            raise Refused(Decision.DNS_FAILED, f"{host.name} has no address")
        return tuple(self._checked(host, text) for text in found)

    def close(self) -> None:
        """Give up the questions that are open."""
        for asking in self._asking:
            asking.cancel()

    async def _ask(self, name: str) -> Sequence[str]:
        await self._places.acquire()
        asking = asyncio.ensure_future(self._resolve(name))
        self._asking.add(asking)
        asking.add_done_callback(self._note_answer)
        return await asyncio.shield(asking)

    def _note_answer(self, asking: asyncio.Future[Sequence[str]]) -> None:
        self._asking.discard(asking)
        self._places.release()
        if not asking.cancelled():
            asking.exception()  # mark it as seen: the connection that asked may be gone

    def _checked(self, host: EgressHost, text: str) -> Address:
        try:
            address = ip_address(text) if "%" not in text else None
        except ValueError:
            address = None
        if address is None:
            raise Refused(Decision.PRIVATE_ADDRESS, f"{host.name} has an address that cannot be read")
        if fault := why_refused(address, self._exceptions, deny_private=self._deny_private):
            raise Refused(Decision.PRIVATE_ADDRESS, f"{host.name} leads to an address that is not public: {fault}")
        return address
