"""The sections of quotas. Every quota is 0 for no limit, which is the default."""

from __future__ import annotations

from .section import Section


class ScopeQuotaSettings(Section, frozen=True):
    """
    What an address and a principal may both be limited to.

    :ivar request_burst: 0 for what the rate gives in ten seconds; so are the other bursts.
    """

    requests_per_sec: int = 0
    request_burst: int = 0
    bytes_in_per_sec: int = 0
    bytes_in_burst: int = 0
    bytes_out_per_sec: int = 0
    bytes_out_burst: int = 0
    max_live_reads: int = 0


class AddressQuotaSettings(ScopeQuotaSettings, frozen=True):
    """What one address may use: an IPv4 address, or a network of 64 bits of IPv6 addresses."""

    failed_authentications_per_min: int = 0
    connections_per_sec: int = 0
    connection_burst: int = 0
    max_connections: int = 0
    max_incoming_bytes: int = 0


class PrincipalQuotaSettings(ScopeQuotaSettings, frozen=True):
    """What one principal may use. An anonymous client is counted by its address."""

    creations_per_hour: int = 0


class QuotaSettings(Section, frozen=True):
    """How much one address, and one principal, may use of each process of the server."""

    address: AddressQuotaSettings = AddressQuotaSettings()
    principal: PrincipalQuotaSettings = PrincipalQuotaSettings()
