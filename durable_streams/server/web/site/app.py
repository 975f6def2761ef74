"""The tree that is served beside the streams: a Klein application, and the resource that chooses between the two."""

from __future__ import annotations

import encodings.idna  # noqa: F401 (werkzeug needs it with the first request, when the process may have no right to read it)
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.exceptions import NotFound
from zope.interface import implementer

from ...errors import StreamsError, Unavailable
from ..answers import Answer, Answers, fields_of
from ..operations import Operations
from ..problems import MethodNotAllowed, NoSuchPath
from ..wire import PROBES, below, is_stream
from .resource import StreamsResource, admit

#: Says what keeps the service from taking requests; None when nothing does.
Readiness = Callable[[], "str | None"]

_PLAIN: Final = b"text/plain"
_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"


def build_app(
    answers: Answers, ready: Readiness, base: bytes | None, metrics: Callable[[], bytes] | None = None
) -> Klein:
    """
    Lay out everything that is not a stream.

    :param base: the path below which streams are, for messages; None where there are no streams.
    :param metrics: writes what ``/metrics`` answers, in Prometheus' text format; None, and there is no such path.
    """
    app = Klein()

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(request: IRequest) -> bytes:
        """The process is alive."""
        request.setHeader(b"Content-Type", _PLAIN)
        return b"ok"

    @app.route("/readyz", methods=["GET", "HEAD"])
    def readyz(request: IRequest) -> bytes:
        """The service takes requests."""
        obstacle = ready()
        if obstacle is not None:
            return say_problem(request, answers, Unavailable(obstacle))
        request.setHeader(b"Content-Type", _PLAIN)
        return b"ready"

    if metrics is not None:

        @app.route("/metrics", methods=["GET", "HEAD"])
        def scrape(request: IRequest) -> bytes:
            """All figures of the server."""
            request.setHeader(b"Content-Type", _METRICS)
            request.setHeader(b"Cache-Control", b"no-store")
            return metrics()

    @app.handle_errors(NotFound)
    def nothing_here(request: IRequest, failure: Failure) -> bytes:
        return say_problem(request, answers, NoSuchPath(base))

    @app.handle_errors(WrongMethod)
    def not_so(request: IRequest, failure: Failure) -> bytes:
        return say_problem(request, answers, MethodNotAllowed("This path can only be read.", b"GET, HEAD"))

    return app


def say_problem(request: IRequest, answers: Answers, error: StreamsError) -> bytes:
    """Answer with an error."""
    return _said(request, answers.error(None, error, request.getHeader(b"origin")))


def _said(request: IRequest, answer: Answer) -> bytes:
    """Answer a request of twisted.web's as if it were for a stream."""
    request.setResponseCode(answer.status)
    for name, value in answer.fields():
        request.setHeader(name, value)
    assert isinstance(answer.body, bytes)
    return answer.body


def _sent(request: Request, answer: Answer) -> int:
    """Answer without a body: to say that it is empty would give it a length, and a type."""
    _said(request, answer)
    request.responseHeaders.removeHeader(b"content-type")
    request.finish()
    return NOT_DONE_YET


@implementer(IResource)
class Tree:
    """
    The whole of a server: the streams below the base path, the Klein application everywhere else.

    A stream's name is made of the path as it came, which routing by decoded segments would not keep.

    :param streams: None for a tree without streams.
    """

    isLeaf = True

    def __init__(self, streams: StreamsResource | None, app: Klein, operations: Operations, base_path: str) -> None:
        self._proxies = operations.proxies
        self._streams = streams
        self._app = app.resource()
        self._answers = operations.answers
        self._base = below(base_path)
        self._policy = operations.admission_policy(self._base)

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """A leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        :raises NotImplementedError: always; the tree is laid out by :func:`build_app`.
        """
        raise NotImplementedError("The tree is complete.")

    def render(self, request: Request) -> int | bytes:
        if self._streams is not None and is_stream(request.path, self._base):
            mounted = self._base.count(b"/") - 1
            segments = request.postpath or []
            request.prepath, request.postpath = segments[:mounted], segments[mounted:]
            return self._streams.render(request)
        caller = self._proxies.admit(request)
        origin = request.getHeader(b"origin")
        common = self._answers.cors if request.path in PROBES else self._answers.common
        for name, value in fields_of(common(origin)):
            request.responseHeaders.addRawHeader(name, value)
        try:
            admission = self._policy.admission(caller)
            admission.identify(caller, admit(admission, request))
            if origin and request.method == b"OPTIONS" and request.getHeader(b"access-control-request-method"):
                return _sent(request, self._answers.preflight(origin))
            unquote_to_bytes(request.path).decode()
        except StreamsError as error:
            return say_problem(request, self._answers, error)
        except UnicodeDecodeError:
            return say_problem(request, self._answers, NoSuchPath(None if self._streams is None else self._base))
        # Routes do not depend on Host, and werkzeug refuses hosts that IDNA can't encode, as those of UNIX sockets.
        request.requestHeaders.setRawHeaders(b"host", [b"localhost"])
        return self._app.render(request)  # type: ignore[return-value]
