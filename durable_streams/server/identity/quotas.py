"""Quotas: how much one address, and one principal, may use."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from msgspec import Struct

from ..errors import RateLimited
from .rates import WIDTH, Account, Ledger, Meter, Rate, address_key

#: The number of columns of the sketches of principals: there are fewer of them than of addresses.
_PRINCIPALS: Final = 16_384

#: The Retry-After of a refusal because too much is under way, in seconds. When that ends is not known.
UNDER_WAY: Final = 1

#: The addresses of clients that are not counted: those of a UNIX socket have one for all, others have none.
NOT_COUNTED: Final = frozenset(["", "unix"])


class ScopeQuotas(Struct, frozen=True, gc=False):
    """
    The quotas of one address, or of one principal; None and 0 for no limit.

    :ivar requests: requests.
    :ivar bytes_in: bytes of request bodies.
    :ivar bytes_out: bytes of answers' bodies.
    :ivar creations: streams that are created.
    :ivar failures: attempts to authenticate that fail.
    :ivar connects: connections that are opened.
    :ivar live_reads: the maximum number of live reads at a time.
    :ivar connections: the maximum number of open connections.
    :ivar incoming_bytes: the maximum size of bodies that are arriving, in bytes.
    """

    requests: Rate | None = None
    bytes_in: Rate | None = None
    bytes_out: Rate | None = None
    creations: Rate | None = None
    failures: Rate | None = None
    connects: Rate | None = None
    live_reads: int = 0
    connections: int = 0
    incoming_bytes: int = 0

    def __bool__(self) -> bool:
        """Return whether anything is limited."""
        return any(getattr(self, name) for name in self.__struct_fields__)


class Quota:
    """
    One quota of a scope: its name, what it counts, and how often it has refused something.

    :ivar name: for programs, such as ``requests-by-address``.
    :ivar kind: what it counts, such as ``requests``; the value of a metric's label.
    :ivar scope: ``address`` or ``principal``.
    :ivar refusals: how often it has refused something.
    :ivar delays: how often it has slowed down an answer.
    """

    __slots__ = ("delays", "kind", "name", "policy", "refusals", "scope", "sentence")

    def __init__(self, kind: str, scope: str, policy: str, sentence: str) -> None:
        self.kind = kind
        self.scope = scope
        self.name = f"{kind}-by-{scope}"
        self.policy = f'"{self.name}";{policy}'
        self.sentence = sentence
        self.refusals = self.delays = 0

    def refuse(self, wait: float) -> RateLimited:
        """
        Count a refusal, and return its error.

        :param wait: in how many seconds the same request may be allowed.
        """
        self.refusals += 1
        seconds = max(1, ceil(wait))
        plural = "" if seconds == 1 else "s"
        return RateLimited(f"{self.sentence} Retry in {seconds} second{plural}.", self.name, self.policy, seconds)


class RateQuota(Quota):
    """
    A quota that is a rate.

    :ivar meter: applies the rate to accounts.
    """

    __slots__ = ("low", "meter")

    def __init__(self, kind: str, scope: str, meter: Meter, unit: str, sentence: str) -> None:
        rate = meter.rate
        # The fields have whole seconds: a burst that lasts less is advertised as what one second gives.
        quota = int(rate.burst if rate.window > 1 else max(rate.burst, rate.per_second))
        super().__init__(kind, scope, f"q={quota};{unit}w={rate.window}", sentence)
        self.meter = meter
        #: From how long a wait for a full bucket on little is left, in seconds: less than a fifth.
        self.low = 0.8 * rate.burst * rate.interval

    def remaining(self, account: Account, now: float) -> tuple[int, int]:
        """Return how many units are left, and in how many seconds there will be all."""
        return self.meter.remaining(account, now), max(0, ceil(self.meter.until_full(account, now)))


class Scope:
    """
    The quotas of one scope with their accounts; those that are not limited are None.

    :param name: ``address`` or ``principal``; sentences name the settings ``quotas.address`` or ``quotas.principal``.
    :param width: the number of columns of the sketches.
    """

    def __init__(self, name: str, quotas: ScopeQuotas, now: Callable[[], float], width: int) -> None:
        rates = (quotas.requests, quotas.bytes_in, quotas.bytes_out, quotas.creations, quotas.failures, quotas.connects)
        self.ledger: Ledger = Ledger(rates, now, width=width)
        self.settings = quotas

        def sentence(what: str, key: str) -> str:
            return f"This {name} {what} (quotas.{name}.{key})."

        def rate(place: int, kind: str, unit: str, what: str, key: str) -> RateQuota | None:
            meter = self.ledger.meters[place]
            return None if meter is None else RateQuota(kind, name, meter, unit, sentence(what, key))

        def count(limit: int, kind: str, unit: str, what: str, key: str) -> Quota | None:
            policy = f'q={limit};qu="{unit}"'
            return Quota(kind, name, policy, sentence(what, key)) if limit else None

        content = 'qu="content-bytes";'
        self.requests = rate(0, "requests", "", "sends too many requests", "requests_per_sec")
        self.bytes_in = rate(1, "bytes-in", content, "sends too many bytes", "bytes_in_per_sec")
        self.bytes_out = rate(2, "bytes-out", content, "reads too many bytes", "bytes_out_per_sec")
        self.creations = rate(3, "creations", "", "creates too many streams", "creations_per_hour")
        self.failures = rate(4, "failures", "", "fails to authenticate too often", "failed_authentications_per_min")
        self.connects = rate(5, "connects", "", "opens too many connections", "connections_per_sec")
        self.live_reads = count(
            quotas.live_reads, "live-reads", "concurrent-requests", "has too many live reads", "max_live_reads"
        )
        self.connections = count(
            quotas.connections, "connections", "concurrent-requests", "has too many connections", "max_connections"
        )
        self.incoming = count(
            quotas.incoming_bytes,
            "incoming-bytes",
            "content-bytes",
            "sends too many bodies at once",
            "max_incoming_bytes",
        )

    def all(self) -> list[Quota]:
        """Return the quotas that are limited."""
        every = (
            *(self.requests, self.bytes_in, self.bytes_out, self.creations, self.failures, self.connects),
            *(self.live_reads, self.connections, self.incoming),
        )
        return [quota for quota in every if quota is not None]


class Quotas:
    """
    The quotas of all addresses and principals of a process.

    Principals are counted by their subjects. A client without one, who is anonymous, is counted as a principal by its
    address.

    :param seconds: a steady clock (:mod:`..clocks`).
    :ivar now: the time of all buckets: the seconds since this was made.
    :ivar by_address: the quotas of one address.
    :ivar by_principal: the quotas of one principal.
    """

    def __init__(self, by_address: ScopeQuotas, by_principal: ScopeQuotas, seconds: Callable[[], float]) -> None:
        origin = seconds()
        self.now: Callable[[], float] = lambda: seconds() - origin
        self.by_address = Scope("address", by_address, self.now, WIDTH)
        self.by_principal = Scope("principal", by_principal, self.now, _PRINCIPALS)

    def all(self) -> list[Quota]:
        """Return all quotas that are limited, for metrics."""
        return self.by_address.all() + self.by_principal.all()

    def begin_attempt(self, address: str) -> float:
        """
        Count an attempt of an address to authenticate with credentials that are not known yet.

        To be called before a signature or a hash is computed.

        :returns: when it began, for :meth:`succeeded`.
        :raises RateLimited: the address has failed too often.
        """
        quota = self.by_address.failures
        now = self.now()
        if quota is not None and address not in NOT_COUNTED:
            wait = quota.meter.spend(self.by_address.ledger.account(address_key(address)), 1, now)
            if wait:
                raise quota.refuse(wait)
        return now

    def succeeded(self, address: str, began: float) -> None:
        """Count an attempt no more: it has not failed."""
        quota = self.by_address.failures
        if quota is not None and address not in NOT_COUNTED:
            quota.meter.refund(self.by_address.ledger.account(address_key(address)), 1, self.now() - began)
