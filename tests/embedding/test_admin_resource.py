"""The pages for operators as a resource of a program's own Site."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from durable_streams.server import (
    ConfigError,
    MemoryStorage,
    Settings,
    StreamService,
    build_admin_resource,
    build_resource,
    errors,
)
from durable_streams.server.config.sections import AdminSettings
from tests.support.daemon import PATIENCE

reactor: Any = running


def ask(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, None, headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


class AdminResourceTests(TestCase):
    def serve(self, settings: Settings | None = None, **options: Any) -> int:
        """Serve streams at /streams and the pages for operators at /our/ops; return the port."""
        self.streams = StreamService(MemoryStorage(), reactor, settings)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        root, our = Resource(), Resource()
        root.putChild(b"streams", build_resource(self.streams))
        root.putChild(b"our", our)
        our.putChild(b"ops", build_admin_resource(self.streams, **options))
        port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def ask(self, port: int, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return await deferToThread(ask, port, method, path, headers)

    async def test_pages_are_found_below_any_path(self) -> None:
        port = self.serve()
        for name in ("a/b", "a/c"):
            await self.streams.create(name, "text/plain")
        status, headers, body = await self.ask(port, "GET", "/our/ops/streams?limit=1")
        self.assertEqual((status, [each["name"] for each in json.loads(body)]), (200, ["a/b"]))
        self.assertEqual(headers["link"], '<?limit=1&after=a%2Fb>; rel="next"')
        self.assertEqual((await self.ask(port, "GET", "/our/ops/streams/a%2Fb"))[0], 200)
        self.assertEqual((await self.ask(port, "DELETE", "/our/%6Fps/streams/a/b"))[0], 204)
        self.assertIsNone(json.loads((await self.ask(port, "GET", "/our/ops/counts"))[2])["connections"])
        status, _, body = await self.ask(port, "GET", "/our/ops/streams/a/b?writers=1")
        self.assertEqual((status, json.loads(body)["instance"]), (404, "/our/ops/streams/a/b?writers=1"))
        for path in ("/our/ops", "/our/ops/", "/our/ops/our/ops/streams", "/our/ops/healthz"):
            self.assertEqual((await self.ask(port, "GET", path))[0], 404, path)

    async def test_readers_of_the_streams_resource_and_of_the_program_are_counted(self) -> None:
        port = self.serve()
        await self.streams.create("a", "text/plain")
        poll = deferToThread(ask, port, "GET", "/streams/a?live=long-poll&offset=-1", {})
        step = Deferred.fromCoroutine(self.streams.tail("a").__anext__())
        expected = {"tails": 0, "long_polls": 1, "embedded": 1}
        for _ in range(200):
            found = json.loads((await self.ask(port, "GET", "/our/ops/streams/a"))[2])["readers"]
            if found == expected:
                break
        self.assertEqual(found, expected)
        self.assertEqual(json.loads((await self.ask(port, "GET", "/our/ops/counts"))[2])["long_polls"], 1)
        await self.streams.append("a", b"x")
        self.assertEqual((await poll)[0], 200)
        self.assertEqual((await step).data, b"x")

    async def test_a_check_decides(self) -> None:
        async def check(request: Any) -> bool:
            if request.header(b"x-user") is None:
                raise errors.NotAuthenticated("Log in.", 'Basic realm="ops"')
            return bool(request.header(b"x-user") == b"alice")

        port = self.serve(authorize_admin=check)
        for headers, expected in (({}, 401), ({"X-User": "bob"}, 403), ({"X-User": "alice"}, 200)):
            self.assertEqual((await self.ask(port, "GET", "/our/ops/streams", **headers))[0], expected)
        self.assertEqual((await self.ask(port, "GET", "/our/ops/none"))[0], 401)

    async def test_tokens_of_the_settings_are_required(self) -> None:
        tokens = Path(self.mktemp())
        tokens.write_text("0123456789abcdef")
        tokens.chmod(0o600)
        port = self.serve(Settings(admin=AdminSettings(token_file=str(tokens))))
        self.assertEqual((await self.ask(port, "GET", "/our/ops/streams"))[0], 401)
        allowed = {"Authorization": "Bearer 0123456789abcdef"}
        self.assertEqual((await self.ask(port, "GET", "/our/ops/streams", **allowed))[0], 200)

    async def test_without_a_check_only_this_machine_may_use_them(self) -> None:
        port = self.serve()
        self.assertEqual((await self.ask(port, "GET", "/our/ops/streams"))[0], 200)
        self.assertEqual((await self.ask(port, "GET", "/our/ops/streams", Host="evil.example"))[0], 403)

    def test_a_token_file_that_cannot_be_used_is_refused(self) -> None:
        service = StreamService(MemoryStorage(), reactor, Settings(admin=AdminSettings(token_file="/nonexistent")))
        error = self.assertRaises(ConfigError, build_admin_resource, service)
        self.assertIn("admin.token_file: Cannot read /nonexistent", str(error))
