"""Look-ups of host names for webhooks, in threads of their own: a name server that is slow holds up nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError

from .addresses import Address, parse_address

#: Looks up a host name; the Deferred fails with DNSLookupError if there is no such host or no answer.
Resolve: TypeAlias = "Callable[[str], Deferred[Sequence[Address]]]"

_MAX_LOOKUPS: Final = 64


def system_addresses(host: str) -> Sequence[Address]:
    """
    Return the addresses of a host by the system's resolver, which includes ``/etc/hosts``. Blocks.

    :raises DNSLookupError: there is no such host, or no answer.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DNSLookupError(str(error)) from None
    addresses = []
    for family, _, _, _, where in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            address = parse_address(str(where[0]))
            if address not in addresses:
                addresses.append(address)
    return addresses


class ThreadedResolver:
    """
    Resolves names in daemon threads: one for each look-up that runs, at most 64.

    A look-up that was cancelled goes on in its thread until the system gives up, and joins later ones of its name. The
    threads do not delay the end of the process, as those of a thread pool would.

    :param look_up: returns the addresses of a host; blocks.
    """

    def __init__(self, reactor: Any, look_up: Callable[[str], Sequence[Address]] = system_addresses) -> None:
        self._reactor = reactor
        self._look_up = look_up
        self._waiting: dict[str, list[Deferred[Sequence[Address]]]] = {}

    def __call__(self, host: str) -> Deferred[Sequence[Address]]:
        """Look up a host name in ASCII."""
        waiting = self._waiting.get(host)
        if waiting is None:
            if len(self._waiting) >= _MAX_LOOKUPS:
                return fail(DNSLookupError("too many look-ups of host names are running"))
            waiting = self._waiting[host] = []
            Thread(target=self._run, args=(host,), name="webhook host look-up", daemon=True).start()
        answer: Deferred[Sequence[Address]] = Deferred(waiting.remove)
        waiting.append(answer)
        return answer

    def _run(self, host: str) -> None:
        outcome: Sequence[Address] | Exception
        try:
            outcome = self._look_up(host)
        except Exception as error:
            outcome = error
        self._reactor.callFromThread(self._finish, host, outcome)

    def _finish(self, host: str, outcome: Sequence[Address] | Exception) -> None:
        for answer in self._waiting.pop(host):
            if isinstance(outcome, Exception):
                answer.errback(outcome)
            else:
                answer.callback(outcome)
