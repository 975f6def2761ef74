"""Quotas of addresses and principals: names, sentences, fields, and failed authentications."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import RateLimited
from durable_streams.server.identity.quotas import Quotas, ScopeQuotas
from durable_streams.server.identity.rates import Rate


class QuotasTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def quotas(self, address: ScopeQuotas = ScopeQuotas(), principal: ScopeQuotas = ScopeQuotas()) -> Quotas:  # noqa: B008
        return Quotas(address, principal, self.clock.seconds)

    def test_quotas_that_are_not_set_do_not_exist(self) -> None:
        self.assertEqual([], self.quotas().all())
        self.assertFalse(ScopeQuotas())
        self.assertTrue(ScopeQuotas(live_reads=1))

    def test_policies_are_items_of_the_field(self) -> None:
        quotas = self.quotas(
            ScopeQuotas(
                Rate(50, 200), Rate(1000, 5000), Rate(1000, 500), None, Rate(1 / 6, 10), Rate(5, 50), 20, 30, 4000
            ),
            ScopeQuotas(Rate(0.5, 1), creations=Rate(100 / 3600, 100)),
        )
        self.assertEqual(
            [
                '"requests-by-address";q=200;w=4',
                '"bytes-in-by-address";q=5000;qu="content-bytes";w=5',
                '"bytes-out-by-address";q=1000;qu="content-bytes";w=1',
                '"failures-by-address";q=10;w=60',
                '"connects-by-address";q=50;w=10',
                '"live-reads-by-address";q=20;qu="concurrent-requests"',
                '"connections-by-address";q=30;qu="concurrent-requests"',
                '"incoming-bytes-by-address";q=4000;qu="content-bytes"',
                '"requests-by-principal";q=1;w=2',
                '"creations-by-principal";q=100;w=3600',
            ],
            [quota.policy for quota in quotas.all()],
        )

    def test_a_refusal_names_the_setting_and_rounds_the_time_up(self) -> None:
        quota = self.quotas(ScopeQuotas(Rate(50, 200))).by_address.requests
        assert quota is not None
        error = quota.refuse(1.2)
        self.assertEqual(
            "This address sends too many requests (quotas.address.requests_per_sec). Retry in 2 seconds.", str(error)
        )
        self.assertEqual(2, error.retry_after)
        self.assertEqual("Retry in 1 second.", str(quota.refuse(0.01))[-18:])
        self.assertEqual(2, quota.refusals)

    def test_failures_to_authenticate_are_refused_before_the_next_attempt(self) -> None:
        quotas = self.quotas(ScopeQuotas(failures=Rate(1 / 6, 3)))
        for _ in range(3):
            quotas.begin_attempt("192.0.2.1")
        error = self.assertRaises(RateLimited, quotas.begin_attempt, "192.0.2.1")
        self.assertEqual(6, error.retry_after)
        quotas.begin_attempt("192.0.2.2")
        self.clock.advance(6.1)
        quotas.begin_attempt("192.0.2.1")

    def test_attempts_that_succeed_cost_nothing(self) -> None:
        quotas = self.quotas(ScopeQuotas(failures=Rate(1 / 6, 1)))
        for _ in range(100):
            quotas.succeeded("192.0.2.1", quotas.begin_attempt("192.0.2.1"))
        self.assertEqual(0, sum(quota.refusals for quota in quotas.all()))

    def test_attempts_at_the_same_time_are_limited_although_none_has_failed_yet(self) -> None:
        quotas = self.quotas(ScopeQuotas(failures=Rate(1 / 6, 2)))
        begun = [quotas.begin_attempt("192.0.2.1") for _ in range(2)]
        self.assertRaises(RateLimited, quotas.begin_attempt, "192.0.2.1")
        quotas.succeeded("192.0.2.1", begun[0])
        quotas.begin_attempt("192.0.2.1")

    def test_clients_of_a_unix_socket_are_not_counted(self) -> None:
        quotas = self.quotas(ScopeQuotas(failures=Rate(1 / 6, 1)))
        for address in ("unix", ""):
            for _ in range(3):
                quotas.begin_attempt(address)
        self.assertEqual(0, sum(quota.refusals for quota in quotas.all()))
