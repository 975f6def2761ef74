"""Tests of docs/quotas.rst: its settings are valid, and its answer is the server's."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Final

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.limiting import quotas_from
from durable_streams.server.identity.rates import DEPTH, RECENT, WIDTH, Sketch
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.web.problems import problem

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "quotas.rst").read_text()


def block(begin: str) -> str:
    """Return the block of the page that begins with a line."""
    match = re.search(rf"(?m)^    {re.escape(begin)}\n(?:    .*\n|\n)*", PAGE)
    assert match is not None, begin
    return textwrap.dedent(match[0]).rstrip() + "\n"


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = clock_of(Clock())
        settings = Settings.from_mapping(tomllib.loads(block("[quotas.address]")))
        found = quotas_from(settings, Streams(MemoryStorage(), clock), clock)
        assert found is not None
        self.quotas = found.quotas

    def test_the_settings_are_valid_and_limit_everything(self) -> None:
        self.assertEqual(13, len(self.quotas.all()))
        table = PAGE.partition("\nQuota ")[2].partition("\nA quota per second")[0]
        names = set(re.findall(r"(?m)^``(\w+)`` +\w", table))
        limited = set(tomllib.loads(block("[quotas.address]"))["quotas"]["address"]) - {
            "request_burst",
            "connection_burst",
        }
        self.assertEqual(limited | {"creations_per_hour"}, names)

    def test_the_answer_is_that_of_the_server(self) -> None:
        quota = self.quotas.by_address.requests
        assert quota is not None
        status, lines, body, _ = problem(quota.refuse(1.5), "/v1/stream/demo")
        head, _, example = block(f"HTTP/1.1 {status} Too Many Requests").partition("\n\n")
        self.assertEqual(lines.decode().replace("\r\n", "\n"), head.partition("\n")[2] + "\n")
        self.assertEqual(body.decode(), re.sub(r"\n ?", "", example))

    def test_the_numbers_of_the_accuracy_are_those_of_the_code(self) -> None:
        self.assertIn(f"the {RECENT:,} addresses", PAGE)
        self.assertIn(rf"(N / {WIDTH:,})\ :sup:`{DEPTH}`", PAGE)
        self.assertIn(f"the number is {self.quotas.by_principal.ledger._width:,} instead of {WIDTH:,}", PAGE)
        ledgers = [scope.ledger for scope in (self.quotas.by_address, self.quotas.by_principal)]
        sizes = [Sketch(ledger._width).size for ledger in ledgers for meter in ledger.meters if meter is not None]
        self.assertIn(f"up to {sum(sizes) / 1_048_576:g} MiB together", PAGE)
