"""Each code block of docs/embedding.rst runs as it stands, in the order of the page."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any, Final

from twisted.application.service import Application, IServiceCollection
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from durable_streams.server import MemoryStorage, StreamService, Writer
from tests.support.daemon import CHECKOUT

PAGE: Final = (CHECKOUT / "docs" / "embedding.rst").read_text()

#: One of the page's blocks is a test module of its own: see TestingPageTests.
BLOCKS: Final = [
    block
    for block in (textwrap.dedent(found) for found in re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE))
    if "TestCase" not in block
]


def block_with(words: str) -> str:
    """Return the block that has these words."""
    [found] = [block for block in BLOCKS if words in block]
    return found


def code_of(words: str) -> Any:
    """Compile the block that has these words; it may await."""
    return compile(block_with(words), "embedding.rst", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


class EmbeddingPageTests(TestCase):
    def setUp(self) -> None:
        self.names: dict[str, Any] = {"reactor": Clock()}

    async def run_block(self, words: str) -> dict[str, Any]:
        """Run a block, which may await, with the names that the page assumes."""
        outcome = eval(code_of(words), self.names)
        if inspect.isawaitable(outcome):
            await outcome
        return self.names

    def service(self) -> StreamService:
        streams = StreamService(MemoryStorage(), self.names["reactor"])
        streams.startService()
        self.addCleanup(streams.stopService)
        self.names["streams"] = streams
        return streams

    def test_every_block_is_run_by_a_test_of_this_module(self) -> None:
        source = inspect.getsource(EmbeddingPageTests)
        used = [
            block for words in re.findall(r'(?:run_block|code_of)\("(.+?)"\)', source) for block in [block_with(words)]
        ]
        self.assertEqual(sorted(BLOCKS), sorted(used))

    async def test_the_resource_goes_into_a_site(self) -> None:
        self.names |= {"root": Resource(), "Site": Site}
        names = await self.run_block("root.putChild")
        self.assertIn(b"streams", names["root"].children)
        self.assertIsInstance(names["site"], Site)
        await names["streams"].stopService()

    async def test_the_server_becomes_a_service_of_the_application(self) -> None:
        self.names["application"] = application = Application("streams")
        names = await self.run_block("build_service(")
        self.assertEqual([names["server"]], list(IServiceCollection(application)))

    async def test_settings_come_from_a_mapping(self) -> None:
        names = await self.run_block("max_stream_bytes")
        self.assertEqual(names["settings"].limits.max_stream_bytes, 1_000_000)
        self.assertEqual(names["streams"].settings, names["settings"])

    async def test_streams_are_written_and_read(self) -> None:
        streams = self.service()
        await self.run_block("append_batch(")
        self.assertEqual((await streams.read("copy")).data, b'[{"n": 1},{"n": 2}]')

    async def test_a_callable_receives_what_is_appended(self) -> None:
        used: Deferred[bytes] = Deferred()
        self.names |= {"reactor": reactor, "use": used.callback}
        names = await self.run_block("receive(work)")
        streams = names["streams"]
        self.addCleanup(streams.stopService)
        await streams.create("chat/1", "text/plain", b"hello")
        self.assertEqual(await used.addTimeout(20, reactor), b"hello")
        await self.run_block("[jobs] = work.pending")
        self.assertEqual((names["reading"].data, names["more"]), (b'[{"id": 1}]', False))

    async def test_a_writer_is_a_producer(self) -> None:
        streams = self.service()
        await streams.create("greetings", "text/plain")
        names = await self.run_block("import Writer")
        self.assertEqual(names["writer"], Writer("billing", 1, 0))

    async def test_a_writer_repeats_an_append(self) -> None:
        streams = self.service()
        await streams.create("orders", "text/plain")
        self.names["epoch"] = 1
        await self.run_block("streams.writer(")
        self.assertEqual((await streams.read("orders")).data, b"...")

    async def test_a_tail_reads_to_the_end_of_a_closed_stream(self) -> None:
        streams = self.service()
        await streams.create("events", "text/plain", b"all", closed=True)
        used: list[bytes] = []
        self.names |= {"offset": "-1", "use": used.append}
        names = await self.run_block("async for")
        self.assertEqual(used, [b"all"])
        self.assertEqual(names["offset"], (await streams.read("events")).next_offset)

    async def test_a_thread_appends(self) -> None:
        self.names["reactor"] = reactor
        streams = self.service()
        await streams.create("log", "text/plain")
        await deferToThread(exec, code_of("blockingCallFromThread"), self.names)
        self.assertEqual((await streams.read("log")).data, b"from a thread")

    async def test_a_clock_is_made_steady(self) -> None:
        await self.run_block("make_steady")
