"""PUT, POST, GET, HEAD and DELETE on a stream: parse, call the service, answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, cast

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import EmptyName, InvalidName, StreamNotFound, StreamsError
from ..interfaces import NowOrLater, T
from ..model import NOW, START, Appended, Chunk, Created, Offset, StreamFacts
from ..protocol.names import NameLimits, is_reserved
from ..streams import Streams
from .admission import AdmissionPolicy, RequestLimits
from .answers import Answer, Answers
from .bodies import PIECE, Replay
from .live import EventTail, Live
from .origins import WritingOrigins
from .problems import InternalError, MethodNotAllowed, NoSuchPath, client_gone
from .proxies import Proxies
from .requests import StreamRequest, name_reader, offset_of_reconnect
from .telemetry import Telemetry, log_fields
from .writes import read_append, read_creation

if TYPE_CHECKING:
    from ..identity.control import AccessControl
    from .access import Gate
    from .auditing import Audit
    from .live_access import ReadPermit
    from .page_access import PageAccess
    from .quota_gate import QuotaGate
    from .quotas import RequestQuotas

_TRACEPARENT: Final = b"traceparent"

_log = Logger()


class OperationSettings(Struct, frozen=True, gc=False):
    """
    Limits of requests.

    :ivar names: the length of a name.
    :ivar limits: the sizes of head, target and body.
    :ivar read_bytes: about how much of a stream one catch-up read returns, in bytes; 0 for all of it.
    """

    names: NameLimits = NameLimits()
    limits: RequestLimits = RequestLimits()
    read_bytes: int = 0


class _NoStreams:
    """Stands for the streams where none exists, for answers about streams that may not be read."""

    draining = False

    def _not_found(self, name: str, *args: object, **options: object) -> NoReturn:
        raise StreamNotFound(name)

    append = read = status = delete = _not_found


class Operations:
    """
    The operations of streams, as all fronts call them.

    :ivar reserved: answers requests for paths below the reserved segment; None if nothing is there.
    :ivar quotas: the quotas of requests; None for no limits.
    :ivar gate: authenticates and authorizes requests, or only applies quotas; None to perform every request.
    :ivar page_access: authenticates and authorizes requests for pages and reserved paths; None without access control.
    :ivar traced: is called with the stream's name and incarnation, the positions of the first byte and after the last
        byte, ``traceparent`` and ``tracestate``, for each write that has the former; None if nothing needs it.
    """

    def __init__(
        self,
        streams: Streams,
        live: Live,
        answers: Answers,
        settings: OperationSettings,
        telemetry: Telemetry = Telemetry(),  # noqa: B008 (it has no state)
        proxies: Proxies | None = None,
        origins: WritingOrigins | None = None,
    ) -> None:
        self.streams = streams
        self.answers = answers
        self.settings = settings
        self.telemetry = telemetry
        self.live = live
        self.proxies = proxies or Proxies()
        self._read_bytes = settings.read_bytes
        self.origins = origins or WritingOrigins(["*"])
        self.quotas: RequestQuotas | None = None
        self.gate: Gate | QuotaGate | None = None
        self.page_access: PageAccess | None = None
        self.reserved: Callable[[StreamRequest], NowOrLater[Answer]] | None = None
        self.traced: Callable[[str, int, int, int, bytes, bytes], None] | None = None
        self._read_name = name_reader(settings.names)
        self._by_operation: dict[str, Callable[[StreamRequest], NowOrLater[Answer]]] = {
            "append": self._append,
            "read": self._read,
            "poll": self._read,
            "subscribe": self._read,
            "create": self._create,
            "head": self._status,
            "delete": self._delete,
            "request": self._other,
        }

    def admission_policy(self, base: bytes) -> AdmissionPolicy:
        """
        Make the rules by which a front admits requests.

        :param base: the path prefix of streams.
        """
        return AdmissionPolicy(base, self.settings.limits, self.proxies, self.telemetry.headers, self.quotas)

    def guard(
        self,
        control: AccessControl,
        hide_forbidden: bool = False,
        audit: Audit | None = None,
    ) -> Gate:
        """
        Authenticate and authorize all requests from now on; :attr:`quotas` limit them as before.

        :param hide_forbidden: whether a stream that may not be read is answered as one that does not exist.
        """
        from .access import Gate  # noqa: PLC0415 (20 ms with the rules, and an open server does not need them)
        from .page_access import PageAccess  # noqa: PLC0415
        from .refusals import Refusals  # noqa: PLC0415

        without_streams = Operations(
            cast(Streams, _NoStreams()), self.live, self.answers, self.settings, origins=self.origins
        )
        refusals = Refusals(self.answers, without_streams.perform, hide_forbidden)
        gate = self.gate = Gate(control, self._read_name, refusals, self.live, self.quotas, audit)
        self.page_access = PageAccess(gate)
        return gate

    def limit(self, quotas: RequestQuotas) -> None:
        """Apply quotas to requests from now on. It takes :meth:`guard` to have requests authenticated as well."""
        from .quota_gate import QuotaGate  # noqa: PLC0415 (only if it is used)

        self.quotas = quotas
        if self.gate is None:
            self.gate = QuotaGate(quotas, self.answers)
        else:
            self.gate.limit(quotas)

    def perform(self, request: StreamRequest) -> NowOrLater[Answer]:
        """Answer a request; every error becomes an answer."""
        gate = self.gate
        if gate is not None and request.access is None and not gate.admits(request):
            # The gate calls this again when it has admitted the request.
            return gate.perform(request, self.perform)
        try:
            return self._by_operation[request.operation](request)
        except EmptyName:
            return self.answers.error(request, NoSuchPath(request.mount))
        except InvalidName as error:
            # Found out by the error, so that requests for streams do not pay for the check.
            if is_reserved(request.path):
                return self._reserved(request)
            return self.answers.error(request, error)
        except StreamsError as error:
            return self.answers.error(request, error)
        except Exception:
            return self._broken(Failure(), request)

    def _other(self, request: StreamRequest) -> NowOrLater[Answer]:
        if request.method == b"OPTIONS":
            return self.answers.options(request)
        if is_reserved(request.path):
            return self._reserved(request)
        raise MethodNotAllowed("Streams support GET, HEAD, PUT, POST, DELETE and OPTIONS.")

    def _reserved(self, request: StreamRequest) -> NowOrLater[Answer]:
        if self.reserved is not None:
            return self.reserved(request)
        return self.answers.error(request, NoSuchPath(request.mount))

    def _append(self, request: StreamRequest) -> NowOrLater[Answer]:
        name = self._read_name(request.path)
        if request.access is not None or not self.origins.any:
            self.origins.check(request)
        append = read_append(request)
        appended = self.streams.append(name, append)
        if _TRACEPARENT in request.headers and self.traced is not None:
            size = len(append.data)
            return self._then(request, appended, lambda outcome: self._appended_in_trace(request, outcome, size))
        if isinstance(appended, Deferred):
            return self._later(request, appended, lambda outcome: self.answers.appended(request, outcome))
        return self.answers.appended(request, appended)

    def _read(self, request: StreamRequest) -> NowOrLater[Answer]:
        name = self._read_name(request.path)
        view = request.view
        view.check()
        offset = START if view.offset is None else view.offset
        limit = PIECE
        if request.operation == "subscribe":
            offset = offset_of_reconnect(request.headers) or offset
            limit = 0
        chunk = self.streams.read(name, offset, limit)
        if isinstance(chunk, Deferred):
            return self._later(request, chunk, lambda outcome: self._found(request, outcome))
        return self._found(request, chunk)

    def _found(self, request: StreamRequest, chunk: Chunk) -> NowOrLater[Answer]:
        view = request.view
        if request.operation == "read":
            if view.offset == NOW:
                return self.answers.tail(request, chunk)
            return self._answer_read(request, chunk)
        if request.operation == "subscribe":
            return self.answers.events(
                request, chunk.facts, EventTail(self.live, chunk, view.cursor, self._permit(request))
            )
        if chunk.data or chunk.closed or self.streams.draining:
            return self._polled(request, chunk)
        return self._later(
            request, self.live.wait(chunk, self._permit(request)), lambda outcome: self._polled(request, outcome)
        )

    def _polled(self, request: StreamRequest, chunk: Chunk) -> NowOrLater[Answer]:
        view = request.view
        cursor = self.live.cursor(view.cursor)
        if chunk.data:
            # The tail is another one the next time, so the answer to now is not to be cached.
            return self._answer_read(request, chunk, cursor, passing=view.offset == NOW)
        return self.answers.nothing_yet(request, chunk, cursor)

    def _answer_read(
        self, request: StreamRequest, chunk: Chunk, cursor: int | None = None, passing: bool = False
    ) -> NowOrLater[Answer]:
        """Answer a read from a chunk's start to the tail, or to the limit of one read."""
        if not 0 < self._read_bytes < chunk.tail - chunk.start:
            return self.answers.found(request, chunk, self._rest(request, chunk), cursor, passing)
        # A read of nothing finds where the append begins that has this byte, and where it ends.
        limit = Offset(chunk.facts.incarnation, chunk.start + self._read_bytes)

        def end_at(append: Chunk) -> Answer:
            if append.facts.id != chunk.facts.id:
                return self.answers.error(request, StreamNotFound(chunk.facts.name))
            end = append.start if append.start == limit.position else append.start + len(append.data) + append.more
            if end == chunk.tail:
                return self.answers.found(request, chunk, self._rest(request, chunk), cursor, passing)
            part = Chunk(chunk.facts, chunk.start, chunk.data[: end - chunk.start], end, closed=False)
            return self.answers.found(request, part, self._rest(request, part), cursor, passing, partial=True)

        append = self.streams.read(chunk.facts.name, limit, 0, whole=True, renew=False)
        return self._then(request, append, end_at)

    def _rest(self, request: StreamRequest, chunk: Chunk) -> Replay | None:
        """Return the body of a read that is larger than one piece; None for any other read."""
        if chunk.start + len(chunk.data) == chunk.tail:
            return None
        return Replay(self.streams, chunk, self.live.sent, self._permit(request))

    def _permit(self, request: StreamRequest) -> ReadPermit | None:
        """Return the permit of a long-running read; None without access control."""
        return None if self.gate is None else self.gate.permit(request)

    def _create(self, request: StreamRequest) -> NowOrLater[Answer]:
        name = self._read_name(request.path)
        self.origins.check(request)
        created = self.streams.create(name, read_creation(request, self._read_name), request.body)
        return self._then(request, created, lambda outcome: self._created(request, outcome))

    def _created(self, request: StreamRequest, outcome: Created) -> Answer:
        if outcome.new:
            self._note_trace(request, outcome.facts, 0, outcome.tail)
        return self.answers.created(request, outcome)

    def _appended_in_trace(self, request: StreamRequest, outcome: Appended, size: int) -> Answer:
        if not outcome.duplicate:
            self._note_trace(request, outcome.facts, outcome.tail - size, outcome.tail)
        return self.answers.appended(request, outcome)

    def _note_trace(self, request: StreamRequest, facts: StreamFacts, begin: int, end: int) -> None:
        traceparent = request.headers.get(_TRACEPARENT)
        if self.traced is not None and traceparent is not None:
            tracestate = request.headers.get(b"tracestate", b"")
            self.traced(facts.name, facts.incarnation, begin, end, traceparent, tracestate)

    def _status(self, request: StreamRequest) -> NowOrLater[Answer]:
        status = self.streams.status(self._read_name(request.path))
        return self._then(request, status, lambda outcome: self.answers.status(request, outcome))

    def _delete(self, request: StreamRequest) -> NowOrLater[Answer]:
        name = self._read_name(request.path)
        self.origins.check(request)
        deleted = self.streams.delete(name)
        return self._then(request, deleted, lambda _: self.answers.deleted(request))

    def _then(
        self, request: StreamRequest, outcome: NowOrLater[T], answer: Callable[[T], Answer]
    ) -> NowOrLater[Answer]:
        if isinstance(outcome, Deferred):
            return self._later(request, outcome, answer)
        return answer(outcome)

    def _later(
        self, request: StreamRequest, outcome: Deferred[T], answer: Callable[[T], NowOrLater[Answer]]
    ) -> Deferred[Answer]:
        """
        Convert the Deferred's result into an Answer.

        A single addCallbacks does it: each further callback costs about 1 % of an append.
        """
        return outcome.addCallbacks(answer, self._failed, errbackArgs=(request,))

    def _failed(self, failure: Failure, request: StreamRequest) -> Answer:
        error = failure.value
        if isinstance(error, StreamsError):
            # The failure holds frames of its own besides the error's; see Answers.error.
            failure.tb = None
            return self.answers.error(request, error)
        if isinstance(error, CancelledError):
            return self.answers.error(request, client_gone())
        return self._broken(failure, request)

    def _broken(self, failure: Failure, request: StreamRequest) -> Answer:
        _log.failure("{method} {path} failed.", failure=failure, **log_fields(request))
        return self.answers.error(request, InternalError())
