"""The rules for quotas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .quota_sections import AddressQuotaSettings, PrincipalQuotaSettings
from .rules import BrokenRule, SettingsWithSources
from .sections import value_of

_SCOPES: Final = {"quotas.address": AddressQuotaSettings, "quotas.principal": PrincipalQuotaSettings}

#: Burst -> the rate that it belongs to.
_BURSTS: Final = {
    "request_burst": "requests_per_sec",
    "bytes_in_burst": "bytes_in_per_sec",
    "bytes_out_burst": "bytes_out_per_sec",
    "connection_burst": "connections_per_sec",
}

_INCOMING: Final = "quotas.address.max_incoming_bytes"
_CONNECTIONS: Final = "quotas.address.max_connections"


def check_quotas(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield negative quotas, bursts without a rate, and quotas that other limits make useless."""
    for scope, section in _SCOPES.items():
        for field in section.__struct_fields__:
            name = f"{scope}.{field}"
            if value_of(config.settings, name) < 0:
                yield BrokenRule("QuotaTooSmall", name, "0 (no limit) or more")
        for burst, rate in _BURSTS.items():
            if (
                burst in section.__struct_fields__
                and value_of(config.settings, f"{scope}.{burst}")
                and not value_of(config.settings, f"{scope}.{rate}")
            ):
                yield BrokenRule(
                    "BurstWithoutRate",
                    f"{scope}.{burst}",
                    f"0, or {scope}.{rate} more than 0, while {config.describe(f'{scope}.{rate}')}",
                )
    yield from _check_limits(config)


def _check_limits(config: SettingsWithSources) -> Iterator[BrokenRule]:
    limits, address = config.settings.limits, config.settings.quotas.address
    if 0 < address.max_incoming_bytes < limits.max_request_body_bytes:
        yield BrokenRule(
            "QuotaBelowBodyLimit",
            _INCOMING,
            "0, or large enough for the body of one request, while " + config.describe("limits.max_request_body_bytes"),
        )
    for name, limit in ((_INCOMING, "limits.max_incoming_bytes"), (_CONNECTIONS, "limits.max_connections")):
        if value_of(config.settings, name) > value_of(config.settings, limit):
            yield BrokenRule(
                "QuotaAboveLimit", name, f"0, or at most the limit for all, while {config.describe(limit)}"
            )
