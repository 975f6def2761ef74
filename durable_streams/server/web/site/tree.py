"""Streams and pages as one resource, for a twisted.web Site."""

from __future__ import annotations

from typing import IO, Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from ...clocks import clock_of
from ...errors import StreamsError
from ...run_queue import RunQueue
from ..framing import Framer
from ..incoming import IncomingBody
from ..operations import Operations
from ..wire import below, is_stream
from .app import Pages
from .delivery import Delivery
from .resource import StreamsResource, admit, fields_of, version_of

#: How much of a body is read from twisted.web's file at a time, in bytes.
_PIECE: Final = 65_536


@implementer(IResource)
class Tree:
    """
    The root resource of a server: streams below the base path, pages at all other paths.

    A stream's name is made of the path as it was sent, which routing by decoded segments would not preserve.
    """

    isLeaf = True

    def __init__(
        self,
        streams: StreamsResource,
        pages: Pages,
        operations: Operations,
        base_path: str,
        clock: IReactorTime,
        stall_timeout: float = 60,
    ) -> None:
        self._operations = operations
        # twisted.web adds Date itself.
        self._framer = Framer(operations.telemetry)
        self._streams = streams
        self._pages = pages
        self._clock = clock_of(clock)
        self._stall_timeout = stall_timeout
        self._base = below(base_path)
        self._policy = operations.admission_policy(self._base)

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Return the resource itself: a leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse a child.

        :raises NotImplementedError: always; pages are added with :meth:`.Pages.add`.
        """
        raise NotImplementedError("This resource takes no children: it serves all paths below it.")

    def render(self, request: Request) -> int:
        if is_stream(request.path, self._base):
            mounted = self._base.count(b"/") - 1
            segments = request.postpath or []
            request.prepath, request.postpath = segments[:mounted], segments[mounted:]
            return self._streams.render(request)
        operations = self._operations
        sent = sum(1 for _ in request.requestHeaders.getAllRawHeaders())
        caller = operations.proxies.admit(request)
        admission = self._policy.admission(caller)
        fields = fields_of(request)
        forwarded = sum(1 for _ in request.requestHeaders.getAllRawHeaders()) < sent
        page = admission.page_request(request.method, request.uri, fields, b"", caller, version_of(request), forwarded)
        delivery = Delivery(request, page, self._framer, self._clock, self._stall_timeout)
        try:
            page.caller = admission.identify(caller, admit(admission, request, fields))
            if self._pages.streams_body(request.method, request.uri):
                page.incoming = _StoredBody(request.content, operations.streams.turns).body
            elif request.content is not None:
                page.body = request.content.read(admission.limits.body_bytes + 1)
                admission.check_body_size(len(page.body))
        except StreamsError as error:
            delivery.answer(operations.answers.error(None, error, request.getHeader(b"origin")))
            return NOT_DONE_YET
        delivery.wait_for(self._pages.perform(page))
        return NOT_DONE_YET


class _StoredBody:
    """
    A body that twisted.web has received, and keeps in a file if it is large.

    :param file: the file.
    :ivar body: produces it in slices of time.
    """

    def __init__(self, file: IO[bytes] | None, turns: RunQueue) -> None:
        self._file = file
        self._turns = turns
        self._reading = False
        self._scheduled = False
        self.body = IncomingBody(self)

    def pause_body(self) -> None:
        self._reading = False

    def resume_body(self) -> None:
        self._reading = True
        if not self._scheduled:
            self._scheduled = True
            self._turns.add(self._read)

    def _read(self) -> None:
        self._scheduled = False
        if not self._reading:
            return
        piece = b"" if self._file is None else self._file.read(_PIECE)
        if piece:
            self.body.received(piece)
        else:
            self.body.ended()
