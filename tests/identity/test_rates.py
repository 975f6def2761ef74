"""Token buckets: never more than the rate and a burst, however requests are interleaved, in constant memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.rates import Account, Ledger, Meter, Rate, Sketch, address_key


def ledger_of(rate: Rate, clock: Clock, recent: int = 8, width: int = 64) -> tuple[Ledger, Meter]:
    origin = clock.seconds()
    ledger = Ledger([rate], lambda: clock.seconds() - origin, recent, width)
    meter = ledger.meters[0]
    assert meter is not None
    return ledger, meter


_RATES = st.builds(
    Rate, st.floats(0.01, 1000, allow_nan=False), st.floats(1, 50, allow_nan=False, allow_infinity=False)
)
_STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.floats(0, 3, allow_nan=False), st.floats(0.1, 4, allow_nan=False)), max_size=60
)


class BucketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)

    def test_a_burst_is_spent_at_once_and_then_the_rate(self) -> None:
        ledger, meter = ledger_of(Rate(10, 5), self.clock)
        account = ledger.account("a")
        self.assertEqual([0.0] * 5, [meter.spend(account, 1, ledger.now()) for _ in range(5)])
        self.assertAlmostEqual(0.1, meter.spend(account, 1, ledger.now()))
        self.clock.advance(0.101)
        self.assertEqual(0.0, meter.spend(account, 1, ledger.now()))
        self.assertGreater(meter.spend(account, 1, ledger.now()), 0)

    def test_a_refusal_costs_nothing(self) -> None:
        ledger, meter = ledger_of(Rate(1, 1), self.clock)
        account = ledger.account("a")
        meter.spend(account, 1, ledger.now())
        for _ in range(100):
            self.assertAlmostEqual(1.0, meter.spend(account, 1, ledger.now()))
        self.clock.advance(1)
        self.assertEqual(0.0, meter.spend(account, 1, ledger.now()))

    def test_a_charge_makes_debts_that_delay_the_next_request(self) -> None:
        ledger, meter = ledger_of(Rate(1000, 2000), self.clock)
        account = ledger.account("a")
        meter.charge(account, 12_000, ledger.now())
        self.assertAlmostEqual(10.0, meter.wait(account, ledger.now()))
        self.assertEqual(0, meter.remaining(account, ledger.now()))
        self.clock.advance(10)
        self.assertLessEqual(meter.wait(account, ledger.now()), 0)
        self.clock.advance(1)
        self.assertEqual(1000, meter.remaining(account, ledger.now()))

    def test_single_bytes_count_at_a_high_rate_long_after_1970(self) -> None:
        ledger, meter = ledger_of(Rate(1e9, 1000), self.clock)
        account = ledger.account("a")
        for _ in range(1000):
            self.assertEqual(0.0, meter.spend(account, 1, ledger.now()))
        self.clock.advance(1e-9)
        spent = [meter.spend(account, 1, ledger.now()) for _ in range(10)]
        self.assertGreater(max(spent), 0)

    def test_a_refund_gives_back_what_was_not_gained_since(self) -> None:
        ledger, meter = ledger_of(Rate(1, 2), self.clock)
        account = ledger.account("a")
        meter.spend(account, 1, ledger.now())
        meter.spend(account, 1, ledger.now())
        meter.refund(account, 1, 0.25)
        self.assertAlmostEqual(0.25, meter.spend(account, 1, ledger.now()))
        meter.refund(account, 1, 5.0)
        self.assertAlmostEqual(0.25, meter.spend(account, 1, ledger.now()))

    @given(_RATES, _STEPS)
    def test_never_more_than_rate_and_burst_for_one_key(
        self, rate: Rate, steps: Sequence[tuple[int, float, float]]
    ) -> None:
        """However the requests of keys are interleaved, and whichever accounts were forgotten in between."""
        clock = Clock()
        ledger, meter = ledger_of(rate, clock, recent=2, width=4)
        spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for key, pause, units in steps:
            clock.advance(pause)
            name = f"key {key}"
            if not meter.spend(ledger.account(name), units, ledger.now()):
                spent[name].append((clock.seconds(), units))
        for taken in spent.values():
            for first in range(len(taken)):
                total = 0.0
                for at, units in taken[first:]:
                    total += units
                    allowed = rate.burst + rate.per_second * (at - taken[first][0])
                    self.assertLessEqual(total, allowed * (1 + 1e-6) + 1e-5)

    @given(_RATES, _STEPS)
    def test_a_key_whose_account_is_exact_gets_all_that_it_may_have(
        self, rate: Rate, steps: Sequence[tuple[int, float, float]]
    ) -> None:
        """A bucket of tokens that is filled step by step decides the same."""
        clock = Clock()
        ledger, meter = ledger_of(rate, clock, recent=100)
        tokens: dict[str, float] = defaultdict(lambda: rate.burst)
        last: dict[str, float] = {}
        for key, pause, units in steps:
            clock.advance(pause)
            name, now = f"key {key}", clock.seconds()
            tokens[name] = min(rate.burst, tokens[name] + (now - last.get(name, now)) * rate.per_second)
            last[name] = now
            refused = meter.spend(ledger.account(name), units, ledger.now()) > 0
            if abs(tokens[name] - units) > 1e-4 * (1 + rate.per_second):
                self.assertEqual(tokens[name] < units, refused, (tokens[name], units))
            if not refused:
                tokens[name] -= units

    @given(_RATES, _STEPS)
    def test_debts_delay_for_as_long_as_the_rate_takes_to_pay_them(
        self, rate: Rate, steps: Sequence[tuple[int, float, float]]
    ) -> None:
        clock = Clock()
        ledger, meter = ledger_of(rate, clock, recent=2, width=4)
        charged: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for key, pause, units in steps:
            clock.advance(pause)
            name = f"key {key}"
            account = ledger.account(name)
            if meter.wait(account, ledger.now()) <= 0:
                meter.charge(account, units, ledger.now())
                charged[name].append((clock.seconds(), units))
        for taken in charged.values():
            for first in range(len(taken)):
                total = 0.0
                for at, units in taken[first:]:
                    # What was too much is that of one charge.
                    allowed = rate.burst + rate.per_second * (at - taken[first][0])
                    self.assertLessEqual(total, allowed * (1 + 1e-6) + 1e-5)
                    total += units


class SketchTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.floats(0, 1e6)), max_size=50))
    def test_no_time_is_found_before_one_that_was_recorded(self, records: list[tuple[bytes, float]]) -> None:
        sketch = Sketch(width=8)
        latest: dict[bytes, float] = {}
        for places, at in records:
            sketch.record(places, at)
            latest[places] = max(at, latest.get(places, 0.0))
        for places, at in latest.items():
            self.assertGreaterEqual(sketch.read(places), at)

    def test_a_key_is_mistaken_for_others_as_rarely_as_documented(self) -> None:
        clock = Clock()
        ledger, meter = ledger_of(Rate(0.001, 1), clock, recent=1, width=1024)
        for key in range(512):
            meter.spend(ledger.account(f"spent {key}"), 1, ledger.now())
        mistaken = sum(meter.spend(ledger.account(f"fresh {key}"), 0.0, ledger.now()) > 0 for key in range(1000))
        self.assertEqual(0, mistaken)
        found = sum(ledger.account(f"other {key}").times[0] > 0 for key in range(2000))
        # (1 - exp(-1/2)) ** 4 is 2.4 %.
        self.assertTrue(10 <= found <= 100, found)


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_a_million_keys_take_no_more_memory_than_some_thousand(self) -> None:
        ledger, meter = ledger_of(Rate(1, 5), self.clock, recent=1000, width=4096)
        for key in range(20_000):
            meter.spend(ledger.account(f"key {key}"), 5, ledger.now())
        self.assertEqual(1000, len(ledger))
        self.assertEqual(4 * 4096 * 8, ledger.sketch_bytes)

    def test_full_buckets_are_forgotten_without_a_sketch(self) -> None:
        ledger, meter = ledger_of(Rate(1, 5), self.clock, recent=1)
        for key in range(10):
            meter.spend(ledger.account(f"key {key}"), 1, ledger.now())
            self.clock.advance(2)
        self.assertEqual(0, ledger.sketch_bytes)

    def test_a_forgotten_key_comes_back_with_an_empty_bucket(self) -> None:
        ledger, meter = ledger_of(Rate(1, 5), self.clock, recent=1)
        meter.spend(ledger.account("a"), 5, ledger.now())
        ledger.account("b")
        self.assertAlmostEqual(1.0, meter.spend(ledger.account("a"), 1, ledger.now()))

    def test_an_account_with_something_under_way_is_kept(self) -> None:
        ledger, _ = ledger_of(Rate(1, 5), self.clock, recent=1)
        account = ledger.hold("a")
        ledger.hold("a")
        for key in range(10):
            ledger.account(f"key {key}")
        self.assertIs(account, ledger.account("a"))
        ledger.release(account)
        self.assertIs(account, ledger.account("a"))
        self.assertEqual(2, len(ledger))
        ledger.release(account)
        self.assertEqual(1, len(ledger))

    def test_what_a_held_account_has_spent_is_not_forgotten_after_its_release(self) -> None:
        ledger, meter = ledger_of(Rate(1, 5), self.clock, recent=1)
        account: Account = ledger.hold("a")
        for key in range(3):
            ledger.account(f"key {key}")
        meter.charge(account, 5, ledger.now())
        ledger.release(account)
        ledger.account("b")
        self.assertGreater(meter.spend(ledger.account("a"), 1, ledger.now()), 0)

    def test_the_places_of_a_key_depend_on_a_secret(self) -> None:
        one, _ = ledger_of(Rate(1, 1), self.clock)
        other, _ = ledger_of(Rate(1, 1), self.clock)
        self.assertNotEqual(one.hash("a"), other.hash("a"))


class AddressTests(SynchronousTestCase):
    def test_ipv6_addresses_of_a_network_of_64_bits_are_one(self) -> None:
        keys = {address_key(address) for address in ("2001:db8::1", "2001:db8:0:0:ffff::", "2001:db8::2%eth0")}
        self.assertEqual({"2001:db8::/64"}, keys)
        self.assertNotEqual(address_key("2001:db8::1"), address_key("2001:db8:0:1::1"))

    def test_other_addresses_are_counted_as_they_are(self) -> None:
        for address in ("192.0.2.1", "unknown", "not:an:address", "a\udc80b"):
            self.assertEqual(address, address_key(address))

    def test_ipv4_addresses_are_counted_one_by_one(self) -> None:
        self.assertTrue(all(one != other for one, other in pairwise(map(address_key, ("10.0.0.1", "10.0.0.2")))))
