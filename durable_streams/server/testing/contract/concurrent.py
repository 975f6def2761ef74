"""Contract: concurrent operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import (
    ForkFromDeleted,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamNotFound,
)
from ...interfaces import NowOrLater
from ...model import (
    Append,
    Appended,
    Created,
    Fork,
    StreamConfig,
    Writer,
)
from ..values import TEXT
from .base import Contract


class ConcurrencyContract(Contract):
    """Tests that each operation is atomic while others run. The order of concurrent operations is not specified."""

    def start_append(self, name: str, append: Append) -> Callable[[], NowOrLater[Appended]]:
        return lambda: self.storage.append(name, append, self.now)

    async def test_concurrent_appends_are_all_written(self) -> None:
        await self.create()
        words = [b"%03d" % number for number in range(50)]
        outcomes = await self.together(self.start_append("a", Append("text/plain", word)) for word in words)
        placed = {
            outcome.tail: word for outcome, word in zip(outcomes, words, strict=True) if isinstance(outcome, Appended)
        }
        self.assertEqual(sorted(placed), list(range(3, 151, 3)))
        self.assertEqual(await self.content(), b"".join(placed[tail] for tail in sorted(placed)))

    async def test_of_concurrent_retries_of_an_append_one_is_written(self) -> None:
        await self.create()
        append = Append("text/plain", b"once", writer=Writer("w", 0, 0))
        outcomes = await self.together([self.start_append("a", append)] * 5)
        duplicates = [outcome.duplicate for outcome in outcomes if isinstance(outcome, Appended)]
        self.assertEqual(sorted(duplicates), [False, True, True, True, True])
        self.assertEqual(await self.content(), b"once")

    async def test_of_concurrent_appends_with_one_stream_seq_one_is_accepted(self) -> None:
        await self.create()
        appends = [Append("text/plain", b"x", sequence=b"1")] * 5
        outcomes = await self.together(self.start_append("a", append) for append in appends)
        self.assertEqual(sum(isinstance(outcome, SequenceConflict) for outcome in outcomes), 4)
        self.assertEqual(await self.content(), b"x")

    async def test_no_concurrent_append_is_written_after_a_close(self) -> None:
        await self.create()
        appends = [Append("text/plain", b"%d" % number, close=number == 2) for number in range(6)]
        outcomes = await self.together(self.start_append("a", append) for append in appends)
        written = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, StreamClosed)]
        status = await self.status()
        self.assertEqual((len(written) + len(refused), status.closed, status.tail), (6, True, len(written)))
        self.assertEqual((await self.content())[-1:], b"2")
        self.assertEqual({error.tail for error in refused} | {status.tail}, {status.tail})

    async def test_of_concurrent_equal_creates_one_creates_the_stream(self) -> None:
        calls = [lambda: self.storage.create("a", TEXT, b"hello", self.now)] * 5
        outcomes = await self.together(calls)
        made = [outcome for outcome in outcomes if isinstance(outcome, Created)]
        self.assertEqual(sorted(outcome.new for outcome in made), [False] * 4 + [True])
        self.assertEqual(len({outcome.facts.id for outcome in made}), 1)
        self.assertEqual(await self.content(), b"hello")

    async def test_of_concurrent_deletes_one_succeeds(self) -> None:
        await self.create()
        outcomes = await self.together([lambda: self.storage.delete("a", self.now)] * 3)
        self.assertEqual(sum(isinstance(outcome, StreamNotFound) for outcome in outcomes), 2)
        await self.assert_absent()

    async def test_a_limit_holds_for_concurrent_appends(self) -> None:
        await self.take(total_bytes=10, streams=5)
        for name in ("a", "b", "c", "d", "e"):
            await self.create(name)
        append = Append("text/plain", b"xxxx")
        outcomes = await self.together(self.start_append(name, append) for name in ("a", "b", "c", "d", "e"))
        self.assertEqual(sum(isinstance(outcome, StorageFull) for outcome in outcomes), 3)
        self.assertEqual(sum(status.tail for status in await self.statuses()), 8)

    async def test_a_fork_concurrent_with_its_sources_deletion_is_complete_or_rejected(self) -> None:
        await self.create("a", body=b"hello")
        calls: list[Callable[[], NowOrLater[Any]]] = [
            lambda: self.storage.delete("a", self.now),
            lambda: self.storage.create("b", StreamConfig(fork=Fork("a")), b"", self.now),
        ]
        outcome = (await self.together(calls))[1]
        if isinstance(outcome, Created):
            self.assertEqual(await self.content("b"), b"hello")
            await self.delete("b")
        else:
            self.assertIsInstance(outcome, (StreamNotFound, ForkFromDeleted))
        await self.assert_absent("a")
