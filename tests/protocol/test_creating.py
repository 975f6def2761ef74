from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamExists
from durable_streams.server.model import FOREVER, Fork, Lifetime, StreamConfig
from durable_streams.server.protocol.creating import check_same

from .samples import facts

HOUR = Lifetime(ttl=3600)
LATER = Lifetime(expires_at=2e9)


def difference(
    asked: StreamConfig,
    made_with: StreamConfig = StreamConfig(),  # noqa: B008 (frozen)
    content_type: str = "application/octet-stream",
    lifetime: Lifetime | None = None,
    closed: bool = False,
    same_point: bool = True,
) -> str | None:
    """Return the difference that the error names, or None if the configurations are the same."""
    own = made_with.lifetime if lifetime is None else lifetime
    try:
        check_same(asked, made_with, facts(content_type), own, closed, same_point)
    except StreamExists as error:
        return error.difference
    return None


class SameTests(SynchronousTestCase):
    def test_the_same_configuration_is_accepted(self) -> None:
        for content_type, lifetime in product(
            ("text/plain", "application/json; charset=utf-8"), (FOREVER, HOUR, LATER)
        ):
            config = StreamConfig(content_type, lifetime)
            self.assertIsNone(difference(config, config, content_type))

    def test_content_types_are_compared_without_case_and_parameters(self) -> None:
        asked = StreamConfig("Application/JSON;charset=utf-8")
        self.assertIsNone(difference(asked, content_type="application/json"))

    def test_a_missing_content_type_equals_the_default_type(self) -> None:
        self.assertIsNone(difference(StreamConfig()))
        self.assertIsNone(difference(StreamConfig("application/octet-stream")))
        self.assertIn("content type", difference(StreamConfig(), content_type="text/plain") or "")

    def test_another_content_type_is_a_conflict_that_names_the_streams_type(self) -> None:
        asked = StreamConfig("text/html")
        self.assertEqual("content type: it is text/plain", difference(asked, content_type="text/plain"))

    def test_the_error_has_the_streams_name_and_the_difference(self) -> None:
        error = self.assertRaises(
            StreamExists, check_same, StreamConfig("a/b"), StreamConfig(), facts(), FOREVER, False, True
        )
        self.assertEqual("room/1", error.name)
        self.assertIn("content type: it is text/plain", str(error))


class ClosureTests(SynchronousTestCase):
    def test_closure_is_compared_with_the_streams_present_state(self) -> None:
        made_open, made_closed = StreamConfig(), StreamConfig(closed=True)
        for asked, made_with, closed in product((made_open, made_closed), (made_open, made_closed), (True, False)):
            found = difference(asked, made_with, closed=closed)
            if asked.closed == closed:
                self.assertIsNone(found)
            else:
                self.assertIn("closure", found or "")


class LifetimeTests(SynchronousTestCase):
    def test_another_lifetime_is_a_conflict(self) -> None:
        lifetimes = (FOREVER, HOUR, LATER, Lifetime(ttl=60), Lifetime(expires_at=2e9 + 1), Lifetime(ttl=0))
        for asked, made in product(lifetimes, lifetimes):
            found = difference(StreamConfig(lifetime=asked), StreamConfig(lifetime=made))
            self.assertEqual(None if asked == made else "lifetime", found)


class ForkTests(SynchronousTestCase):
    fork = Fork("source")

    def test_another_fork_point_is_a_conflict(self) -> None:
        config = StreamConfig(fork=self.fork)
        self.assertIsNone(difference(config, config, same_point=True))
        self.assertEqual("source or fork offset", difference(config, config, same_point=False))

    def test_a_fork_without_content_type_matches_its_source(self) -> None:
        asked = StreamConfig(fork=self.fork)
        self.assertIsNone(difference(asked, asked, "application/json"))

    def test_a_fork_with_another_content_type_than_its_source_is_a_conflict(self) -> None:
        asked = StreamConfig("text/plain", fork=self.fork)
        self.assertIn("content type", difference(asked, asked, "application/json") or "")

    def test_an_inherited_lifetime_may_be_stated_or_omitted(self) -> None:
        made_with = StreamConfig(fork=self.fork)
        for asked in (FOREVER, HOUR):
            config = StreamConfig(lifetime=asked, fork=self.fork)
            self.assertIsNone(difference(config, made_with, lifetime=HOUR))
        other = StreamConfig(lifetime=Lifetime(ttl=60), fork=self.fork)
        self.assertEqual("lifetime", difference(other, made_with, lifetime=HOUR))
