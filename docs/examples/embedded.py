"""A web site with streams in it: ``python embedded.py PORT [DIRECTORY]``.

The streams are at /streams/NAME beside a page. The program appends to one of them, once a second, and follows another:
what visitors POST to /streams/questions it answers at /streams/answers. With a directory, streams are kept there.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from durable_streams.server import FileStorage, MemoryStorage, StreamService, build_resource

PAGE = b"<a href='/streams/clock?offset=-1'>What the clock said</a>"


async def tick(streams: StreamService, reactor: Any) -> None:
    """Append to a stream for ever."""
    ticks = 0
    while True:
        await streams.append("clock", b"tick %d\n" % ticks)
        ticks += 1
        await task.deferLater(reactor, 1)


async def answer(streams: StreamService) -> None:
    """Answer each question once, however often the program is started."""
    # The answers are numbered as the questions are, so the last one says where to go on.
    answered = len((await streams.read("answers")).data.splitlines())
    asked = 0
    async for reading in streams.tail("questions"):
        for question in reading.data.splitlines():
            asked += 1
            if asked > answered:
                await streams.append("answers", b"%d: %b? Yes.\n" % (asked, question))


async def main(reactor: Any, port: str, directory: str | None = None) -> None:
    """Serve until the reactor stops."""
    streams = StreamService(MemoryStorage() if directory is None else FileStorage(Path(directory), reactor), reactor)
    streams.startService()
    for name in ("clock", "questions", "answers"):
        await streams.create(name, "text/plain")

    root = Resource()
    root.putChild(b"", Data(PAGE, "text/html"))
    root.putChild(b"streams", build_resource(streams))
    # Streams read their bodies themselves, whatever type these have.
    site = Site(root, parsePOSTFormSubmission=False)
    listening = await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(site)
    print(f"http://127.0.0.1:{listening.getHost().port}/", flush=True)

    working = [Deferred.fromCoroutine(tick(streams, reactor)), Deferred.fromCoroutine(answer(streams))]

    async def stop() -> None:
        await listening.stopListening()
        for work in working:
            work.cancel()
        await streams.stopService()
        print("stopped", flush=True)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    for work in working:
        with suppress(CancelledError):
            await work


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
