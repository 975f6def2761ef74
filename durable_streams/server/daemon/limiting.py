"""The quotas of a server, created from its settings."""

from __future__ import annotations

from ..clocks import IClock
from ..config.quota_sections import AddressQuotaSettings, PrincipalQuotaSettings
from ..config.settings import Settings
from ..identity.quotas import Quotas, ScopeQuotas
from ..identity.rates import Rate
from ..streams import Streams
from ..web.quotas import RequestQuotas

#: How many seconds' worth a burst has that is not set.
BURST_SECONDS = 10


def quotas_from(settings: Settings, streams: Streams, clock: IClock) -> RequestQuotas | None:
    """Create the quotas of all clients; None if nothing is limited."""
    by_address = _of_address(settings.quotas.address)
    by_principal = _of_principal(settings.quotas.principal)
    if not by_address and not by_principal:
        return None
    return RequestQuotas(Quotas(by_address, by_principal, clock.seconds), clock, streams)


def _of_address(address: AddressQuotaSettings) -> ScopeQuotas:
    return ScopeQuotas(
        requests=_rate(address.requests_per_sec, address.request_burst),
        bytes_in=_rate(address.bytes_in_per_sec, address.bytes_in_burst),
        bytes_out=_rate(address.bytes_out_per_sec, address.bytes_out_burst),
        failures=_rate_over(address.failed_authentications_per_min, 60),
        connects=_rate(address.connections_per_sec, address.connection_burst),
        live_reads=address.max_live_reads,
        connections=address.max_connections,
        incoming_bytes=address.max_incoming_bytes,
    )


def _of_principal(principal: PrincipalQuotaSettings) -> ScopeQuotas:
    return ScopeQuotas(
        requests=_rate(principal.requests_per_sec, principal.request_burst),
        bytes_in=_rate(principal.bytes_in_per_sec, principal.bytes_in_burst),
        bytes_out=_rate(principal.bytes_out_per_sec, principal.bytes_out_burst),
        creations=_rate_over(principal.creations_per_hour, 3600),
        live_reads=principal.max_live_reads,
    )


def _rate(per_second: int, burst: int) -> Rate | None:
    return Rate(per_second, burst or BURST_SECONDS * per_second) if per_second else None


def _rate_over(amount: int, seconds: int) -> Rate | None:
    """Return the rate of an amount in a time, all of which may be used at once."""
    return Rate(amount / seconds, amount) if amount else None
