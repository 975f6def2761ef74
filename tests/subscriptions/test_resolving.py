"""Look-ups of host names in threads."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from threading import Event

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import TestCase

from durable_streams.server.subscriptions.addresses import Address
from durable_streams.server.subscriptions.resolving import ThreadedResolver, system_addresses


class ResolvingTests(TestCase):
    def setUp(self) -> None:
        self.gate = Event()
        self.addCleanup(self.gate.set)
        self.asked: list[str] = []

    def slow(self, host: str) -> Sequence[Address]:
        """Answer when the gate is open."""
        self.asked.append(host)
        self.gate.wait(10)
        return [ip_address("93.184.216.34")]

    async def test_localhost_is_resolved_by_the_system(self) -> None:
        addresses = await ThreadedResolver(reactor)("localhost")
        self.assertTrue(addresses)
        self.assertTrue(all(address.is_loopback for address in addresses))
        self.assertEqual(len(set(addresses)), len(addresses))

    async def test_an_unknown_host_is_a_look_up_error(self) -> None:
        with self.assertRaises(DNSLookupError):
            await ThreadedResolver(reactor)("unknown.invalid")
        for host in ("a" * 64, "\x00"):
            self.assertRaises(DNSLookupError, system_addresses, host)

    async def test_look_ups_of_one_name_share_a_thread(self) -> None:
        resolver = ThreadedResolver(reactor, self.slow)
        answers = [resolver("a.example") for _ in range(100)]
        answers[0].cancel()
        with self.assertRaises(CancelledError):
            await answers.pop(0)
        self.gate.set()
        found = await gatherResults(answers)
        self.assertEqual([[ip_address("93.184.216.34")]] * 99, found)
        self.assertEqual(["a.example"], self.asked)
        await resolver("a.example")
        self.assertEqual(2, len(self.asked))

    async def test_at_most_64_look_ups_run(self) -> None:
        resolver = ThreadedResolver(reactor, self.slow)
        answers = [resolver(f"{number}.example") for number in range(64)]
        with self.assertRaises(DNSLookupError):
            await resolver("one.more.example")
        self.gate.set()
        await gatherResults(answers)
        await resolver("one.more.example")
        self.assertEqual(65, len(self.asked))

    async def test_an_error_of_the_look_up_is_passed_on(self) -> None:
        def broken(_: str) -> Sequence[Address]:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await ThreadedResolver(reactor, broken)("a.example")
