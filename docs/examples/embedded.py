"""A web site with streams in it: ``python embedded.py PORT``.

The streams are at /streams/NAME beside a page, and the program itself appends to one of them, once a second.
"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from durable_streams.server import MemoryStorage, StreamService, build_resource


async def main(reactor: Any, port: str) -> None:
    """Serve, and append."""
    streams = StreamService(MemoryStorage(), reactor)
    streams.startService()
    await streams.create("clock", "text/plain")

    root = Resource()
    root.putChild(b"", Data(b"<a href='/streams/clock?offset=-1'>What the clock said</a>", "text/html"))
    root.putChild(b"streams", build_resource(streams))
    # Streams read their bodies themselves, whatever type these have.
    site = Site(root, parsePOSTFormSubmission=False)
    listening = await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(site)
    print(f"http://127.0.0.1:{listening.getHost().port}/", flush=True)

    ticks = 0
    while True:
        await streams.append("clock", b"tick %d\n" % ticks)
        ticks += 1
        await task.deferLater(reactor, 1)


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
