"""The Klein application of everything that is not a stream: probes, metrics, pages for operators."""

from __future__ import annotations

import encodings.idna  # noqa: F401 (werkzeug needs it with the first request, when the process may have no right to read it)
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from ...errors import StreamsError, Unavailable
from ..answers import Answer, Answers
from ..pages import PageRequest, public_page
from ..problems import InternalError, MethodNotAllowed, NoSuchPath, client_gone
from ..telemetry import log_fields
from ..wire import PROBES

if TYPE_CHECKING:
    from ..page_access import RequestRights
    from ..quotas import RequestQuotas

#: Returns why the service takes no requests; None if it takes them.
Readiness = Callable[[], "str | None"]

_PLAIN: Final = b"Content-Type: text/plain\r\n"
_METRICS: Final = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nCache-Control: no-store\r\n"

_Page = TypeVar("_Page", bound=Callable[..., "Answer | Awaitable[Answer]"])

_log = Logger()


class Guard(Protocol):
    """
    Protects the pages below a path.

    :ivar answers: renders their answers and errors.
    :ivar covers_pages: whether it protects every page that is not public (:func:`.public_page`), wherever it is.
    """

    answers: Answers
    covers_pages: bool

    def covers(self, path: str) -> bool:
        """
        Return whether it protects a path, which need not have a page.

        :param path: decoded, as the pages are routed by it.
        """

    def rights(self, request: PageRequest) -> RequestRights | None:
        """Return the rights of a request for :meth:`check`; None if requests are not authenticated."""

    async def check(self, request: PageRequest, rights: RequestRights | None) -> None:
        """
        Check that a request is allowed.

        :raises StreamsError: it is not.
        """


class Routes(Protocol):
    """A Klein application whose pages take a :class:`.PageRequest` and return an :class:`.Answer`."""

    def route(self, url: str, *, methods: Sequence[str]) -> Callable[[_Page], _Page]:
        """Register a page; see :meth:`klein.Klein.route`."""


class Pages:
    """
    The pages, routed by Klein.

    A page is called with a :class:`.PageRequest` and returns an :class:`.Answer`, or a Deferred or coroutine of one. It
    may raise any :exc:`.StreamsError`. The answer's head has the page's own headers; the headers of every answer are
    added to it.

    To import Klein installs a reactor, so the application is made by :meth:`load`, or with the first request.

    :param base: the path prefix of streams, for messages; None where there are no streams.
    :ivar guard: protects some of the pages; None if all are public.
    :ivar quotas: limits the requests for pages other than probes; None for no limits.
    """

    def __init__(self, answers: Answers, base: bytes | None) -> None:
        self.guard: Guard | None = None
        self.quotas: RequestQuotas | None = None
        self._answers = answers
        self._base = base
        self._routes: list[Callable[[Routes], object]] = []
        # Klein's own type is for pages that take a request of twisted.web's.
        self._app: Any = None

    def add(self, routes: Callable[[Routes], object]) -> None:
        """
        Add pages.

        :param routes: registers them with ``@app.route``, once there is an application.
        """
        self._routes.append(routes)
        if self._app is not None:
            routes(self._app)

    def load(self) -> Any:
        """Return the application; the first call makes it."""
        if self._app is None:
            from klein import Klein  # noqa: PLC0415 (it installs a reactor)

            self._app = Klein()
            for routes in self._routes:
                routes(self._app)
        return self._app

    def streams_body(self, method: bytes, target: bytes) -> bool:
        """Return whether a page receives its request's body while it arrives (:func:`.streams_body`)."""
        try:
            endpoint, _ = self._match(method, target.partition(b"?")[0])
        except StreamsError:
            return False
        return getattr(self.load().endpoints[endpoint], "streams_body", False) is True

    def perform(self, request: PageRequest) -> Deferred[Answer]:
        """Answer a request; every error becomes an answer."""
        return Deferred.fromCoroutine(self._perform(request))

    async def _perform(self, request: PageRequest) -> Answer:
        guard = self.guard
        if guard is not None and (guard.covers(_decoded(request.path)) or self._is_covered(guard, request)):
            return await self._answer(request, guard.answers, guard)
        origin = request.header(b"origin")
        if origin and request.method == b"OPTIONS" and request.header(b"access-control-request-method"):
            return self._answers.preflight(origin)
        return await self._answer(request, self._answers)

    async def _answer(self, request: PageRequest, answers: Answers, guard: Guard | None = None) -> Answer:
        rights = None if guard is None else guard.rights(request)
        origin = request.header(b"origin")
        try:
            if self.quotas is not None and request.path not in PROBES:
                self.quotas.count_page(request.caller)
            if guard is not None:
                await guard.check(request, rights)
            answer = await (self._call(request) if rights is None else rights.perform(partial(self._call, request)))
            common = answers.cors if request.path in PROBES else answers.common
            answer = replace(answer, head=common(origin) + answer.head)
        except StreamsError as error:
            answer = answers.error(request, error, origin)
        except CancelledError:
            answer = answers.error(request, client_gone(), origin)
        except Exception:
            _log.failure("{method} {path} failed.", **log_fields(request))
            answer = answers.error(request, InternalError(), origin)
        return answer if rights is None else rights.answered(answer)

    def _is_covered(self, guard: Guard, request: PageRequest) -> bool:
        """Return whether a request is for a page that a guard protects since it is not public."""
        if not guard.covers_pages:
            return False
        try:
            endpoint, _ = self._match(request.method, request.path)
        except StreamsError:
            return False
        return getattr(self.load().endpoints[endpoint], "public_page", False) is not True

    async def _call(self, request: PageRequest) -> Answer:
        endpoint, arguments = self._match(request.method, request.path)
        answer: Any = self.load().execute_endpoint(endpoint, request, **arguments)
        if isinstance(answer, Deferred):
            answer = await answer
        if not isinstance(answer, Answer):
            raise TypeError(f"The page {endpoint} returned {answer!r}, which is not an Answer.")
        if request.method == b"HEAD" and not isinstance(answer.body, bytes):
            answer.body.stopProducing()
            return replace(answer, body=b"")
        return answer

    def _match(self, method: bytes, path: bytes) -> tuple[str, dict[str, Any]]:
        """
        Find the page of a path.

        :returns: its name and the arguments that are in the path.
        :raises NoSuchPath: there is no page.
        :raises MethodNotAllowed: it has other methods.
        """
        try:
            # Routes do not depend on Host.
            adapter = self.load().url_map.bind("localhost", path_info=_decoded(path))
            endpoint, arguments = adapter.match(method=method.decode("latin-1"))
        except WrongMethod as error:
            methods = ", ".join(sorted(error.valid_methods or ()))
            can = "This path can only be read." if methods == "GET, HEAD" else f"This path knows {methods}."
            raise MethodNotAllowed(can, methods.encode()) from None
        except HTTPException:
            raise NoSuchPath(self._base) from None
        return endpoint, arguments


def _decoded(path: bytes) -> str:
    """
    Return the path by which pages are routed.

    Bytes that are not UTF-8 become lone surrogates, which no page has in its path.
    """
    # A prefix that ends with a slash is often put before the path of a probe.
    return "/" + unquote_to_bytes(path).decode("utf-8", "surrogateescape").lstrip("/")


def add_probes(app: Routes, ready: Readiness) -> None:
    """Add ``/healthz`` and ``/readyz``."""

    @app.route("/healthz", methods=["GET", "HEAD"])
    @public_page
    def healthz(request: PageRequest) -> Answer:
        """Answer that the process is alive."""
        return Answer(200, _PLAIN, b"ok")

    @app.route("/readyz", methods=["GET", "HEAD"])
    @public_page
    def readyz(request: PageRequest) -> Answer:
        """Answer whether the service takes requests."""
        obstacle = ready()
        if obstacle is not None:
            raise Unavailable(obstacle)
        return Answer(200, _PLAIN, b"ready")


def add_metrics(app: Routes, render: Callable[[], bytes | Deferred[bytes]]) -> None:
    """
    Add ``/metrics``.

    :param render: returns all metrics in Prometheus' text format, or a Deferred of them.
    """

    @app.route("/metrics", methods=["GET", "HEAD"])
    async def metrics(request: PageRequest) -> Answer:
        """Answer with all metrics."""
        rendered = render()
        return Answer(200, _METRICS, rendered if isinstance(rendered, bytes) else await rendered)
