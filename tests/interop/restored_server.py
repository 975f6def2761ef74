"""A server that, when asked, is backed up, stopped, and replaced by a fresh one into which the archive is restored.

It prints one line of JSON: the ``url`` of the streams' server, and that of the ``control`` server, which answers a POST
when the fresh server listens at the same address.  It ends with its standard input.
"""

from __future__ import annotations

import io
import json
import socket
import sys
from typing import Any

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from durable_streams.server import MemoryStorage, Settings, StreamServer, StreamService, build_service
from durable_streams.server.transfer import backup_streams, restore_streams

reactor: Any = running


def free_port() -> int:
    """Find a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Control(Resource):
    """Replaces the server on each POST."""

    isLeaf = True

    def __init__(self, port: int) -> None:
        super().__init__()
        self._endpoint = f"tcp:{port}:interface=127.0.0.1"
        self._server = self._start(StreamService(MemoryStorage()))

    def _start(self, service: StreamService) -> StreamServer:
        settings = Settings.from_mapping({"transport": {"connection": {"long_poll_timeout_secs": 2}}})
        server = build_service(service, settings, [self._endpoint])
        server.privilegedStartService()
        server.startService()
        return server

    def render_POST(self, request: Any) -> int:
        """Replace the server, then answer."""

        def answer(outcome: object) -> None:
            if isinstance(outcome, Failure):
                outcome.printTraceback(sys.stderr)
                request.setResponseCode(500)
            request.finish()

        Deferred.fromCoroutine(self._replace()).addBoth(answer)
        return NOT_DONE_YET

    async def _replace(self) -> None:
        archive = io.BytesIO()
        await backup_streams(self._server.streams, archive)
        await maybeDeferred(self._server.stopService)
        self._server = self._start(StreamService(MemoryStorage()))
        archive.seek(0)
        await restore_streams(self._server.streams, archive, on_conflict="fail")


class Parent(Protocol):
    """The process that started this one: when it has gone, so has the need for a server."""

    def connectionLost(self, reason: Any = None) -> None:
        if reactor.running:
            reactor.stop()


def main() -> None:
    """Serve until the standard input ends."""
    port = free_port()
    control = reactor.listenTCP(0, Site(Control(port)), interface="127.0.0.1")
    StandardIO(Parent())
    urls = {"url": f"http://127.0.0.1:{port}", "control": f"http://127.0.0.1:{control.getHost().port}/"}
    reactor.callWhenRunning(lambda: print(json.dumps(urls), flush=True))
    reactor.run()


if __name__ == "__main__":
    main()
    sys.exit(0)
