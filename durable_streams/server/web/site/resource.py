"""The streams as an IResource, for any twisted.web Site."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import NOT_DONE_YET, Request

from ...clocks import clock_of
from ...errors import StreamsError
from ..admission import Admission
from ..callers import Caller, next_number
from ..framing import Framer
from ..operations import Operations
from ..requests import StreamRequest, stream_request
from .delivery import Delivery
from .leaf import Leaf


class StreamsResource(Leaf):
    """
    All streams, at any path of a Site; the rest of the path is the stream's name.

    :param stall_timeout: after how many seconds a client that reads nothing is disconnected.
    """

    refusal = "This resource takes no children: all paths below it are streams."

    def __init__(self, operations: Operations, clock: IReactorTime, stall_timeout: float = 60) -> None:
        self._operations = operations
        # twisted.web adds Date itself.
        self._framer = Framer(operations.telemetry)
        self._clock = clock_of(clock)
        self._stall_timeout = stall_timeout
        self._policy = operations.admission_policy(b"")

    def render(self, request: Request) -> int:
        proxies = self._operations.proxies
        caller = proxies.admit(request)
        stream_request = self._read(request, caller)
        delivery = Delivery(request, stream_request, self._framer, self._clock, self._stall_timeout)
        admission = self._policy.admission(caller)
        try:
            headers = admit(admission, request, fields_of(request))
            caller = admission.identify(caller, headers)
            admission.check_body_size(len(stream_request.body))
        except StreamsError as error:
            delivery.answer(self._operations.answers.error(stream_request, error, request.getHeader(b"origin")))
            return NOT_DONE_YET
        delivery.asked = stream_request = replace(stream_request, headers=headers, caller=caller)
        answer = self._operations.perform(stream_request)
        if isinstance(answer, Deferred):
            delivery.wait_for(answer)
        else:
            delivery.answer(answer)
        return NOT_DONE_YET

    def _read(self, request: Request, caller: Caller) -> StreamRequest:
        # A large body is in a file: reading one byte more than the limit shows whether it is over.
        max_read = self._operations.settings.limits.body_bytes + 1
        path, _, query = request.uri.partition(b"?")
        # What is left of the path as it came, percent-encoded: twisted.web's own segments are decoded.
        segments = path.split(b"/")
        name = b"/".join(segments[len(segments) - len(request.postpath) :]) if request.postpath else b""
        body = request.content.read(max_read) if request.content is not None else b""
        mount = path[: len(path) - len(name)]
        number, version = next_number(), version_of(request)
        return stream_request(request.method, mount, name, query, {}, body, caller, number, version)


def fields_of(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a twisted.web request."""
    return [(name, value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]


def version_of(request: Request) -> str:
    """Return the HTTP version of a twisted.web request, such as ``1.1``."""
    return request.clientproto.removeprefix(b"HTTP/").decode("latin-1")


def admit(admission: Admission, request: Request, fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """
    Check the head of a request that twisted.web has read.

    twisted.web has limits of its own: over 16 KiB for a line, or 500 headers, it answers 400 and closes the
    connection. Spaces that it has stripped do not count.

    :param fields: the request's header fields.
    :returns: the headers that are read, by their names in lower case.
    :raises StreamsError: the request is refused.
    """
    admission.check_target_size(request.uri)
    line_size = len(request.method) + len(request.uri) + len(request.clientproto) + 4
    admission.check_head_size(line_size + sum(len(name) + len(value) + 4 for name, value in fields))
    admission.check_line(request.method, request.uri)
    headers = admission.read(fields)
    admission.check_host(headers.get(b"host"))
    return headers
