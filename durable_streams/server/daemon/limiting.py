"""The quotas of a server, created from its settings."""

from __future__ import annotations

from msgspec.structs import replace

from ..clocks import IClock
from ..config.quota_sections import AddressQuotaSettings, PrincipalQuotaSettings, ScopeQuotaSettings
from ..config.settings import Settings
from ..identity.quotas import Quotas, ScopeQuotas
from ..identity.rates import Rate
from ..streams import Streams
from ..web.quotas import RequestQuotas

#: A burst that is not set is what the rate gives in this time, in seconds.
BURST_SECONDS = 10


def quotas_from(settings: Settings, streams: Streams, clock: IClock) -> RequestQuotas | None:
    """Create the quotas of all clients; None if nothing is limited."""
    by_address = _of_address(settings.quotas.address)
    by_principal = _of_principal(settings.quotas.principal)
    if not by_address and not by_principal:
        return None
    return RequestQuotas(Quotas(by_address, by_principal, clock.seconds), clock, streams)


def _of_address(address: AddressQuotaSettings) -> ScopeQuotas:
    return replace(
        _of_scope(address),
        failures=_rate_over(address.failed_authentications_per_min, 60),
        connects=_rate(address.connections_per_sec, address.connection_burst),
        connections=address.max_connections,
        incoming_bytes=address.max_incoming_bytes,
    )


def _of_principal(principal: PrincipalQuotaSettings) -> ScopeQuotas:
    return replace(_of_scope(principal), creations=_rate_over(principal.creations_per_hour, 3600))


def _of_scope(scope: ScopeQuotaSettings) -> ScopeQuotas:
    """Return the quotas that addresses and principals have."""
    return ScopeQuotas(
        requests=_rate(scope.requests_per_sec, scope.request_burst),
        bytes_in=_rate(scope.bytes_in_per_sec, scope.bytes_in_burst),
        bytes_out=_rate(scope.bytes_out_per_sec, scope.bytes_out_burst),
        live_reads=scope.max_live_reads,
    )


def _rate(per_second: int, burst: int) -> Rate | None:
    return Rate(per_second, burst or BURST_SECONDS * per_second) if per_second else None


def _rate_over(amount: int, seconds: int) -> Rate | None:
    """Return the rate of an amount in a time, all of which may be used at once."""
    return Rate(amount / seconds, amount) if amount else None
