"""
The gate: each request for a stream is authenticated and authorized here, once, before storage is touched.

:class:`.Operations` calls it for the requests of every front.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import InvalidName, NotAllowed, NotAuthenticated, RateLimited, StreamsError
from ..identity.control import AccessControl
from ..identity.credentials import Presented
from ..identity.policy import Decision
from ..identity.principal import SIGNED_URL, Principal
from ..interfaces import NowOrLater
from ..protocol.names import is_reserved
from .access_parts import PUBLIC, Access
from .answers import Answer, Perform
from .auditing import Audit, PendingRecord
from .decision_cache import DecisionCache
from .live import Live
from .live_access import LiveAccess, ReadPermit
from .needed_operations import ON_SOURCE, needed_operations
from .problems import InternalError, client_gone
from .quotas import RequestQuotas
from .refusals import Refusals
from .requests import READS, StreamRequest
from .telemetry import log_fields

_log = Logger()


class Gate:
    """
    Authenticates requests for streams and decides whether they are allowed.

    :param control: authentication and rules.
    :param read_name: reads the name of a path, as the operations do.
    :param refusals: answers requests that are denied.
    :param live: the live readers.
    :ivar quotas: the quotas of requests; None for no limits.
    :ivar audit: records decisions; None to record nothing.
    :ivar reserved: admits and performs requests for paths below the reserved segment. None to refuse all of them.
    :ivar reserved_early: returns the refusal of such a request whose body has not arrived; see :meth:`early`.
    :ivar readers: the long-running reads, which are checked until they end.
    """

    def __init__(
        self,
        control: AccessControl,
        read_name: Callable[[bytes], str],
        refusals: Refusals,
        live: Live,
        quotas: RequestQuotas | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.control = control
        self.quotas = quotas
        self.record(audit)
        self.reserved: Callable[[StreamRequest, Perform], NowOrLater[Answer]] | None = None
        self.reserved_early: Callable[[StreamRequest], Answer | None] | None = None
        self.readers = LiveAccess(live.clock, live.streams.turns, self._is_valid)
        self._read_name = read_name
        self._refusals = refusals
        self._wall = live.clock.wall
        self._decisions = DecisionCache()
        self._remembered = self._decisions.principals
        self._cached = control.authentication.cached
        control.on_change(self._changed)
        control.authentication.on_removal(self._decisions.forget)

    def limit(self, quotas: RequestQuotas | None) -> None:
        """Apply quotas to requests from now on; None for no limits."""
        self.quotas = quotas
        self.control.authentication.limit_attempts(None if quotas is None else quotas.quotas)
        self._counts = quotas is not None or (self.audit is not None and self.audit.records_allowed)

    def record(self, audit: Audit | None) -> None:
        """Record decisions in an audit log from now on; None to record nothing."""
        self.audit = audit
        self.limit(self.quotas)

    def admits(self, request: StreamRequest) -> bool:
        """
        Admit a request if its principal was allowed the same before, and nothing is counted or recorded.

        This is :meth:`perform` for most requests, in a single call, with as few look-ups as there can be: another call
        would cost 0.5 % of an append.

        :returns: whether it is admitted; if not, :meth:`perform` has to decide.
        """
        principal = self._cached(request.headers.get(b"authorization"))
        remembered = self._remembered.get(principal)
        if remembered is None or self._counts:
            return False
        operation = request.operation
        if operation == "append":
            if not request.body or b"stream-closed" in request.headers:
                return False
            access = remembered.appends.get(request.path)
        elif operation in READS:
            access = remembered.reads.get(request.path)
        else:
            return False
        if access is None or not access.allowed:
            return False
        request.access = access
        return True

    def perform(self, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """Perform a request if it is allowed, or else refuse it; every error becomes an answer."""
        try:
            if self.quotas is not None:
                self.quotas.arrived(request)
            name = self._name_of(request)
            if name is None:
                return self._perform_reserved(request, perform)
            access = self._decide(request, name)
            if isinstance(access, Deferred):
                answered: Deferred[Answer] = access.addCallback(self._admit, request, perform)
                return answered.addErrback(self._failed, request)
            return self._admit(access, request, perform)
        except StreamsError as error:
            return self._refuse(request, error)
        except Exception:
            return self._broken(Failure(), request)

    def permit(self, request: StreamRequest) -> ReadPermit | None:
        """Return the permit of a long-running read; None if the gate has not decided about it."""
        return None if request.access is None else ReadPermit(request.access, self.readers)

    @property
    def hide_forbidden(self) -> bool:
        """Whether a stream that a principal may not read is answered as one that does not exist."""
        return self._refusals.hide_forbidden

    # Who sends a request, and whether it is allowed

    def authenticate(self, request: StreamRequest) -> NowOrLater[Principal]:
        """
        Return the principal that sends a request.

        :raises NotAuthenticated: the credentials are invalid, or there are none and anonymous requests are refused.
        :raises Unavailable: they cannot be checked now.
        :raises RateLimited: the address has sent too many invalid ones.
        """
        return self.control.authentication.principal_of(presented_by(request))

    def _decide(self, request: StreamRequest, name: str) -> NowOrLater[Access]:
        """
        Authenticate a request and decide about it.

        :param name: the name of its stream; empty if the path is no name.
        """
        if request.operation == "request":
            return PUBLIC
        principal = self._cached(request.headers.get(b"authorization")) or self.authenticate(request)
        if isinstance(principal, Deferred):
            return principal.addCallback(self._decide_for, request, name)
        return self._decide_for(principal, request, name)

    def _decide_for(self, principal: Principal, request: StreamRequest, name: str) -> Access:
        """Decide about a request of a principal, and remember the decision if there may be more of the kind."""
        access = self._decisions.find(principal, request)
        if access is None:
            access = self._access(principal, request, name)
            # The principal of a signed URL is of one request.
            if name and principal.kind != SIGNED_URL:
                self._decisions.add(principal, request, access)
        return access

    def _name_of(self, request: StreamRequest) -> str | None:
        """Return the name of a request's stream; empty if the path is no name, None if it is reserved."""
        try:
            return self._read_name(request.path)
        except InvalidName:
            # OPTIONS is a preflight, or asks for methods, on every path.
            return None if is_reserved(request.path) and request.method != b"OPTIONS" else ""

    def _access(self, principal: Principal, request: StreamRequest, name: str, has_body: bool | None = None) -> Access:
        """Decide about a request of a principal. The first operation that is denied decides."""
        if not name:
            # The operation answers why the path is no name.
            return Access(principal, (), name, None, True, "", None)
        needed = needed_operations(request, self._read_name, has_body)
        decide = self.control.policy.decide
        first: Decision | None = None
        for operation in needed.operations:
            decision = decide(principal, operation, name)
            if not decision.allowed:
                return Access(principal, needed.operations, name, needed.source, False, operation, decision)
            first = first or decision
        if needed.source is not None:
            for operation in ON_SOURCE:
                decision = decide(principal, operation, needed.source)
                if not decision.allowed:
                    return Access(principal, needed.operations, name, needed.source, False, operation, decision)
        public = first is not None and first.public
        return Access(principal, needed.operations, name, needed.source, True, needed.operations[0], first, public)

    def _is_valid(self, access: Access) -> bool:
        """Return whether a decision that has allowed a read would be the same now."""
        control = self.control
        if not control.authentication.is_current(access.principal, self._wall()):
            return False
        decide = control.policy.decide
        return all(decide(access.principal, operation, access.name).allowed for operation in access.operations)

    def _changed(self) -> None:
        """Forget all decisions and check the long-running reads: tokens, keys or rules have changed."""
        self._decisions.clear()
        self.readers.check()

    # A request is performed or refused

    def early(self, request: StreamRequest, has_body: bool) -> NowOrLater[Answer | None]:
        """
        Return the refusal of a request whose body has not arrived; None if it is not refused by its head.

        :param request: the request, without its body.
        :param has_body: whether the body is not empty.
        """
        if request.operation == "request":
            return None
        try:
            if self.quotas is not None:
                self.quotas.check(request, has_body)
            name = self._name_of(request)
            if name is None:
                return None if self.reserved_early is None else self.reserved_early(request)
            principal = self._cached(request.headers.get(b"authorization")) or self.authenticate(request)
            if isinstance(principal, Deferred):
                return principal.addCallback(self._early_for, request, name, has_body).addErrback(self._failed, request)
            return self._early_for(principal, request, name, has_body)
        except StreamsError as error:
            return self._refuse(request, error)
        except Exception:
            return self._broken(Failure(), request)

    def _early_for(self, principal: Principal, request: StreamRequest, name: str, has_body: bool) -> Answer | None:
        """
        Return the refusal of a principal's request whose body has not arrived; None if it is not refused.

        :raises RateLimited: a quota is used up.
        """
        access = self._access(principal, request, name, has_body)
        if access.allowed:
            if self.quotas is not None:
                self.quotas.check_principal(request, principal.subject, has_body)
            return None
        if self._refusals.hides(access, request, self.control):
            # The body of a request for a stream that does not exist is read, too.
            return None
        answer = self._deny(access, request)
        return answer if isinstance(answer, Answer) else None

    def _admit(self, access: Access, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """Perform a request if its decision allows it, and have it counted and recorded."""
        if not access.allowed:
            return self._deny(access, request)
        request.access = access
        entry = None if self.audit is None else self.audit.decided(request, access)
        if self.quotas is None:
            return _recorded(perform(request), entry)
        try:
            return _recorded(self.quotas.perform(request, access.principal.subject, perform), entry)
        except RateLimited as error:
            return _recorded(self._refusals.answers.error(request, error), entry)

    def _perform_reserved(self, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """Pass on a request below the reserved segment, or refuse it if nothing decides about such requests."""
        if self.reserved is not None:
            return self.reserved(request, perform)
        raise NotAllowed("This server does not serve the paths below __ds. No rule can allow them.")

    def _deny(self, access: Access, request: StreamRequest) -> NowOrLater[Answer]:
        """Answer a request that is not allowed."""
        request.access = access
        entry = None if self.audit is None else self.audit.decided(request, access)
        return _recorded(self._refusals.deny(access, request, self.control), entry)

    def _refuse(self, request: StreamRequest, error: StreamsError) -> Answer:
        """Answer a request whose principal is not known, or that is over a quota."""
        answer = self._refusals.answers.error(request, error)
        if isinstance(error, NotAuthenticated):
            entry = None if self.audit is None else self.audit.not_authenticated(request, str(error))
            if entry is not None:
                return entry.answered(answer)
        return answer

    def _failed(self, failure: Failure, request: StreamRequest) -> Answer:
        """Answer a request after an asynchronous authentication: it, or what followed, has failed or was cancelled."""
        error = failure.value
        if isinstance(error, CancelledError):
            error = client_gone()
        if not isinstance(error, StreamsError):
            return self._broken(failure, request)
        failure.tb = None
        return self._refuse(request, error)

    def _broken(self, failure: Failure, request: StreamRequest) -> Answer:
        _log.failure("Authorizing {method} {path} failed.", failure=failure, **log_fields(request))
        return self._refusals.answers.error(request, InternalError())


def _recorded(answer: NowOrLater[Answer], entry: PendingRecord | None) -> NowOrLater[Answer]:
    """Have an entry of the audit log written when the answer is known."""
    if entry is None:
        return answer
    if isinstance(answer, Deferred):
        return answer.addCallbacks(entry.answered, _record_failure, errbackArgs=(entry,))
    return entry.answered(answer)


def _record_failure(failure: Failure, entry: PendingRecord) -> Failure:
    entry.failed()
    return failure


def presented_by(request: StreamRequest) -> Presented:
    """Return the credentials that a request presents."""
    caller = request.caller
    return Presented(
        request.headers.get(b"authorization"),
        request.query,
        request.method,
        request.path,
        caller.certificate,
        None if caller.client is None else caller.client.identity,
        caller.counted_address,
    )
