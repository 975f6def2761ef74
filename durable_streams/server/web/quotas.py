"""Quotas of requests: a request of an address or a principal over its quota is refused before it is performed."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..clocks import IClock
from ..identity.quotas import NOT_COUNTED, UNDER_WAY, Quotas, RateQuota, Scope
from ..identity.rates import Account, address_key
from ..interfaces import NowOrLater
from ..streams import Streams
from .answers import Answer, Perform
from .callers import Caller
from .metering import Charge, MeteredBody, Pacer
from .requests import LIVE_READS, READS, StreamRequest

#: The operations of requests whose answers are counted, even if they are not known at once.
_COUNTED_LATER: Final = READS | {"create"}

#: The number of addresses whose keys are remembered.
_KEYS: Final = 4096

_CREATED: Final = 201
_NO_STORE: Final = b"Cache-Control: no-store"


class RequestQuotas:
    """
    Applies the quotas to requests for streams.

    :param quotas: the quotas, with the accounts of all clients.
    :param streams: the service.
    """

    def __init__(self, quotas: Quotas, clock: IClock, streams: Streams) -> None:
        self.quotas = quotas
        self._now = quotas.now
        self._by_address = quotas.by_address
        self._by_principal = quotas.by_principal
        self._limits_addresses = bool(quotas.by_address.settings)
        self._limits_principals = bool(quotas.by_principal.settings)
        self._pacer = Pacer(clock, streams, quotas.now)
        # Address -> what it is counted as.
        self._keys: dict[str, str] = {}

    # What the listener calls

    def open_connection(self, address: str) -> Account | None:
        """
        Count a connection of an address until :meth:`close_connection`.

        :returns: the account that holds it; None if it is not counted.
        :raises RateLimited: the address has as many as it may, or opens them too fast.
        """
        scope = self._by_address
        quota, connects = scope.connections, scope.connects
        if (quota is None and connects is None) or address in NOT_COUNTED:
            return None
        key = address_key(address)
        account = scope.ledger.account(key)
        if quota is not None and account.connections >= scope.settings.connections:
            raise quota.refuse(UNDER_WAY)
        _spend(connects, account, self._now())
        if quota is None:
            return None
        scope.ledger.hold(key)
        account.connections += 1
        return account

    def close_connection(self, account: Account) -> None:
        """Count a connection no more."""
        account.connections -= 1
        self._by_address.ledger.release(account)

    def check_incoming(self, caller: Caller, size: int) -> None:
        """
        Check whether an address has room for a body that begins to arrive.

        :raises RateLimited: it has none.
        """
        quota = self._by_address.incoming
        key = self._address(caller) if quota is not None else ""
        if key and quota is not None:
            account = self._by_address.ledger.account(key)
            if account.incoming + size > self._by_address.settings.incoming_bytes:
                raise quota.refuse(UNDER_WAY)

    def add_incoming(self, caller: Caller, size: int) -> None:
        """
        Count bytes that have arrived of the body of a request that is not complete.

        :raises RateLimited: the bodies of the address have as many as they may.
        """
        scope = self._by_address
        key = self._address(caller) if scope.incoming is not None and size else ""
        if key:
            self.check_incoming(caller, size)
            account = scope.ledger.account(key)
            if not account.incoming:
                scope.ledger.hold(key)
            account.incoming += size

    def remove_incoming(self, caller: Caller, size: int, dropped: bool) -> None:
        """
        Subtract the bytes of a body that is complete, or is dropped.

        :param dropped: whether the request will not be performed. Its bytes are charged here.
        """
        scope = self._by_address
        key = self._address(caller)
        if not key or not size:
            return
        account = scope.ledger.account(key)
        if dropped and scope.bytes_in is not None:
            scope.bytes_in.meter.charge(account, size, self._now())
        if scope.incoming is not None:
            account.incoming -= size
            if not account.incoming:
                scope.ledger.release(account)

    # What the pages call

    def count_page(self, caller: Caller) -> None:
        """
        Count a request for a page.

        :raises RateLimited: the address has used up its requests.
        """
        scope = self._by_address
        key = self._address(caller) if scope.requests is not None else ""
        if key:
            _spend(scope.requests, scope.ledger.account(key), self._now())

    # What the gate calls

    def arrived(self, request: StreamRequest) -> None:
        """
        Count a request of an address, before it is authenticated.

        :raises RateLimited: the address has used up a quota.
        """
        if self._limits_addresses:
            key = self._address(request.caller)
            if key:
                scope = self._by_address
                _enter(scope, scope.ledger.account(key), request, self._now())

    def check(self, request: StreamRequest, has_body: bool) -> None:
        """
        Check whether a request whose body has not arrived would be refused, without counting it.

        :raises RateLimited: it would be.
        """
        key = self._address(request.caller)
        if key and self._limits_addresses:
            _check(self._by_address, self._by_address.ledger.account(key), request, has_body, self._now())

    def check_principal(self, request: StreamRequest, subject: str, has_body: bool) -> None:
        """
        Check whether an allowed request whose body has not arrived would be refused, without counting it.

        :param subject: of the principal; empty for an anonymous one.
        :raises RateLimited: it would be.
        """
        key = subject or self._address(request.caller)
        if key and self._limits_principals:
            key = subject or f"\0{key}"
            _check(self._by_principal, self._by_principal.ledger.account(key), request, has_body, self._now())

    def perform(self, request: StreamRequest, subject: str, perform: Perform) -> NowOrLater[Answer]:
        """
        Perform a request for which :meth:`arrived` was called, and count what its answer uses.

        :param subject: of the principal; empty for an anonymous one.
        :raises RateLimited: the principal has used up a quota. Then nothing is performed.
        """
        return self._perform(request, subject, perform, is_counted=True)

    def perform_for_anybody(self, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """
        Count a request, perform it, and count what its answer uses: :meth:`arrived` and :meth:`perform` in one.

        :raises RateLimited: the address has used up a quota. Then nothing is performed.
        """
        return self._perform(request, "", perform, is_counted=False)

    def _perform(self, request: StreamRequest, subject: str, perform: Perform, is_counted: bool) -> NowOrLater[Answer]:
        """
        Perform a request.

        :param is_counted: whether it was counted for its address.
        """
        now = self._now()
        key = self._address(request.caller)
        address = principal = None
        if key and self._limits_addresses:
            address = self._by_address.ledger.account(key)
            if not is_counted:
                _enter(self._by_address, address, request, now)
        if self._limits_principals:
            name = subject or (f"\0{key}" if key else "")
            if name:
                principal = self._by_principal.ledger.account(name)
                _enter(self._by_principal, principal, request, now)
        answer = perform(request)
        if type(answer) is Answer and type(answer.body) is bytes:
            return self._answered(answer, request, address, principal, now, now)
        if request.operation in _COUNTED_LATER:
            return self._hold(answer, request, address, principal, now)
        return answer

    # What an answer uses

    def _answered(
        self,
        answer: Answer,
        request: StreamRequest,
        address: Account | None,
        principal: Account | None,
        began: float,
        now: float,
    ) -> Answer:
        """Count an answer that is whole, and add the RateLimit fields if little is left."""
        lines = b""
        if address is not None:
            lines = _settle(self._by_address, address, answer, request, now - began, now)
        if principal is not None:
            lines = _settle(self._by_principal, principal, answer, request, now - began, now) or lines
        if not lines or answer.error is not None or _NO_STORE not in answer.head:
            # A cache would hand them to others.
            return answer
        return replace(answer, head=answer.head + lines)

    def _hold(
        self,
        answer: NowOrLater[Answer],
        request: StreamRequest,
        address: Account | None,
        principal: Account | None,
        began: float,
    ) -> NowOrLater[Answer]:
        """Count an answer that is not known yet, or that is sent piece by piece."""
        held: list[tuple[Scope, Account]] = []
        is_live = request.operation in LIVE_READS
        for scope, account in ((self._by_address, address), (self._by_principal, principal)):
            if account is not None:
                scope.ledger.hold(account.key)
                account.live_reads += is_live
                held.append((scope, account))

        def release() -> None:
            for scope, account in held:
                account.live_reads -= is_live
                scope.ledger.release(account)

        def settle(answer: Answer) -> Answer:
            body = answer.body
            if isinstance(body, bytes):
                answer = self._answered(answer, request, address, principal, began, self._now())
                release()
                return answer
            charges = [Charge(scope.bytes_out, account) for scope, account in held if scope.bytes_out is not None]
            return replace(answer, body=MeteredBody(body, charges, self._pacer, release))

        def failed(failure: Failure) -> Failure:
            release()
            return failure

        if not held:
            return answer
        return answer.addCallbacks(settle, failed) if isinstance(answer, Deferred) else settle(answer)

    def _address(self, caller: Caller) -> str:
        """Return what a caller's address is counted as; empty if it is not counted."""
        address = caller.counted_address if caller.trusted else caller.address
        key = self._keys.get(address)
        if key is None:
            if len(self._keys) >= _KEYS:
                self._keys.clear()
            key = self._keys[address] = "" if address in NOT_COUNTED else address_key(address)
        return key


def _enter(scope: Scope, account: Account, request: StreamRequest, now: float) -> None:
    """
    Count a request with its body.

    :raises RateLimited: a quota is used up.
    """
    quota = scope.requests
    if quota is not None:
        # As _spend, without the call, which would cost 1 % of an append.
        wait = quota.meter.spend(account, 1, now)
        if wait:
            raise quota.refuse(wait)
    operation = request.operation
    if operation in READS:
        _check_debts(scope.bytes_out, account, now)
        if operation in LIVE_READS and scope.live_reads is not None and account.live_reads >= scope.settings.live_reads:
            raise scope.live_reads.refuse(UNDER_WAY)
        return
    if request.body and scope.bytes_in is not None:
        _check_debts(scope.bytes_in, account, now)
        scope.bytes_in.meter.charge(account, len(request.body), now)
    if operation == "create":
        _spend(scope.creations, account, now)


def _settle(scope: Scope, account: Account, answer: Answer, request: StreamRequest, took: float, now: float) -> bytes:
    """Count an answer that is whole; return the RateLimit fields if little is left, or else nothing."""
    operation = request.operation
    if operation in READS:
        quota = scope.bytes_out
        if quota is not None and type(answer.body) is bytes:
            quota.meter.charge(account, len(answer.body), now)
    elif operation == "create" and answer.status != _CREATED and scope.creations is not None:
        scope.creations.meter.refund(account, 1, took)
    quota = scope.requests
    if quota is not None and quota.meter.until_full(account, now) > quota.low:
        return _fields(quota, account, now)
    return b""


def _spend(quota: RateQuota | None, account: Account, now: float) -> None:
    """
    Count one unit, if there is a quota.

    :raises RateLimited: it is used up.
    """
    if quota is not None:
        wait = quota.meter.spend(account, 1, now)
        if wait:
            raise quota.refuse(wait)


def _check_debts(quota: RateQuota | None, account: Account, now: float) -> None:
    if quota is not None:
        wait = quota.meter.wait(account, now)
        if wait > 0:
            raise quota.refuse(wait)


def _check(scope: Scope, account: Account, request: StreamRequest, has_body: bool, now: float) -> None:
    """
    Check whether a request would be refused when it has arrived.

    :raises RateLimited: it would be.
    """
    spending = [scope.requests, scope.creations if request.operation == "create" else None]
    for quota in spending:
        if quota is not None:
            wait = quota.meter.wait_for(account, 1, now)
            if wait > 0:
                raise quota.refuse(wait)
    if has_body:
        _check_debts(scope.bytes_in, account, now)


def _fields(quota: RateQuota, account: Account, now: float) -> bytes:
    """Return the header lines RateLimit-Policy and RateLimit."""
    remaining, seconds = quota.remaining(account, now)
    policy, name = quota.policy.encode(), quota.name.encode()
    return b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=%d;t=%d\r\n' % (policy, name, remaining, seconds)
