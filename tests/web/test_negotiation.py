"""Tests that refused connections are answered and recorded like requests."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.telemetry import Telemetry, request_id
from tests.support.cases import ChannelTestCase, get
from tests.support.fronts import Peer, settings_with
from tests.support.tls import TLSFront


class Noting(Telemetry):
    """A telemetry that records answers."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, int, int]] = []

    def answered(self, asked: Any, number: int, answer: Answer, began_at: float) -> None:
        self.told.append((asked, number, answer.status))


class RefusalTestCase(ChannelTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.noting = Noting()
        self.front.record_with(self.noting)

    def check(self, peer: Peer, status: int, caller: Caller) -> None:
        """Assert that the peer and telemetry got the same id once."""
        self.assertEqual(peer.statuses, [status])
        [(asked, number, noted)] = self.noting.told
        self.assertEqual((asked, noted), (caller, status))
        self.assertEqual(peer.reply.get("x-request-id"), request_id(number).decode())
        self.assertEqual(peer.reply.get("access-control-allow-origin"), "*")
        self.assertEqual(peer.reply.get("x-content-type-options"), "nosniff")


class OneTooManyTests(RefusalTestCase):
    settings = settings_with(max_connections=1)

    def test_a_refused_connection_has_an_id_and_is_recorded_once(self) -> None:
        self.front.connect()
        peer = self.front.connect()
        peer.send(get("a"))
        self.check(peer, 503, Caller("192.0.2.1"))


class OneTooManyOverTLSTests(RefusalTestCase):
    settings = settings_with(max_connections=1)
    front_type = TLSFront

    def test_a_refused_tls_connection_has_an_id_and_is_recorded_once(self) -> None:
        self.front.connect()
        peer = self.front.connect()
        self.check(peer, 503, Caller("192.0.2.1", secure=True))


class WrongVersionTests(RefusalTestCase):
    front_type = TLSFront

    def test_a_refused_http_version_has_an_id_and_is_recorded_once(self) -> None:
        self.front.channels.settings = replace(self.front.channels.settings, protocols=(b"h2",))
        self.check(self.front.connect(), 505, Caller("192.0.2.1", secure=True))
