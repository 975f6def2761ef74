"""Configurations of subscriptions: rules, defaults and sameness."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.subscriptions.configuration import digest, read_config
from durable_streams.server.subscriptions.errors import (
    InvalidConfig,
    InvalidPath,
    InvalidSubscriptionRequest,
    SubscriptionError,
)
from durable_streams.server.subscriptions.model import SubscriptionConfig

LIMITS = NameLimits()
URL = "https://worker.example/hook"
WEBHOOK: dict[str, object] = {"type": "webhook", "pattern": "events/*", "webhook": {"url": URL}}
PULL: dict[str, object] = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wakes"}


def read(base: dict[str, object], **changes: object) -> SubscriptionConfig:
    """Read a configuration with some members changed."""
    return read_config(json.dumps({**base, **changes}).encode(), LIMITS)


class ReadTests(SynchronousTestCase):
    def refused(self, kind: type[SubscriptionError], base: dict[str, object], **changes: object) -> SubscriptionError:
        """Return the refusal of a configuration."""
        error = self.assertRaises(kind, read, base, **changes)
        assert isinstance(error, kind)
        return error

    def test_the_example_of_the_protocol_is_accepted(self) -> None:
        config = read(
            WEBHOOK,
            streams=["events/manual-b", "events/manual-a"],
            wake_stream="wake/pool",
            lease_ttl_ms=30000,
            description="event processor",
        )
        streams = ("events/manual-a", "events/manual-b")
        expected = SubscriptionConfig("webhook", "events/*", streams, URL, None, 30_000, "event processor")
        self.assertEqual(expected, config)

    def test_the_member_of_the_other_delivery_type_is_dropped_whatever_it_is(self) -> None:
        self.assertIsNone(read(WEBHOOK, wake_stream=["?"]).wake_stream)
        self.assertIsNone(read(PULL, webhook="?").webhook_url)

    def test_null_counts_as_absent(self) -> None:
        config = read(PULL, streams=None, webhook=None, lease_ttl_ms=None, description=None, anything=None)
        self.assertEqual(SubscriptionConfig("pull-wake", "events/*", (), None, "wakes", 30_000, None), config)

    def test_missing_and_mistyped_members_are_invalid_requests(self) -> None:
        for base, changes in (
            (PULL, {"type": None}),
            (PULL, {"type": 1}),
            (PULL, {"pattern": 1}),
            (PULL, {"streams": "a"}),
            (PULL, {"streams": [1]}),
            (PULL, {"wake_stream": None}),
            (PULL, {"wake_stream": 1}),
            (PULL, {"lease_ttl_ms": "1000"}),
            (PULL, {"lease_ttl_ms": True}),
            (PULL, {"lease_ttl_ms": 1000.5}),
            (PULL, {"description": 1}),
            (WEBHOOK, {"webhook": None}),
            (WEBHOOK, {"webhook": URL}),
            (WEBHOOK, {"webhook": {}}),
            (WEBHOOK, {"webhook": {"url": 1}}),
        ):
            self.refused(InvalidSubscriptionRequest, base, **changes)

    def test_rules_of_the_configuration_name_the_field(self) -> None:
        for base, field, changes in (
            (PULL, "type", {"type": "push"}),
            (PULL, "pattern", {"pattern": None}),
            (PULL, "pattern", {"pattern": "", "streams": []}),
            (PULL, "pattern", {"pattern": "/"}),
            (PULL, "pattern", {"pattern": "a*"}),
            (PULL, "streams", {"streams": [f"s/{n}" for n in range(1001)]}),
            (PULL, "lease_ttl_ms", {"lease_ttl_ms": 999}),
            (PULL, "lease_ttl_ms", {"lease_ttl_ms": 600_001}),
            (PULL, "lease_ttl_ms", {"lease_ttl_ms": -1}),
            (PULL, "description", {"description": "é" * 513}),
            (PULL, "wake_stream", {"wake_stream": "events/wakes"}),
            (PULL, "wake_stream", {"streams": ["/wakes/"]}),
            (PULL, "lease", {"lease": 5}),
            (WEBHOOK, "webhook.secret", {"webhook": {"url": URL, "secret": "x"}}),
        ):
            error = self.refused(InvalidConfig, base, **changes)
            assert isinstance(error, InvalidConfig)
            self.assertEqual(field, error.field, changes)

    def test_paths_that_are_no_names_are_refused(self) -> None:
        for changes in (
            {"streams": ["a//b"]},
            {"streams": [""]},
            {"streams": ["__ds/x"]},
            {"wake_stream": "/"},
            {"wake_stream": "a/../b"},
            {"pattern": "a//b"},
            {"pattern": "__ds/**"},
        ):
            self.refused(InvalidPath, PULL, **changes)

    def test_limits_are_inclusive(self) -> None:
        for ttl in (1_000, 600_000, 2e3):
            self.assertEqual(int(ttl), read(PULL, lease_ttl_ms=ttl).lease_ttl_ms)
        self.assertEqual(1000, len(read(PULL, streams=[f"s/{n}" for n in range(1000)]).streams))
        self.assertEqual("x" * 1024, read(PULL, description="x" * 1024).description)

    def test_a_message_does_not_repeat_a_long_name(self) -> None:
        self.assertLess(len(str(self.refused(InvalidConfig, PULL, **{"x" * 100_000: 1}))), 300)
        self.assertLess(len(str(self.refused(InvalidConfig, PULL, type="x" * 100_000))), 300)


class DigestTests(SynchronousTestCase):
    def test_the_same_configuration_in_another_form_has_the_same_digest(self) -> None:
        first = read(PULL, streams=["a", "b"])
        for other in (
            read(PULL, streams=["b", "a", "b"], lease_ttl_ms=30_000),
            read(PULL, streams=["/a/", "b/"], pattern="/events/*", wake_stream="/wakes/"),
            read(PULL, streams=["a", "b"], webhook={"url": URL}, description=None),
        ):
            self.assertEqual(digest(first), digest(other))

    def test_each_field_changes_the_digest(self) -> None:
        configs = [
            read(PULL),
            read(PULL, pattern="events/**"),
            read(PULL, streams=["a"]),
            read(PULL, streams=["a", "b"]),
            read(PULL, wake_stream="others"),
            read(PULL, lease_ttl_ms=29_999),
            read(PULL, description=""),
            read(PULL, description="x"),
            read(WEBHOOK),
            read(WEBHOOK, webhook={"url": URL + "/"}),
        ]
        self.assertEqual(len(configs), len({digest(config) for config in configs}))

    def test_the_digest_does_not_depend_on_the_version_of_the_server(self) -> None:
        config = SubscriptionConfig("pull-wake", "a/*", ("b",), None, "w", 1000, "d")
        self.assertEqual("e77d607816d8a5e4b147620141b992f8c639d78121b7e8b51539e77f3a022a46", digest(config).hex())

    @given(st.lists(st.text('ab,"[]', min_size=1), max_size=3), st.lists(st.text('ab,"[]', min_size=1), max_size=3))
    def test_different_streams_have_different_digests(self, one: list[str], other: list[str]) -> None:
        first, second = (SubscriptionConfig("webhook", None, tuple(streams)) for streams in (one, other))
        self.assertEqual(one == other, digest(first) == digest(second))
