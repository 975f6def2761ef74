"""The client's operations against a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from durable_streams.server import MemoryStorage, StreamService, build_resource
from durable_streams.server.client import (
    Batch,
    ClientOptions,
    InvalidUse,
    Live,
    Refusal,
    RefusedAsClosed,
    RefusedAsGone,
    RefusedAsMissing,
    RefusedEpoch,
    RefusedGap,
    StreamClient,
    StreamReader,
)
from durable_streams.server.testing.server import MemoryServer

_BOTH: Final[tuple[Live, Live]] = ("sse", "long-poll")


class ClientTestCase(TestCase):
    """A test case with a server in memory and a client."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.server = MemoryServer()
        await self.server.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))
        self.client = StreamClient(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.client.disconnect()))

    def url(self, name: str = "it") -> str:
        return f"{self.server.url}/{name}"


async def batches_of(reader: StreamReader, count: int | None = None) -> list[Batch]:
    """Read to the end, or so many batches."""
    found = []
    async for batch in reader:
        found.append(batch)
        if count is not None and len(found) >= count:
            break
    await reader.aclose()
    return found


def data_of(batches: list[Batch]) -> bytes:
    """Return the bytes of all batches."""
    return b"".join(batch.data for batch in batches)


def messages_of(batches: list[Batch]) -> list[bytes]:
    """Return the messages of all batches."""
    return [message for batch in batches for message in batch.messages]


class OperationTests(ClientTestCase):
    async def test_a_stream_is_created_appended_to_read_closed_and_deleted(self) -> None:
        created = await self.client.create(self.url(), "text/plain; charset=utf-8", b"one ", ttl=3600)
        self.assertEqual(
            (True, "text/plain; charset=utf-8", False), (created.new, created.content_type, created.closed)
        )
        appended = await self.client.append(self.url(), b"two ", "text/plain")
        assert appended.next_offset is not None
        self.assertGreater(appended.next_offset, created.next_offset)
        info = await self.client.head(self.url())
        self.assertEqual((appended.next_offset, False, 3600), (info.next_offset, info.closed, info.ttl))
        closed = await self.client.append(self.url(), b"three", "text/plain", close=True)
        self.assertTrue(closed.closed)
        again = await self.client.close(self.url())
        self.assertEqual((closed.next_offset, True), (again.next_offset, again.closed))
        self.assertEqual(b"one two three", data_of(await batches_of(await self.client.read(self.url()))))
        await self.client.delete(self.url())
        with self.assertRaises(RefusedAsMissing):
            await self.client.head(self.url())

    async def test_creating_a_stream_again_says_that_it_is_not_new(self) -> None:
        await self.client.create(self.url(), "text/plain", b"x")
        again = await self.client.create(self.url(), "text/plain", b"y")
        self.assertFalse(again.new)
        with self.assertRaises(Refusal) as caught:
            await self.client.create(self.url(), "application/json")
        self.assertEqual((409, "ALREADY_EXISTS"), (caught.exception.status, caught.exception.code))

    async def test_refusals_have_the_servers_sentence_and_their_type(self) -> None:
        with self.assertRaises(RefusedAsMissing) as missing:
            await self.client.append(self.url("none"), b"x", "text/plain")
        self.assertEqual("There is no stream none. Create it first.", str(missing.exception))
        self.assertEqual((404, "NOT_FOUND"), (missing.exception.status, missing.exception.code))
        created = await self.client.create(self.url(), "text/plain", b"x", closed=True)
        with self.assertRaises(RefusedAsClosed) as closed:
            await self.client.append(self.url(), b"y", "text/plain")
        self.assertEqual(created.next_offset, closed.exception.next_offset)
        with self.assertRaises(Refusal) as malformed:
            await batches_of(await self.client.read(self.url(), "what"))
        self.assertEqual((400, "INVALID_OFFSET"), (malformed.exception.status, malformed.exception.code))

    async def test_a_fork_begins_with_the_data_of_its_source(self) -> None:
        first = await self.client.create(self.url(), "application/json", b"[1,2]")
        await self.client.append(self.url(), b"[3,4,5]", "application/json")
        await self.client.fork(self.url(), self.url("all"))
        await self.client.fork(self.url(), self.url("some"), offset=first.next_offset, sub_offset=1)
        for name, expected in (("all", [b"1", b"2", b"3", b"4", b"5"]), ("some", [b"1", b"2", b"3"])):
            found = messages_of(await batches_of(await self.client.read(self.url(name))))
            self.assertEqual(expected, found)
        await self.client.delete(self.url())
        with self.assertRaises(RefusedAsGone):
            await self.client.head(self.url())
        with self.assertRaises(InvalidUse):
            await self.client.fork("http://elsewhere.example/v1/stream/it", self.url("other"))

    async def test_a_name_with_any_character_is_one_stream(self) -> None:
        url = self.url("a b/ä%20%3F'!")
        await self.client.create(url, "text/plain", b"x")
        self.assertEqual(b"x", (await self.server.streams.read("a b/ä ?'!")).data)

    async def test_the_token_and_the_name_of_the_program_are_sent(self) -> None:
        seen: list[tuple[str | None, str | None]] = []

        class Recorder(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                seen.append((request.getHeader("authorization"), request.getHeader("user-agent")))
                request.setHeader("stream-next-offset", "1_1")
                return b""

        site: Any = Site(Recorder())
        port: Any = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        client = StreamClient(reactor, ClientOptions(token="secret"))
        self.addCleanup(lambda: Deferred.fromCoroutine(client.disconnect()))
        await client.head(f"http://127.0.0.1:{port.getHost().port}/it")
        [(authorization, agent)] = seen
        self.assertEqual("Bearer secret", authorization)
        self.assertTrue(str(agent).startswith("durable-streams-server/"))
        self.assertNotIn("secret", repr(client.http.options))

    async def test_a_refused_token_is_replaced_once_for_a_request_that_can_be_sent_again(self) -> None:
        seen: list[str | None] = []
        accepted = {"Bearer new"}

        class Checking(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                seen.append(request.getHeader("authorization"))
                if seen[-1] not in accepted:
                    request.setResponseCode(401)
                request.setHeader("stream-next-offset", "1_1")
                return b""

        site: Any = Site(Checking(), parsePOSTFormSubmission=False)
        port: Any = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        tokens = ["old", "new", "newer"]
        client = StreamClient(reactor, ClientOptions(token="old", refresh_token=lambda: tokens.pop(0)))
        self.addCleanup(lambda: Deferred.fromCoroutine(client.disconnect()))
        url = f"http://127.0.0.1:{port.getHost().port}/it"
        # The token is still the same one.
        await self.assertFailure(Deferred.fromCoroutine(client.append(url, b"x", "text/plain")), Refusal)
        self.assertEqual(["Bearer old"], seen)
        await client.append(url, b"x", "text/plain")
        await client.head(url)
        self.assertEqual(["Bearer old", "Bearer old", "Bearer new", "Bearer new"], seen)
        # It is sent again once only.
        accepted.clear()
        await self.assertFailure(Deferred.fromCoroutine(client.head(url)), Refusal)
        self.assertEqual(["Bearer new", "Bearer newer"], seen[4:])

    async def test_a_body_that_can_be_read_once_is_not_sent_again_with_another_token(self) -> None:
        calls: list[None] = []

        class Refusing(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                calls.append(None)
                request.setResponseCode(401)
                return b""

        async def body() -> AsyncIterator[bytes]:
            yield b"x"

        site: Any = Site(Refusing(), parsePOSTFormSubmission=False)
        port: Any = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        client = StreamClient(reactor, ClientOptions(token="old", refresh_token=lambda: "new"))
        self.addCleanup(lambda: Deferred.fromCoroutine(client.disconnect()))
        url = f"http://127.0.0.1:{port.getHost().port}/it"
        await self.assertFailure(Deferred.fromCoroutine(client.http.request("POST", url, body=body())), Refusal)
        self.assertEqual(1, len(calls))

    async def test_a_unix_socket_is_used_whatever_host_the_url_has(self) -> None:
        service = StreamService(MemoryStorage(), reactor)
        service.startService()
        self.addCleanup(service.stopService)
        root = Resource()
        root.putChild(b"streams", build_resource(service))
        path = self.mktemp()
        site: Any = Site(root, parsePOSTFormSubmission=False)
        port: Any = await serverFromString(reactor, f"unix:{path}").listen(site)
        self.addCleanup(port.stopListening)
        client = StreamClient(reactor, ClientOptions(unix_socket=path))
        created = await client.create("http://localhost/streams/it", "text/plain", b"x")
        self.assertTrue(created.new)
        await client.disconnect()
        # The server notices that the connection is closed.
        await deferLater(reactor, 0.01)


class InvalidUseTests(ClientTestCase):
    async def test_urls_that_are_not_of_a_stream_are_refused(self) -> None:
        for url, reason in (
            ("ftp://localhost/x", "is not a URL such as"),
            ("localhost:4437/x", "is not a URL such as"),
            ("http:///x", "is not a URL such as"),
            ("http://[::1/x", "is not a URL"),
            ("http://localhost:99999/x", "is not a URL"),
            ("http://me:secret@localhost/x", "Use a token"),
            (self.url("x?y=1"), "must not have a query"),
            (self.url("x#y"), "must not have a query or a fragment"),
            (self.url("x?ds_key=k&ds_expires=1&ds_op=read&ds_sig=secret"), "is signed: it is for clients such as"),
        ):
            with self.assertRaises(InvalidUse, msg=url) as caught:
                await self.client.head(url)
            self.assertIn(reason, str(caught.exception))
            self.assertNotIn("secret", str(caught.exception))

    async def test_headers_with_control_characters_are_refused(self) -> None:
        with self.assertRaises(InvalidUse):
            await self.client.create(self.url(), "text/plain\r\nX: y")
        with self.assertRaises(InvalidUse):
            await self.client.append(self.url(), b"x", "text/plain", sequence="\u20ac")

    async def test_a_token_with_a_line_break_is_refused_without_showing_it(self) -> None:
        for token in ("", "sec ret", "secret\n", "secr\u00e9t"):
            with self.assertRaises(InvalidUse) as caught:
                StreamClient(reactor, ClientOptions(token=token))
            self.assertNotIn("sec", str(caught.exception))


class WriterTests(ClientTestCase):
    async def test_appends_have_consecutive_sequence_numbers(self) -> None:
        await self.client.create(self.url(), "text/plain")
        writer = await self.client.writer(self.url(), "me", 3)
        for text in (b"a", b"b", b"c"):
            self.assertFalse((await writer.append(text)).duplicate)
        self.assertEqual(3, writer.next_seq)
        again = await self.client.writer(self.url(), "me", 3)
        result = await again.append(b"a")
        self.assertEqual((True, 2), (result.duplicate, result.last_seq))
        closing = await writer.append(b"d", close=True)
        self.assertTrue(closing.closed)
        self.assertEqual(b"abcd", data_of(await batches_of(await self.client.read(self.url()))))

    async def test_an_older_epoch_and_a_gap_are_refused_with_what_the_stream_knows(self) -> None:
        await self.client.create(self.url(), "text/plain")
        await (await self.client.writer(self.url(), "me", 7)).append(b"a")
        with self.assertRaises(RefusedEpoch) as fenced:
            await (await self.client.writer(self.url(), "me", 6)).append(b"a")
        self.assertEqual(7, fenced.exception.epoch)
        with self.assertRaises(RefusedGap) as gap:
            await (await self.client.writer(self.url(), "me", 7, next_seq=5)).append(b"a")
        self.assertEqual(1, gap.exception.expected)

    async def test_a_writer_without_a_name_or_with_a_negative_number_is_refused(self) -> None:
        for producer_id, epoch, next_seq in (("", 0, 0), ("me", -1, 0), ("me", 0, 2**53)):
            with self.assertRaises(InvalidUse):
                await self.client.writer(self.url(), producer_id, epoch, content_type="text/plain", next_seq=next_seq)


class ReaderTests(ClientTestCase):
    async def test_a_read_ends_at_the_tail_and_has_its_offset(self) -> None:
        await self.client.create(self.url(), "text/plain")
        appended = await self.client.append(self.url(), b"x" * 500_000, "text/plain")
        assert appended.next_offset is not None
        found = await batches_of(await self.client.read(self.url()))
        self.assertEqual(b"x" * 500_000, data_of(found))
        self.assertEqual((appended.next_offset, True), (found[-1].next_offset, found[-1].up_to_date))
        [rest] = await batches_of(await self.client.read(self.url(), appended.next_offset))
        self.assertEqual((b"", True), (rest.data, rest.up_to_date))
        [now] = await batches_of(await self.client.read(self.url(), "now"))
        self.assertEqual((b"", appended.next_offset), (now.data, now.next_offset))

    async def test_messages_are_read_as_they_were_appended(self) -> None:
        await self.client.create(self.url(), "application/json", b'[{"a" :  1.0}, "\\ud83d"]')
        found = await batches_of(await self.client.read(self.url()))
        self.assertEqual([b'{"a" :  1.0}', b'"\\ud83d"'], messages_of(found))
        skipped = await batches_of(await self.client.read(self.url(), skip=1))
        self.assertEqual([b'"\\ud83d"'], messages_of(skipped))

    async def follow(self, content_type: str, live: Any, texts: list[bytes]) -> list[Batch]:
        url = self.url(f"{content_type}-{live}")
        await self.client.create(url, content_type, texts[0])
        reader = await self.client.tail(url, live=live)
        found = await batches_of_first(reader)
        for text in texts[1:]:
            await self.client.append(url, text, content_type)
        await self.client.close(url)
        return [*found, *await batches_of(reader)]

    async def test_a_tail_has_stored_and_new_data_and_ends_when_the_stream_is_closed(self) -> None:
        for live in (*_BOTH, None):
            texts = [b"one\n", b" two\n\nthree", "\N{EURO SIGN}".encode()]
            found = await self.follow("text/plain", live, texts)
            self.assertEqual(b"".join(texts), data_of(found))
            self.assertTrue(found[-1].closed)

    async def test_a_tail_of_bytes_and_of_messages_is_exact(self) -> None:
        for live in (*_BOTH, None):
            texts = [b"\x00\xff\r\n", bytes(range(256)), b"\r"]
            self.assertEqual(b"".join(texts), data_of(await self.follow("application/x", live, texts)))
            found = await self.follow("application/json", live, [b"[1, {}]", b'"a\\nb"', b"[[2]]"])
            self.assertEqual([b"1", b"{}", b'"a\\nb"', b"[2]"], messages_of(found))

    async def test_a_tail_from_now_has_new_data_only(self) -> None:
        for live in _BOTH:
            url = self.url(live)
            await self.client.create(url, "text/plain", b"old")
            reader = await self.client.tail(url, "now", live)
            # What is appended before the first request is new as well.
            await self.client.append(url, b"new", "text/plain", close=True)
            self.assertEqual(b"new", data_of(await batches_of(reader)))

    async def test_a_deleted_stream_ends_its_tail_with_the_servers_sentence(self) -> None:
        for live in _BOTH:
            await self.client.create(self.url(), "text/plain", b"x")
            reader = await self.client.tail(self.url(), live=live)
            await batches_of_first(reader)
            await self.client.delete(self.url())
            with self.assertRaises(RefusedAsMissing) as caught:
                await batches_of(reader)
            self.assertEqual("There is no stream it. Create it first.", str(caught.exception))


async def batches_of_first(reader: StreamReader) -> list[Batch]:
    """Read until the tail."""
    found = []
    async for batch in reader:
        found.append(batch)
        if batch.up_to_date:
            break
    return found
