"""Pages as a resource for a twisted.web Site."""

from __future__ import annotations

from typing import IO, Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import NOT_DONE_YET, Request

from ...clocks import clock_of
from ...errors import StreamsError
from ...run_queue import RunQueue
from ..framing import Framer
from ..incoming import IncomingBody
from ..operations import Operations
from .app import Pages
from .delivery import Delivery
from .leaf import Leaf
from .resource import admit, fields_of, version_of

#: How much of a body is read from twisted.web's file at a time, in bytes.
_PIECE: Final = 65_536


class PagesResource(Leaf):
    """
    Pages at any path of a Site. They are routed by the rest of the path.

    :param base: the path prefix of streams, for the rules of requests; empty if there are none.
    :param stall_timeout: after how many seconds a client that reads nothing is disconnected.
    """

    def __init__(
        self, pages: Pages, operations: Operations, base: bytes, clock: IReactorTime, stall_timeout: float = 60
    ) -> None:
        self._operations = operations
        # twisted.web adds Date itself.
        self.framer = Framer(operations.telemetry)
        self._pages = pages
        self._clock = clock_of(clock)
        self._stall_timeout = stall_timeout
        self._policy = operations.admission_policy(base)

    def render(self, request: Request) -> int:
        # The path as it came, percent-encoded: twisted.web's own segments are decoded.
        path, mark, query = request.uri.partition(b"?")
        segments = path.split(b"/")
        depth = len(segments) - len(request.postpath or ())
        mount, rest = b"/".join(segments[:depth]), b"/".join(segments[depth:])
        return self.render_page(request, mount, b"/" + rest + mark + query)

    def render_page(self, request: Request, mount: bytes, target: bytes) -> int:
        """
        Answer a request for a page.

        :param mount: the path above the pages, without a slash at its end.
        :param target: the rest of the path, which begins with a slash, and the query.
        """
        operations = self._operations
        sent = sum(1 for _ in request.requestHeaders.getAllRawHeaders())
        caller = operations.proxies.admit(request)
        admission = self._policy.admission(caller)
        fields = fields_of(request)
        forwarded = sum(1 for _ in request.requestHeaders.getAllRawHeaders()) < sent
        page = admission.page_request(request.method, target, fields, b"", caller, version_of(request), forwarded)
        page.mount = mount
        delivery = Delivery(request, page, self.framer, self._clock, self._stall_timeout)
        try:
            page.caller = admission.identify(caller, admit(admission, request, fields))
            if self._pages.streams_body(request.method, target):
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
