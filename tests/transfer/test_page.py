"""docs/transfer.rst: its command, its program and its document."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server import FileStorage, MemoryStorage, StreamService
from tests.support.daemon import CHECKOUT, PATIENCE, environment
from tests.support.pages import block_after
from tests.support.transfers import document_object, pretty, stream_object
from tests.transfer.test_parsing import parsed

PAGE = CHECKOUT / "docs" / "transfer.rst"


class TransferPageTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()

    def service(self, storage: Any) -> StreamService:
        service = StreamService(storage)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def test_the_command_moves_streams_to_another_directory(self) -> None:
        service = StreamService(FileStorage(self.folder / "old", reactor))
        service.startService()
        await service.when_open()
        await service.create("a", "text/plain", b"hello")
        await service.stopService()
        for name in ("old", "new"):
            text = f'[storage]\nmode = "file-durable"\ndata_dir = "{self.folder / name}"\n'
            (self.folder / f"{name}.toml").write_text(text)
        command = block_after(PAGE, "How do I move streams to another server?")
        program = f"{sys.executable} -m durable_streams.server"
        done = subprocess.run(
            ["/bin/sh", "-c", command.replace("durable-streams-server", program)],
            cwd=self.folder,
            env=environment(0) | {"PYTHONPATH": os.fspath(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        self.assertEqual((0, ""), (done.returncode, done.stdout), done.stderr)
        self.assertIn("Imported 1 stream(s), skipped 0, 1 message(s) total", done.stderr)

    def test_the_document_is_valid_and_as_it_is_written(self) -> None:
        text = block_after(PAGE, "The document\n----").strip().encode()
        document = json.loads(text)
        self.assertEqual(text, pretty(document))
        self.assertEqual(3, len(parsed(text)))
        [stream] = document["streams"]
        made = document_object(stream_object("a", "text/plain", b"x"))
        self.assertEqual(list(made), list(document))
        self.assertEqual(list(made["streams"][0]), list(stream))
        self.assertEqual(list(made["streams"][0]["config"]), list(stream["config"]))

    async def test_the_program_copies_and_restores_streams_and_reports_errors(self) -> None:
        source = PAGE.read_text().partition(".. code-block:: python\n\n")[2].partition("\n\nBoth return")[0]
        names: dict[str, Any] = {}
        exec(textwrap.dedent(source), names)
        service = self.service(MemoryStorage())
        await service.create("events/clicks", "application/json", b"[1, 2]")
        path = os.fspath(self.folder / "document.json")
        said = io.StringIO()
        with redirect_stdout(said):
            await names["copy"](service, path)
            await names["restore"](service, path)
            await service.fork("fork", "events/clicks")
            await names["restore"](service, path)
            Path(path).write_bytes(b"{")
            await names["restore"](service, path)
        lines = said.getvalue().splitlines()
        self.assertEqual("1 streams, 2 messages", lines[0])
        self.assertIn("1 imported, 0 skipped", lines)
        self.assertIn("Nothing was written: events/clicks exists", lines)
        self.assertIn("Nothing was written: invalid document: it ends after 1 bytes", lines[-1])
