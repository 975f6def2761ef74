"""Access control of pages for operators, metrics, and the reserved paths of subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from ..errors import NotAuthenticated
from ..identity.credentials import Presented
from ..identity.operations import ADMIN
from ..identity.policy import Decision
from ..identity.principal import ANONYMOUS, NOBODY, Principal
from ..interfaces import NowOrLater
from .access import Gate, presented_by
from .access_parts import Access
from .answers import Answer, Perform
from .auditing import PendingRecord
from .live_access import ReadPermit
from .pages import PageRequest
from .refusals import not_allowed
from .requests import StreamRequest
from .revocable import perform_revocable


class RequestRights:
    """
    The rights of the principal of one request, by the rules at the moment of each check.

    The audit log has one line for a request: about the operation that was denied, or else the first that was allowed.

    :ivar principal: who sends the request: anonymous until :meth:`authenticate` has found out.
    """

    __slots__ = ("_entry", "_gate", "_granted", "_noted", "_request", "principal")

    def __init__(self, gate: Gate, request: StreamRequest | PageRequest) -> None:
        self.principal = ANONYMOUS
        self._gate = gate
        self._request = request
        self._entry: PendingRecord | None = None
        self._noted = False
        # The last decision of the rules that has allowed something.
        self._granted: Access | None = None

    async def authenticate(self) -> None:
        """
        Find out who sends the request.

        :raises NotAuthenticated: the credentials are invalid, or there are none and anonymous requests are refused.
        :raises Unavailable: they cannot be checked now.
        :raises RateLimited: the address has sent too many invalid ones.
        """
        try:
            principal = self._principal()
            self.principal = await principal if isinstance(principal, Deferred) else principal
        except NotAuthenticated as error:
            self._not_authenticated(error)
            raise

    @property
    def has_credentials(self) -> bool:
        """Whether the request presents any credentials."""
        presented = _presented(self._request)
        return any(
            part is not None for part in (presented.authorization, presented.certificate, presented.proxy_identity)
        )

    def authenticate_now(self) -> bool:
        """
        Find out who sends the request, if that takes no time.

        :returns: whether it is known. If not, :meth:`authenticate` will find the result in a cache.
        :raises StreamsError: as :meth:`authenticate`.
        """
        try:
            principal = self._principal()
        except NotAuthenticated as error:
            self._not_authenticated(error)
            raise
        if isinstance(principal, Deferred):
            principal.addErrback(lambda _: None)
            return False
        self.principal = principal
        return True

    def _principal(self) -> NowOrLater[Principal]:
        return self._gate.control.authentication.principal_of(_presented(self._request))

    def _not_authenticated(self, error: NotAuthenticated) -> None:
        """Record a request whose credentials are missing or invalid."""
        gate = self._gate
        if gate.audit is not None:
            self._entry = gate.audit.not_authenticated(self._request, str(error))

    def require(self, operation: str, name: str = "") -> None:
        """
        Check that the principal may do an operation.

        :param name: of a stream, or ``__ds/subscriptions/ID``; empty for ``admin``.
        :raises NotAuthenticated: it is denied, and the request has no credentials.
        :raises NotAllowed: it is denied.
        """
        self._decided(operation, name, self._gate.control.policy.decide(self.principal, operation, name))

    def require_pattern(self, operation: str, pattern: str) -> None:
        """
        Check that the principal may do an operation on every name that a pattern matches.

        :raises NotAuthenticated: it is denied, and the request has no credentials.
        :raises NotAllowed: it is denied.
        """
        self._decided(operation, pattern, self._gate.control.policy.covers(self.principal, operation, pattern))

    def _decided(self, operation: str, name: str, decision: Decision) -> None:
        access = Access(self.principal, (operation,), name, None, decision.allowed, operation, decision)
        if not decision.allowed or not self._noted:
            self._note(access)
        if decision.allowed:
            self._granted = access
            return
        if self.principal.kind == NOBODY:
            raise self._gate.control.authentication.missing()
        raise not_allowed(self.principal, operation, f"on {name}" if name else "")

    def allow(self, kind: str) -> None:
        """
        Note that the request is allowed for another reason than the rules.

        :param kind: of the principal, for the audit log.
        :raises Unavailable: the request has to be recorded, and cannot be.
        """
        self.principal = Principal("", kind)
        self._note(Access(self.principal, (ADMIN,), "", None, True, ADMIN, None))

    def _note(self, access: Access) -> None:
        self._noted = True
        if isinstance(self._request, StreamRequest):
            self._request.access = access
        if self._gate.audit is not None:
            self._entry = self._gate.audit.decided(self._request, access)

    async def perform(self, call: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """
        Perform the request, which ends when its principal has lost the right by which it was allowed.

        :raises NotAllowed: that was before there was an answer.
        """
        if self._granted is None:
            return await call()
        return await perform_revocable(call, ReadPermit(self._granted, self._gate.readers))

    def answered(self, answer: Answer) -> Answer:
        """
        Record the answer.

        :returns: the answer to send.
        """
        entry, self._entry = self._entry, None
        return answer if entry is None else entry.answered(answer)


class PageAccess:
    """
    Authenticates requests for pages and reserved paths, by the identities and rules of the gate of streams.

    :param gate: of streams.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @property
    def hide_forbidden(self) -> bool:
        """Whether a subscription that a principal may not use is answered as one that does not exist."""
        return self._gate.hide_forbidden

    def serve_reserved(
        self,
        admit: Callable[[StreamRequest, Perform], NowOrLater[Answer]],
        early: Callable[[StreamRequest], Answer | None],
    ) -> None:
        """
        Open the reserved paths.

        :param admit: see :attr:`.Gate.reserved`.
        :param early: see :attr:`.Gate.reserved_early`.
        """
        self._gate.reserved = admit
        self._gate.reserved_early = early

    def rights(self, request: StreamRequest | PageRequest) -> RequestRights:
        """Return the rights of a request, whose principal is not known yet."""
        return RequestRights(self._gate, request)

    async def perform(
        self, request: StreamRequest, subject: str, perform: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        """
        Perform a request for a reserved path, and count it for the quotas.

        :param subject: of its principal; empty if it has none.
        :raises RateLimited: a quota is used up.
        """
        quotas = self._gate.quotas
        if quotas is None:
            return await perform()
        answer = quotas.perform(request, subject, lambda _: Deferred.fromCoroutine(perform()))
        return await answer if isinstance(answer, Deferred) else answer


def _presented(request: StreamRequest | PageRequest) -> Presented:
    return presented_by_page(request) if isinstance(request, PageRequest) else presented_by(request)


def presented_by_page(request: PageRequest) -> Presented:
    """
    Return the credentials that a request for a page presents.

    Signed URLs are for streams. The certificate of a trusted proxy does not count: it sends the requests of others.
    """
    caller = request.caller
    return Presented(
        request.header(b"authorization"),
        b"",
        request.method,
        b"",
        None if caller.trusted else caller.certificate,
        None if caller.client is None else caller.client.identity,
        caller.counted_address,
    )
