"""Checkpoints in file-fast, where changes are acknowledged before they are synced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from twisted.trial.unittest import TestCase

from durable_streams.server.storage.file import FileSettings
from durable_streams.server.storage.file.checkpointer import Move, Pack, Relocation
from durable_streams.server.storage.file.stream import FileStream
from tests.storage.file.directories import checkpointed, create, opened


class CheckpointTests(TestCase):
    async def test_bytes_are_moved_after_the_sync_of_the_journal_that_has_them(self) -> None:
        storage = opened(Path(self.mktemp()), FileSettings(durable=False, segment_sizes=(1 << 20,)))
        self.addCleanup(storage.close)
        checkpointer = storage._checkpointer
        streams_to_move, carry_out = checkpointer._streams_to_move, checkpointer._carry_out
        moved: list[tuple[str, bool]] = []

        async def after_a_creation() -> Iterable[FileStream]:
            await create(storage, "late", b"x" * 100_000)
            return await streams_to_move()

        def recorded(moves: Sequence[Move], pack: Pack) -> list[Relocation]:
            durable_lsn = storage._log.journal.durable_lsn
            moved.extend((move.stream.facts.name, move.stream.lsn <= durable_lsn) for move in moves)
            return carry_out(moves, pack)

        self.patch(checkpointer, "_streams_to_move", after_a_creation)
        self.patch(checkpointer, "_carry_out", recorded)
        await create(storage, "early", b"y" * 100)
        await checkpointed(storage)
        self.assertEqual({("early", True), ("late", True)}, set(moved))
