"""Tests of the documented file format: an independent script reads the storage's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from durable_streams.server.model import Append, Fork, Offset
from durable_streams.server.testing import settled

from .directories import append, checkpointed, contents, create, digests, fill, flip, install, only, opened

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "recover_by_hand.py"


def by_hand(*arguments: object) -> tuple[bytes, str]:
    """Run the script; return its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, *map(str, arguments)], capture_output=True, timeout=60, check=True
    )
    return done.stdout, done.stderr.decode()


class RecoverByHandTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.directory = Path(self.mktemp()).absolute()
        await fill(self.directory)

    async def assert_alike(self) -> None:
        before = digests(self.directory)
        listed, complaints = by_hand(self.directory)
        self.assertEqual("", complaints)
        self.assertEqual(before, digests(self.directory))
        read = {}
        for line in listed.decode().splitlines():
            name, size, _ = line.split("\t")
            read[name], _ = by_hand(self.directory, name)
            self.assertEqual(int(size), len(read[name]))
        self.assertEqual(await contents(self.directory), read)

    async def test_the_script_reads_the_same_streams_as_the_storage(self) -> None:
        await self.assert_alike()

    async def test_the_script_reads_the_same_streams_after_more_changes(self) -> None:
        storage = opened(self.directory)
        await append(storage, "small/0", b"z" * 70_000)
        await create(storage, "fork/of", b"!", Fork("large", Offset(1, 40_000)))
        await checkpointed(storage)
        await append(storage, "small/0", b"y" * 70_000)
        await append(storage, "fork/of", b"?")
        await create(storage, "fork/of/fork", b"", Fork("fork/of"))
        await settled(storage.delete("fork/of", 0.0))
        await settled(storage.append("late", Append(None, b"", close=True), 0.0))
        await settled(storage.delete("small/1", 0.0))
        await storage.close()
        listed, _ = by_hand(self.directory)
        self.assertIn(b"late\t20\tclosed\n", listed)
        self.assertNotIn(b"small/1\t", listed)
        await self.assert_alike()

    async def test_the_script_reads_installed_streams(self) -> None:
        storage = opened(self.directory)
        for staged in range(3):
            await create(storage, f"__ds/{staged}", b"%d" % staged * 70_000)
        await install(storage, "__ds/0", "small/0", closed=True)
        await checkpointed(storage)
        await install(storage, "__ds/1", "large")
        await append(storage, "large", b"!")
        await install(storage, "__ds/2", "new")
        await storage.close()
        listed, _ = by_hand(self.directory)
        self.assertIn(b"small/0\t70000\tclosed\n", listed)
        self.assertIn(b"large\t70001\topen\n", listed)
        await self.assert_alike()

    def test_the_script_reports_damage(self) -> None:
        flip(only(self.directory, "streams/*/*.data"), 50_000)
        flip(self.directory / "packs/0000000000000001", 100)
        _, complaints = by_hand(self.directory)
        self.assertIn("1.data: 40000 to 80000 are damaged", complaints)
        self.assertIn("packs/0000000000000001: the piece at ", complaints)

    async def test_a_missing_file_is_reported_unless_its_stream_was_deleted(self) -> None:
        storage = opened(self.directory)
        await settled(storage.delete("large", 0.0))
        await storage.close()
        await self.assert_alike()
        storage = opened(self.directory)
        await create(storage, "lost", b"x" * 70_000)
        await checkpointed(storage)
        await storage.close()
        path = only(self.directory, "streams/*/*.data")
        path.unlink()
        _, complaints = by_hand(self.directory)
        self.assertIn(f"{path.name} is missing", complaints)

    def test_the_script_does_not_import_the_server(self) -> None:
        self.assertNotIn("durable_streams", SCRIPT.read_text())
