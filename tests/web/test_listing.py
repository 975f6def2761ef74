"""The list of all streams, for operators."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from durable_streams.server import Settings
from durable_streams.server.config.sections import AdminSettings, ServerSettings
from durable_streams.server.model import Append, Lifetime, StreamConfig
from durable_streams.server.service import Daemon


class ListTests(TestCase):
    """Over the tree of a daemon, which here has no port of its own."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (trial chooses it)

        self.reactor: Any = reactor

    def daemon(self, **admin: object) -> Daemon:
        settings = replace(
            Settings(),
            server=ServerSettings(bind_address="127.0.0.1:0"),
            admin=AdminSettings(**admin),  # type: ignore[arg-type]
        )
        daemon = Daemon(settings, self.reactor)
        self.addCleanup(daemon.stopService)
        return daemon

    async def fetch(self, port: int, path: str) -> tuple[int, bytes]:
        import treq  # noqa: PLC0415 (it chooses a reactor)
        from twisted.web.client import Agent, HTTPConnectionPool  # noqa: PLC0415 (as above)

        pool = HTTPConnectionPool(self.reactor, persistent=False)
        response = await treq.get(f"http://127.0.0.1:{port}{path}", agent=Agent(self.reactor, pool=pool))
        return response.code, await response.content()

    async def test_it_has_all_streams_by_name(self) -> None:
        daemon = self.daemon(enabled=True)
        await daemon.start()
        daemon.streams.create("b", StreamConfig("text/plain", Lifetime(ttl=60)), b"")
        daemon.streams.create("a", StreamConfig("application/json", Lifetime(expires_at=4e9)), b"")
        daemon.streams.append("a", Append("application/json", b"1,", close=True))
        code, body = await self.fetch(daemon.address.port, "/admin/streams")  # type: ignore[attr-defined]
        self.assertEqual(code, 200)
        first, second = msgspec.json.decode(body)
        self.assertEqual(
            {**first, "created_at": None, "updated_at": None},
            {
                "name": "a",
                "closed": True,
                "message_count": None,
                "total_bytes": 2,
                "content_type": "application/json",
                "created_at": None,
                "updated_at": None,
                "ttl_seconds": None,
                "expires_at": "2096-10-02T07:06:40Z",
            },
        )
        self.assertEqual((second["name"], second["closed"], second["ttl_seconds"]), ("b", False, 60))

    async def test_it_is_off_by_default(self) -> None:
        daemon = self.daemon()
        await daemon.start()
        self.assertEqual((await self.fetch(daemon.address.port, "/admin/streams"))[0], 404)  # type: ignore[attr-defined]

    async def test_operators_may_have_a_port_of_their_own(self) -> None:
        daemon = self.daemon(enabled=True, base_path="/ops", bind_address="127.0.0.1:0")
        await daemon.start()
        theirs = daemon.listeners.admin_addresses[0].port  # type: ignore[attr-defined]
        ours = daemon.address.port  # type: ignore[attr-defined]
        for path, wanted in (("/ops/streams", 200), ("/metrics", 200), ("/healthz", 200), ("/v1/stream/a", 404)):
            self.assertEqual((await self.fetch(theirs, path))[0], wanted, path)
        for path, wanted in (("/ops/streams", 404), ("/metrics", 404), ("/healthz", 200)):
            self.assertEqual((await self.fetch(ours, path))[0], wanted, path)

    async def test_while_the_storage_is_not_open_it_says_so(self) -> None:
        daemon = self.daemon(enabled=True)
        listening = self.reactor.listenTCP(0, Site(daemon.tree), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        code, body = await self.fetch(listening.getHost().port, "/admin/streams")
        self.assertEqual((code, msgspec.json.decode(body)["code"]), (503, "UNAVAILABLE"))
        ready: Deferred[None] = daemon.start()
        await ready
