"""Tests of every method of the service, to mix into a test case with any storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults

from durable_streams.server import (
    Fork,
    IStorage,
    Offset,
    Reading,
    Settings,
    StorageLimits,
    StorageOwned,
    StreamService,
    Writer,
    errors,
)

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as _Case
else:
    _Case = object

LIMITS = StorageLimits(total_bytes=4000, stream_bytes=2000, streams=20, writers=3)


class EachMethod(_Case):
    """Mixed into a TestCase; :meth:`make_service` says on what."""

    streams: StreamService
    storage: IStorage

    def make_service(self, settings: Settings) -> StreamService:
        """Make a service that is yet to be started."""
        raise NotImplementedError

    def setUp(self) -> None:
        settings = Settings()
        limits = replace(settings.limits, max_stream_name_bytes=40, max_stream_name_segments=3)
        self.streams = self.make_service(replace(settings, limits=limits))
        self.streams.startService()
        self.addCleanup(self.streams.stopService)

    async def fails(self, kind: type[Exception], deferred: Deferred[Any]) -> Exception:
        try:
            outcome = await deferred
        except kind as error:
            self.assertEqual(type(error), kind)
            return error
        raise AssertionError(f"{outcome} instead of {kind}")

    async def data(self, name: str) -> bytes:
        return (await self.streams.read(name)).data

    # Creating

    async def test_creating_an_existing_stream_returns_it(self) -> None:
        made = await self.streams.create("log", "text/plain", b"one")
        again = await self.streams.create("log", "text/plain", b"ignored")
        self.assertEqual((made.new, made.tail, made.facts.content_type), (True, 3, "text/plain"))
        self.assertEqual((again.new, again.tail, again.facts.id), (False, 3, made.facts.id))
        self.assertEqual((await self.streams.read("log", made.next_offset)).data, b"")
        written = await self.streams.append("log", b"two")
        self.assertEqual((await self.streams.read("log", made.next_offset)).next_offset, written.next_offset)
        await self.fails(errors.StreamExists, self.streams.create("log", "text/html"))
        self.assertEqual(await self.data("log"), b"onetwo")

    async def test_invalid_creations_are_refused(self) -> None:
        create = self.streams.create
        await self.fails(errors.EmptyName, create(""))
        for name in ("a//b", "/a", "a/", "..", "a/./b", "__ds/x", "a\nb", "x" * 41, "a/b/c/d", "\ud800"):
            await self.fails(errors.InvalidName, create(name))
        for content_type in ("", "no type", "text/plain\r\nX: y", "text/" + "x" * 600):
            await self.fails(errors.InvalidRequest, create("a", content_type))
        for ttl in (-1, 2**53, True, 1.5):
            await self.fails(errors.InvalidRequest, create("a", ttl=ttl))  # type: ignore[arg-type]
        await self.fails(errors.InvalidRequest, create("a", ttl=1, expires_at=2e9))
        for moment in (float("nan"), float("inf")):
            await self.fails(errors.InvalidRequest, create("a", expires_at=moment))
        await self.fails(errors.InvalidJson, create("a", "application/json", b"{"))
        self.assertEqual(await self.streams.list(), [])

    async def test_a_stream_can_be_created_closed(self) -> None:
        await self.streams.create("done", "text/plain", b"all", closed=True)
        self.assertTrue((await self.streams.read("done")).closed)

    async def test_head_returns_the_lifetime(self) -> None:
        await self.streams.create("brief", ttl=100)
        await self.streams.create("until", expires_at=4e9)
        self.assertEqual((await self.streams.head("brief")).lifetime.ttl, 100)
        self.assertEqual((await self.streams.head("until")).lifetime.expires_at, 4e9)

    # Appending

    async def test_appends_are_stored_in_the_order_of_the_calls(self) -> None:
        await self.streams.create("log", "text/plain")
        appended = await gatherResults([self.streams.append("log", b"%d," % number) for number in range(20)])
        tails = [each.tail for each in appended]
        self.assertEqual(tails, sorted(tails))
        self.assertEqual(await self.data("log"), b"".join(b"%d," % number for number in range(20)))

    async def test_mutable_data_is_copied_at_the_call(self) -> None:
        await self.streams.create("log", "text/plain")
        buffer = bytearray(b"one")
        appending = self.streams.append("log", buffer)  # type: ignore[arg-type]
        buffer[:] = b"two"
        await appending
        await self.streams.append("log", memoryview(buffer))  # type: ignore[arg-type]
        self.assertEqual(await self.data("log"), b"onetwo")

    async def test_text_is_a_type_error(self) -> None:
        await self.streams.create("log", "text/plain")
        with self.assertRaisesRegex(TypeError, "must be bytes, not str. Encode it first."):
            self.streams.append("log", "text")  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            self.streams.append_batch("log", "text")  # type: ignore[arg-type]
        self.assertEqual(await self.data("log"), b"")

    async def test_an_empty_append_is_refused(self) -> None:
        for content_type in ("text/plain", "application/json"):
            await self.streams.create(content_type, content_type)
            await self.fails(errors.EmptyBody, self.streams.append(content_type, b""))
            await self.fails(errors.EmptyBody, self.streams.append_batch(content_type, [b"", b""]))
            await self.fails(errors.EmptyArray, self.streams.append_batch(content_type, []))
            await self.fails(errors.EmptyArray, self.streams.append_batch(content_type, [], close=True))
        await self.fails(errors.EmptyArray, self.streams.append("application/json", b" [ ] "))

    async def test_a_content_type_must_match_the_streams(self) -> None:
        await self.streams.create("log", "text/plain")
        await self.streams.append("log", b"x", content_type="TEXT/plain; charset=utf-8")
        await self.fails(errors.ContentTypeMismatch, self.streams.append("log", b"1", content_type="application/json"))
        await self.fails(errors.InvalidRequest, self.streams.append("log", b"1", content_type="none"))
        self.assertEqual(await self.data("log"), b"x")

    async def test_json_is_checked_and_read_as_arrays(self) -> None:
        await self.streams.create("events", "application/json", b'[{"a": 1}]')
        await self.streams.append("events", b"[2, [3]]")
        await self.streams.append("events", b' "four" ')
        self.assertEqual(await self.data("events"), b'[{"a": 1},2, [3],"four"]')
        for bad in (b"{", b"1,2", b"\xff", b"[1]2", b""):
            await self.fails(errors.InvalidJson if bad else errors.EmptyBody, self.streams.append("events", bad))

    async def test_a_batch_is_one_append(self) -> None:
        await self.streams.create("log", "text/plain", b"0")
        await self.streams.append_batch("log", [b"one ", b"", b"two"])
        self.assertEqual((await self.streams.read("log", limit=2)).data, b"0")
        self.assertEqual(
            (await self.streams.read("log", (await self.streams.read("log", limit=1)).next_offset, 1)).data, b"one two"
        )

    async def test_each_payload_of_a_batch_is_a_message_of_json(self) -> None:
        await self.streams.create("events", "application/json")
        await self.streams.append_batch("events", [b"[1, 2]", b"[]", b' {"a": ","} \n', b"3"])
        self.assertEqual(await self.data("events"), b'[[1, 2],[],{"a": ","},3]')
        for bad in (b"1,2", b"1],[2", b"", b"{"):
            await self.fails(errors.InvalidJson, self.streams.append_batch("events", [b"4", bad]))
        await self.streams.create("fork", fork=Fork("events", Offset(0, 0), 3))
        self.assertEqual(await self.data("fork"), b'[[1, 2],[],{"a": ","}]')

    async def test_a_batch_its_close_and_preconditions_are_one_atomic_step(self) -> None:
        await self.streams.create("log", "text/plain")
        writer = Writer("me", 0, 0)
        first = await self.streams.append_batch("log", [b"a", b"b"], close=True, sequence=b"1", writer=writer)
        second = await self.streams.append_batch("log", [b"a", b"b"], close=True, sequence=b"1", writer=writer)
        self.assertEqual((first.closed, first.duplicate, second.duplicate), (True, False, True))
        self.assertEqual(await self.data("log"), b"ab")

    async def test_a_sequence_must_increase(self) -> None:
        await self.streams.create("log", "text/plain")
        await self.streams.append("log", b"x", sequence=b"b")
        await self.fails(errors.SequenceConflict, self.streams.append("log", b"y", sequence=b"a"))
        await self.fails(errors.InvalidRequest, self.streams.append("log", b"y", sequence=b"c" * 1025))
        self.assertEqual(await self.data("log"), b"x")

    async def test_an_append_may_expect_the_tail(self) -> None:
        created = await self.streams.create("log", "text/plain")
        first = await self.streams.append("log", b"a", expected=created.next_offset)
        await self.fails(errors.OffsetConflict, self.streams.append("log", b"b", expected="-1"))
        await self.fails(errors.InvalidRequest, self.streams.append("log", b"b", expected="now"))
        await self.streams.append("log", b"b", expected=Offset(first.facts.incarnation, first.tail))
        self.assertEqual(await self.data("log"), b"ab")

    async def test_invalid_and_fenced_writers_and_gaps_are_refused(self) -> None:
        await self.streams.create("log", "text/plain")
        for writer in (
            Writer("", 0, 0),
            Writer("x" * 1025, 0, 0),
            Writer("\u20ac", 0, 0),
            Writer("x", -1, 0),
            Writer("x", 0, 2**53),
            Writer("x", 0, 0.5),  # type: ignore[arg-type]
        ):
            await self.fails(errors.InvalidRequest, self.streams.append("log", b"x", writer=writer))
        await self.streams.append("log", b"x", writer=Writer("me", 1, 0))
        await self.fails(errors.WriterFenced, self.streams.append("log", b"x", writer=Writer("me", 0, 1)))
        await self.fails(errors.WriterGap, self.streams.append("log", b"x", writer=Writer("me", 1, 2)))
        await self.fails(errors.InvalidRequest, self.streams.append("log", b"x", writer=Writer("me", 2, 1)))

    async def test_limits_of_streams_and_storage_apply(self) -> None:
        await self.streams.create("one", data=b"x" * 1500)
        await self.fails(errors.StreamFull, self.streams.append("one", b"x" * 501))
        await self.streams.create("two", data=b"x" * 1900)
        await self.fails(errors.StorageFull, self.streams.create("three", data=b"x" * 700))
        for number in range(3):
            await self.streams.append("one", b"x", writer=Writer(str(number), 0, 0))
        await self.streams.append("one", b"x", writer=Writer("more", 0, 0))
        await self.fails(errors.WriterGap, self.streams.append("one", b"x", writer=Writer("0", 0, 1)))

    # Closing and deleting

    async def test_a_closed_stream_can_be_closed_again_and_refuses_appends(self) -> None:
        await self.streams.create("log", "text/plain")
        self.assertTrue((await self.streams.append("log", b"last", close=True)).closed)
        self.assertTrue((await self.streams.close("log")).closed)
        error = await self.fails(errors.StreamClosed, self.streams.append("log", b"more"))
        assert isinstance(error, errors.StreamClosed)
        self.assertEqual(error.tail, 4)
        self.assertEqual(
            await self.streams.read("log"), Reading(b"last", str(Offset(error.incarnation, 4)), True, True)
        )

    async def test_a_stream_is_closed_without_data(self) -> None:
        for content_type in ("text/plain", "application/json"):
            await self.streams.create(content_type, content_type)
            self.assertTrue((await self.streams.append(content_type, b"", close=True)).closed)

    async def test_a_deleted_stream_is_not_found(self) -> None:
        await self.streams.create("log", "text/plain", b"old")
        old = await self.streams.read("log")
        await self.streams.delete("log")
        for asked in (
            self.streams.read("log"),
            self.streams.head("log"),
            self.streams.delete("log"),
            self.streams.close("log"),
            self.streams.append("log", b"x"),
            self.streams.append("log", b"x", content_type="text/plain"),
        ):
            await self.fails(errors.StreamNotFound, asked)
        await self.streams.create("log", "text/plain", b"new")
        await self.fails(errors.OffsetGone, self.streams.read("log", old.next_offset))

    async def test_every_method_refuses_an_invalid_name(self) -> None:
        streams = self.streams
        for asked in (
            streams.append("a//b", b"x"),
            streams.append_batch("a//b", [b"x"]),
            streams.close("a//b"),
            streams.delete("a//b"),
            streams.fork("a//b", "x"),
            streams.head("a//b"),
            streams.read("a//b"),
            streams.writer("a//b", "me").append(b"x"),
        ):
            await self.fails(errors.InvalidName, asked)
        with self.assertRaises(errors.InvalidName):
            streams.tail("a//b")

    # Forking

    async def test_a_fork_has_the_content_of_its_source(self) -> None:
        await self.streams.create("source", "text/plain", b"abc")
        middle = (await self.streams.read("source")).next_offset
        await self.streams.append("source", b"def")
        await self.streams.fork("whole", "source")
        await self.streams.fork("half", "source", middle, 1, data=b"!", closed=True)
        await self.streams.fork("none", "source", "-1", ttl=100)
        found = [await self.data(name) for name in ("whole", "half", "none")]
        self.assertEqual(found, [b"abcdef", b"abcd!", b""])
        self.assertTrue((await self.streams.head("half")).closed)
        self.assertEqual((await self.streams.head("none")).lifetime.ttl, 100)

    async def test_invalid_forks_are_refused(self) -> None:
        await self.streams.create("source", "text/plain", b"abc")
        fork = self.streams.fork
        await self.fails(errors.StreamNotFound, fork("fork", "nowhere"))
        await self.fails(errors.InvalidRequest, fork("fork", "a//b"))
        for offset, sub_offset in (("somewhere", 0), ("9" * 16 + "_" + "9" * 16, 0), ("-1", 4), ("-1", -1)):
            await self.fails(errors.InvalidRequest, fork("fork", "source", offset, sub_offset))
        await self.fails(errors.ContentTypeMismatch, self.streams.create("fork", "text/html", fork=Fork("source")))
        await fork("fork", "source")
        await self.streams.delete("source")
        await self.fails(errors.StreamGone, self.streams.read("source"))
        await self.fails(errors.PathBlocked, self.streams.create("source", "text/plain"))
        await self.fails(errors.ForkFromDeleted, fork("late", "source"))

    # Reading

    async def test_reading_continues_from_next_offset(self) -> None:
        await self.streams.create("log", "text/plain", b"one")
        first = await self.streams.read("log")
        await self.streams.append("log", b"three")
        await self.streams.append("log", b"five")
        second = await self.streams.read("log", first.next_offset, 5)
        third = await self.streams.read("log", second.next_offset)
        self.assertEqual([each.data for each in (first, second, third)], [b"one", b"three", b"five"])
        self.assertEqual([each.up_to_date for each in (first, second, third)], [True, False, True])
        nothing = await self.streams.read("log", "now")
        self.assertEqual(nothing, Reading(b"", third.next_offset, True, False))

    async def test_invalid_offsets_are_refused(self) -> None:
        await self.streams.create("log", "text/plain", b"one")
        for offset in ("", "1", "somewhere", str(Offset(10**16 - 1, 1))):
            await self.fails(errors.InvalidOffset, self.streams.read("log", offset))
        with self.assertRaises(errors.InvalidOffset):
            self.streams.tail("log", "somewhere")

    async def test_list_and_head_return_the_metadata(self) -> None:
        for name in ("b", "a/x", "c"):
            await self.streams.create(name, "text/plain", name.encode())
        await self.streams.delete("c")
        found = await self.streams.list()
        self.assertEqual([(each.facts.name, each.tail) for each in found], [("a/x", 3), ("b", 1)])
        self.assertEqual(found[1], await self.streams.head("b"))

    async def test_a_tail_reads_until_the_stream_is_closed(self) -> None:
        await self.streams.create("log", "text/plain", b"first ")

        async def follow() -> bytes:
            return b"".join([reading.data async for reading in self.streams.tail("log", limit=8)])

        following = Deferred.fromCoroutine(follow())
        for number in range(5):
            await self.pause()
            await self.streams.append("log", b"number %d " % number)
        await self.streams.append("log", b"last", close=True)
        await self.pause()
        self.assertEqual(await following, b"first number 0 number 1 number 2 number 3 number 4 last")

    async def pause(self) -> None:
        """Advance the clock until waiting readers are woken."""
        raise NotImplementedError

    # Writing as a writer

    async def test_a_writer_numbers_its_appends(self) -> None:
        await self.streams.create("log", "text/plain")
        writer = self.streams.writer("log", "me", 3)
        appended = await gatherResults([writer.append(b"%d" % number) for number in range(5)])
        found = [(each.writer.epoch, each.writer.seq) for each in appended if each.writer is not None]
        self.assertEqual(found, [(3, number) for number in range(5)])
        batch = await writer.append_batch([b"a", b"b"], close=True)
        self.assertEqual((batch.closed, writer.seq), (True, 6))
        self.assertEqual(await self.data("log"), b"01234ab")

    async def test_a_refused_append_uses_no_sequence_number(self) -> None:
        await self.streams.create("events", "application/json")
        writer = self.streams.writer("events", "me")
        await self.fails(errors.InvalidJson, writer.append(b"{"))
        await self.fails(errors.EmptyBody, writer.append(b""))
        await writer.append(b"1")
        self.assertEqual((await self.data("events"), writer.seq), (b"[1]", 1))

    async def test_a_writer_is_fenced_off_by_a_later_one(self) -> None:
        await self.streams.create("log", "text/plain")
        early, late = self.streams.writer("log", "me", 0), self.streams.writer("log", "me", 1)
        await early.append(b"1")
        await late.append(b"2")
        await self.fails(errors.WriterFenced, early.append(b"3"))
        self.assertEqual(await self.data("log"), b"12")

    async def test_a_second_writer_of_the_same_epoch_is_fenced(self) -> None:
        await self.streams.create("log", "text/plain")
        await self.streams.writer("log", "me").append(b"1")
        await self.fails(errors.WriterFenced, self.streams.writer("log", "me").append(b"2"))
        await self.streams.writer("log", "me", first_seq=1).append(b"3")
        self.assertEqual(await self.data("log"), b"13")

    def test_an_invalid_writer_is_refused_at_once(self) -> None:
        for writer_id, epoch in (("", 0), ("me", -1)):
            with self.assertRaises(errors.InvalidRequest):
                self.streams.writer("log", writer_id, epoch)

    # The service

    async def test_methods_of_a_stopped_service_fail_with_unavailable(self) -> None:
        await self.streams.create("log", "text/plain")
        tail = self.streams.tail("log")
        await self.streams.stopService()
        for asked in (self.streams.append("log", b"x"), self.streams.read("log"), self.streams.list()):
            await self.fails(errors.Unavailable, asked)
        await self.fails(errors.Unavailable, Deferred.fromCoroutine(tail.__anext__()))
        with self.assertRaisesRegex(RuntimeError, "Create another one"):
            self.streams.startService()

    async def test_a_second_stop_waits_for_the_first(self) -> None:
        await gatherResults([self.streams.stopService(), self.streams.stopService()])
        await self.streams.stopService()
        self.assertFalse(self.streams.running)

    async def test_a_storage_has_one_service_until_that_has_stopped(self) -> None:
        with self.assertRaisesRegex(StorageOwned, r"wait for the Deferred of its stopService\(\) first"):
            StreamService(self.storage, self.streams.reactor)
        await self.streams.stopService()
        other = StreamService(self.storage, self.streams.reactor)
        with self.assertRaises(StorageOwned):
            StreamService(self.storage, self.streams.reactor)
        await other.stopService()
