"""Contract: values beside the streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred

from ...errors import InsufficientStorage, InvalidRequest, StreamsError, ValuesChanged
from ...interfaces import NowOrLater
from ..values import settled
from .base import Contract


class ValueContract(Contract):
    """Tests of ``values`` and ``write_values``."""

    async def write(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None] = {}) -> None:
        await settled(self.storage.write_values(puts, expected))

    async def found(self, prefix: str = "", after: str = "", max_count: int = 1000) -> list[tuple[str, bytes]]:
        return await settled(self.storage.values(prefix, after, max_count))

    async def refused_write(
        self,
        error: type[StreamsError],
        puts: Mapping[str, bytes | None],
        expected: Mapping[str, bytes | None] = {},
    ) -> StreamsError:
        """Assert that a write raises an error and changes nothing; return the error."""
        before = await self.found()
        reason = await self.refused(error, self.write(puts, expected))
        self.assertEqual(await self.found(), before)
        return reason

    async def test_a_new_storage_has_no_values(self) -> None:
        self.assertEqual(await self.found(), [])

    async def test_values_are_returned_in_the_order_of_their_keys(self) -> None:
        await self.write({"b": b"2", "a/c": b"", "a": b"\0\xff", "a/b": b"1"})
        expected = [("a", b"\0\xff"), ("a/b", b"1"), ("a/c", b""), ("b", b"2")]
        self.assertEqual(await self.found(), expected)

    async def test_keys_are_ordered_by_the_codes_of_their_characters(self) -> None:
        keys = ["Z", "a", "a\u00a0", "\u2603", "\ufeff", "\U0001f600"]
        await self.write(dict.fromkeys(reversed(keys), b"x"))
        self.assertEqual([key for key, _ in await self.found()], keys)

    async def test_a_put_replaces_a_value_and_none_removes_it(self) -> None:
        await self.write({"a": b"1", "b": b"2", "c": b"3"})
        await self.write({"a": b"1+", "b": None, "d": b"4", "e": None})
        self.assertEqual(await self.found(), [("a", b"1+"), ("c", b"3"), ("d", b"4")])
        await self.write({"b": b"again"})
        self.assertEqual(await self.found("b"), [("b", b"again")])

    async def test_pages_have_the_values_of_a_prefix_after_a_key(self) -> None:
        await self.write({f"{folder}/{number}": b"%d" % number for folder in ("a", "b", "bb") for number in range(10)})
        self.assertEqual([key for key, _ in await self.found("b/")], [f"b/{number}" for number in range(10)])
        self.assertEqual(await self.found("b/", max_count=2), [("b/0", b"0"), ("b/1", b"1")])
        self.assertEqual(await self.found("b/", "b/1", 2), [("b/2", b"2"), ("b/3", b"3")])
        self.assertEqual(await self.found("b/", "b/7", 2), [("b/8", b"8"), ("b/9", b"9")])
        self.assertEqual(await self.found("b/", "b/9", 2), [])
        self.assertEqual(await self.found("b/", "b/1x", 1), [("b/2", b"2")])
        self.assertEqual(await self.found("", "b/8", 2), [("b/9", b"9"), ("bb/0", b"0")])
        self.assertEqual(await self.found("c"), [])

    async def test_a_page_after_a_removed_key_goes_on_behind_it(self) -> None:
        await self.write(dict.fromkeys("abcd", b"x"))
        await self.write({"b": None})
        self.assertEqual(await self.found("", "b", 1), [("c", b"x")])

    async def test_many_values_are_returned_a_page_at_a_time(self) -> None:
        keys = sorted(f"links/{number % 7}/{number}" for number in range(3000))
        for part in range(3):
            await self.write({key: key.encode() for key in keys[part::3]})
        read: list[tuple[str, bytes]] = []
        while page := await self.found("links/", read[-1][0] if read else "", 700):
            self.assertLessEqual(len(page), 700)
            self.assertGreater(page[0][0], read[-1][0] if read else "")
            read += page
        self.assertEqual(read, [(key, key.encode()) for key in keys])

    async def test_expected_values_allow_a_write(self) -> None:
        await self.write({"a": b"1"}, {"a": None, "b": None})
        await self.write({"a": b"2", "b": b"2"}, {"a": b"1", "b": None})
        await self.write({"a": None}, {"a": b"2", "b": b"2"})
        self.assertEqual(await self.found(), [("b", b"2")])

    async def test_another_value_than_expected_is_refused(self) -> None:
        await self.write({"a": b"1", "b": b"1"})
        for expected in ({"b": b"1", "a": b"2"}, {"b": b"1", "a": None}, {"a": b"", "b": b"1"}):
            error = await self.refused_write(ValuesChanged, {"a": b"3", "b": None, "c": b"3"}, expected)
            assert isinstance(error, ValuesChanged)
            self.assertEqual(error.key, "a")
        error = await self.refused_write(ValuesChanged, {"a": b"3"}, {"c": b""})
        self.assertIn("c", str(error))

    async def test_a_write_of_nothing_only_compares(self) -> None:
        await self.write({"a": b"1"})
        await self.write({}, {"a": b"1", "b": None})
        await self.refused_write(ValuesChanged, {}, {"a": b"2"})
        self.assertEqual(await self.found(), [("a", b"1")])

    async def test_a_repeated_write_changes_nothing(self) -> None:
        await self.write({"a": b"1", "b": None})
        await self.write({"a": b"1", "b": None}, {"a": b"1"})
        self.assertEqual(await self.found(), [("a", b"1")])

    async def test_malformed_keys_are_refused(self) -> None:
        for key in ("", "\ud800", "x" * 8193, "\u2603" * 2731):
            for puts, expected in (({"a": b"1", key: b"1"}, {}), ({"a": b"1"}, {key: None})):
                await self.refused_write(InvalidRequest, puts, expected)
        long = "\u2603" * 2730
        await self.write({long: b"1"})
        self.assertEqual(await self.found("\u2603"), [(long, b"1")])

    async def test_a_value_of_4_mib_is_written_and_a_larger_one_refused(self) -> None:
        await self.refused_write(InvalidRequest, {"a": b"1", "b": b"x" * (4 * 2**20 + 1)})
        large = bytes(range(256)) * 2**14
        await self.write({"a": large})
        self.assertEqual(await self.found(), [("a", large)])

    async def test_a_call_is_limited_in_keys_and_bytes(self) -> None:
        await self.refused_write(InvalidRequest, {f"{number}": b"" for number in range(10_001)})
        await self.refused_write(InvalidRequest, dict.fromkeys("abcd", b"x" * (4 * 2**20)))

    async def test_values_count_as_metadata(self) -> None:
        await self.write({"a": b"x" * 100})
        one = self.storage.figures().metadata_bytes
        self.assertGreater(one, 100)
        await self.write({"b": b"x" * 100})
        self.assertEqual(self.storage.figures().metadata_bytes, 2 * one)
        await self.write({"a": b"x" * 90, "\u2603": b"x" * 100})
        self.assertEqual(self.storage.figures().metadata_bytes, 3 * one - 10 + 2)
        await self.write({"a": None, "b": None, "\u2603": None})
        self.assertEqual(self.storage.figures().metadata_bytes, 0)

    async def test_values_and_streams_share_the_limit_of_metadata(self) -> None:
        await self.write({"a": b"x" * 100})
        one = self.storage.figures().metadata_bytes
        await self.take(metadata_bytes=2 * one + 11)
        await self.create()
        await self.write({"a": b"x" * 100, "b": b"x" * 100})
        error = await self.refused_write(InsufficientStorage, {"a": b"x" * 101})
        self.assertIn("limits.max_metadata_bytes", str(error))
        await self.refused_write(InsufficientStorage, {"a": b"", "c": b"x" * 100})
        await self.refused(InsufficientStorage, self.create("b"))
        await self.write({"a": b"x" * 99, "b": b"x" * 101})
        await self.write({"a": None})
        self.assertTrue((await self.create("b")).new)

    async def test_values_are_no_streams(self) -> None:
        await self.write({"a": b"1"})
        await self.assert_absent("a")
        await self.create("a")
        await self.delete("a")
        self.assertEqual(await self.found(), [("a", b"1")])

    async def test_values_are_not_announced(self) -> None:
        await self.create()
        listener = self.listen()
        await self.write({"a": b"1"})
        await self.write({"a": None})
        await self.append(data=b"x")
        self.assertEqual(set(listener.heard), {"a"})
        self.assertEqual(len(listener.heard), 1)

    # At the same time

    def start_write(
        self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]
    ) -> Callable[[], NowOrLater[None]]:
        return lambda: self.storage.write_values(puts, expected)

    async def test_of_concurrent_writes_that_expect_one_value_one_succeeds(self) -> None:
        await self.write({"a": b""})
        writes = [self.start_write({"a": b"%d" % number, f"{number}": b"x"}, {"a": b""}) for number in range(10)]
        outcomes = await self.together(writes)
        succeeded = [number for number, outcome in enumerate(outcomes) if outcome is None]
        self.assertEqual(len(succeeded), 1)
        self.assertEqual(sum(isinstance(outcome, ValuesChanged) for outcome in outcomes), 9)
        self.assertEqual(await self.found(), [(f"{succeeded[0]}", b"x"), ("a", b"%d" % succeeded[0])])

    async def test_concurrent_writes_of_different_keys_all_succeed(self) -> None:
        writes = [self.start_write({f"{number}": b"x"}, {f"{number}": None}) for number in range(50)]
        self.assertEqual(await self.together(writes), [None] * 50)
        self.assertEqual(len(await self.found()), 50)

    async def test_a_page_during_a_write_has_all_of_it_or_nothing(self) -> None:
        await self.write({"a": b"1", "b": b"1"})
        write = self.begin(self.start_write({"a": b"2", "b": None, "c": b"2"}, {}))
        page = await self.found()
        self.assertIn(page, [[("a", b"1"), ("b", b"1")], [("a", b"2"), ("c", b"2")]])
        await write
        self.assertEqual(await self.found(), [("a", b"2"), ("c", b"2")])

    async def test_a_count_by_compare_and_set_loses_none(self) -> None:
        async def count() -> None:
            while True:
                page = await self.found("count")
                value = page[0][1] if page else None
                try:
                    await self.write({"count": b"%d" % (int(value or b"0") + 1)}, {"count": value})
                except ValuesChanged:
                    continue
                return

        counts: list[Callable[[], NowOrLater[None]]] = [lambda: Deferred.fromCoroutine(count())] * 10
        self.assertEqual(await self.together(counts), [None] * 10)
        self.assertEqual(await self.found(), [("count", b"10")])
