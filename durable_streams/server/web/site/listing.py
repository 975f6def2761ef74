"""The list of all streams, for operators."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import msgspec
from klein import Klein
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from ...errors import InvalidRequest, StreamsError
from ...interfaces import settle
from ...model import StreamStatus
from ...protocol.lifetimes import render_timestamp
from ...streams import Streams
from ..answers import Answers
from .app import say_problem

#: How many streams are described in one turn of the reactor: about a millisecond.
_PAGE: Final = 128

_LIMIT: Final = re.compile(rb"[1-9][0-9]{0,8}")

_log = Logger()

_HEADERS: Final = (
    (b"Content-Type", b"application/json"),
    (b"Cache-Control", b"no-store"),
)


class Listed(Struct):
    """
    What is said of a stream.

    :ivar message_count: always null: messages are not counted.
    :ivar total_bytes: all that a reader gets from the start, as it is stored: of JSON, each message and a comma.
    """

    name: str
    closed: bool
    message_count: None
    total_bytes: int
    content_type: str
    created_at: str
    updated_at: str
    ttl_seconds: int | None
    expires_at: str | None


def add_list(app: Klein, base_path: str, streams: Streams, answers: Answers) -> None:
    """
    Have the list served.

    :param base_path: the path above it; the list is at ``/streams`` below.
    """

    @app.route(f"{base_path}/streams", methods=["GET", "HEAD"])
    async def listed(request: IRequest) -> Any:
        assert isinstance(request, Request)
        try:
            listing = _Listing(request, streams, *_read_query(request))
            await listing.begin()
        except StreamsError as error:
            return say_problem(request, answers, error)
        for name, value in _HEADERS:
            request.setHeader(name, value)
        if request.method == b"HEAD":
            return b""
        await listing.send()
        return NOT_DONE_YET


def _read_query(request: Request) -> tuple[str, int]:
    """
    Read where the list begins, and how many streams it has at the most.

    :raises InvalidRequest: a parameter can't be understood.
    """
    arguments: dict[bytes, list[bytes]] = request.args or {}
    for name in (b"after", b"limit"):
        if len(arguments.get(name, ())) > 1:
            raise InvalidRequest(f"The parameter {name.decode()} may be there once.")
    try:
        after = arguments.get(b"after", [b""])[0].decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The parameter after must be a stream's name: UTF-8, percent-encoded.") from None
    limit = arguments.get(b"limit", [b""])[0]
    if limit and not _LIMIT.fullmatch(limit):
        raise InvalidRequest("The parameter limit must be a number from 1 to 999999999.")
    return after, int(limit) if limit else sys.maxsize


@implementer(IPushProducer)
class _Listing:
    """
    A JSON array of streams, written to a request a page at a time: neither its size nor its reader holds the reactor.

    :param after: the name after which it begins.
    :param limit: how many streams it has at the most.
    """

    def __init__(self, request: Request, streams: Streams, after: str, limit: int) -> None:
        self._request = request
        self._streams = streams
        self._after = after
        self._left = limit
        self._page: list[StreamStatus] = []
        self._resumed: Deferred[None] | None = None
        self._paused = False

    async def begin(self) -> None:
        """
        Read the first page.

        :raises StreamsError: the storage can't say.
        """
        self._page = await settle(self._streams.statuses(self._after, min(self._left, _PAGE)))

    async def send(self) -> None:
        """Write everything, as fast as the reader takes it. If the storage fails amid it, break the answer off."""
        request = self._request
        request.registerProducer(self, True)
        request.write(b"[")
        separator = b""
        try:
            while self._page:
                # An array without its brackets.
                request.write(separator + msgspec.json.encode([_listed(status) for status in self._page])[1:-1])
                separator = b","
                self._left -= len(self._page)
                if len(self._page) < _PAGE or not self._left:
                    break
                self._after = self._page[-1].facts.name
                await self._streams.turns.turn()
                if self._paused:
                    self._resumed = Deferred()
                    await self._resumed
                await self.begin()
        except CancelledError:
            raise
        except Exception as error:
            if isinstance(error, StreamsError):
                _log.warn("Sending the list of streams failed: {reason}", reason=error)
            else:
                _log.failure("Sending the list of streams failed.")
            request.loseConnection()
            # Not finished: the end would look like that of a complete list. The loss of the connection cancels this.
            await Deferred()
        request.write(b"]")
        request.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The end of the request, which cancels :meth:`send`, says the same."""


def _listed(status: StreamStatus) -> Listed:
    lifetime = status.lifetime
    return Listed(
        status.facts.name,
        status.closed,
        None,
        status.tail,
        status.facts.content_type,
        render_timestamp(status.created_at),
        render_timestamp(status.updated_at),
        lifetime.ttl,
        None if lifetime.expires_at is None else render_timestamp(lifetime.expires_at),
    )
