"""Base test cases and requests for the tests of the web."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings

from .fronts import BASE, ChannelFront, Front, Peer, SiteFront, request
from .http2 import Http2Front

TEXT = {"Content-Type": "text/plain"}


def get(name: str, query: str = "", headers: Mapping[str, str] | None = None, version: str = "1.1") -> bytes:
    """Return a request to read a stream."""
    return request("GET", BASE + name + query, headers, version=version)


def post(name: str, body: bytes, headers: Mapping[str, str] | None = None, version: str = "1.1") -> bytes:
    """Return a request to append text."""
    return request("POST", BASE + name, TEXT | dict(headers or {}), body, version)


class ChannelTestCase(SynchronousTestCase):
    """A test case with the daemon's HTTP/1.1 front."""

    settings = Settings()
    front_type = ChannelFront

    def setUp(self) -> None:
        self.front = self.front_type(self.settings)
        self.addCleanup(self.front.stop)

    def read(self, name: str) -> bytes:
        return bytes(self.front.ask("GET", BASE + name).body)

    def assert_ends_politely(self, peer: Peer) -> None:
        """Assert that the server shuts its sending side, reads for a moment, and closes."""
        self.assertTrue(peer.ended)
        self.front.pass_time(5)
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)


class FrontTestCase(SynchronousTestCase):
    """A test case with a front, and a storage that answers at once or later."""

    settings = Settings()
    front_type: type[Front] = ChannelFront
    late = False

    def setUp(self) -> None:
        self.front = self.front_type(self.settings, self.late)
        self.addCleanup(self.front.stop)


_Case = TypeVar("_Case", bound=type[FrontTestCase])


_HTTP1 = (("Late", ChannelFront, True), ("OnSite", SiteFront, False), ("OnSiteLate", SiteFront, True))
_HTTP2 = (("OverHttp2", Http2Front, False), ("OverHttp2Late", Http2Front, True))


def each_way(case: _Case) -> _Case:
    """Run a test case on each front and over HTTP/2, each with a storage that answers at once and later."""
    return _varied(case, (*_HTTP1, *_HTTP2))


def each_way_in_turn(case: _Case) -> _Case:
    """Run a test case on the fronts whose connections answer one request after the other."""
    return _varied(case, _HTTP1)


def _varied(case: _Case, ways: Iterable[tuple[str, type[Front], bool]]) -> _Case:
    module = sys.modules[case.__module__]
    for suffix, front_type, late in ways:
        name = case.__name__ + suffix
        members = {"front_type": front_type, "late": late, "__module__": case.__module__, "__qualname__": name}
        setattr(module, name, type(name, (case,), members))
    return case
