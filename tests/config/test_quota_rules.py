"""Tests of the rules for quotas, and of the quotas that settings make."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError
from durable_streams.server.daemon.limiting import quotas_from
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams

MIB = 1_048_576


class QuotaRulesTests(SynchronousTestCase):
    def broken(self, **given: int) -> ConfigError:
        """Return the error for settings of one address."""
        values = {f"quotas.address.{name}": value for name, value in given.items()}
        error: ConfigError = self.assertRaises(ConfigError, Settings.from_mapping, values)
        self.assertEqual("validate_config", error.phase)
        return error

    def test_a_negative_quota_is_refused(self) -> None:
        error = self.broken(requests_per_sec=-1)
        self.assertEqual("QuotaTooSmall", error.rule)
        self.assertIn("quotas.address.requests_per_sec must be 0 (no limit) or more", str(error))

    def test_a_burst_needs_its_rate(self) -> None:
        error = self.broken(bytes_in_burst=1000)
        self.assertEqual("BurstWithoutRate", error.rule)
        self.assertIn("quotas.address.bytes_in_per_sec more than 0", str(error))

    def test_the_bodies_of_an_address_have_room_for_one_and_fit_into_those_of_all(self) -> None:
        self.assertEqual("QuotaBelowBodyLimit", self.broken(max_incoming_bytes=MIB).rule)
        self.assertEqual("QuotaAboveLimit", self.broken(max_incoming_bytes=300 * MIB).rule)
        Settings.from_mapping({"quotas.address.max_incoming_bytes": 20 * MIB})

    def test_an_address_may_not_have_more_connections_than_all(self) -> None:
        self.assertEqual("QuotaAboveLimit", self.broken(max_connections=20_000).rule)


class QuotasFromTests(SynchronousTestCase):
    def policies(self, **values: int) -> list[str]:
        """Return the policies of the quotas that settings make."""
        clock = clock_of(Clock())
        given = {f"quotas.{name.replace('__', '.')}": value for name, value in values.items()}
        quotas = quotas_from(Settings.from_mapping(given), Streams(MemoryStorage(), clock), clock)
        return [] if quotas is None else [quota.policy for quota in quotas.quotas.all()]

    def test_nothing_is_limited_by_default(self) -> None:
        self.assertEqual([], self.policies())

    def test_a_burst_is_ten_seconds_worth_unless_it_is_set(self) -> None:
        self.assertEqual(
            ['"requests-by-address";q=50;w=10', '"bytes-out-by-principal";q=20;qu="content-bytes";w=4'],
            self.policies(address__requests_per_sec=5, principal__bytes_out_per_sec=5, principal__bytes_out_burst=20),
        )

    def test_quotas_of_minutes_and_hours_may_be_used_at_once(self) -> None:
        self.assertEqual(
            ['"failures-by-address";q=10;w=60', '"creations-by-principal";q=100;w=3600'],
            self.policies(address__failed_authentications_per_min=10, principal__creations_per_hour=100),
        )

    def test_numbers_of_things_under_way_are_quotas(self) -> None:
        self.assertEqual(
            [
                '"live-reads-by-address";q=5;qu="concurrent-requests"',
                '"connections-by-address";q=6;qu="concurrent-requests"',
                '"incoming-bytes-by-address";q=20971520;qu="content-bytes"',
                '"live-reads-by-principal";q=7;qu="concurrent-requests"',
            ],
            self.policies(
                address__max_live_reads=5,
                address__max_connections=6,
                address__max_incoming_bytes=20 * MIB,
                principal__max_live_reads=7,
            ),
        )
