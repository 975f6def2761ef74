"""The storage of docs/writing-a-storage.rst: the page's test passes, and the storage fails as the page says."""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import StorageError
from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Append, StreamConfig
from tests.support.daemon import CHECKOUT
from tests.support.pages import block_after, run_under_trial

EXAMPLE = CHECKOUT / "docs" / "examples" / "operation_log.py"
PAGE = CHECKOUT / "docs" / "writing-a-storage.rst"


def example() -> Any:
    """Import the example."""
    spec = spec_from_file_location("operation_log", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["operation_log"] = module
    spec.loader.exec_module(module)
    return module


class OperationLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.storage = self.opened()

    def opened(self) -> Any:
        storage = example().OperationLogStorage(self.path)
        storage.open()
        self.addCleanup(storage.close)
        return storage

    def append(self, data: bytes) -> Any:
        return self.storage.append("a", Append("text/plain", data), 2.0)

    def test_the_contract_test_of_the_page_passes(self) -> None:
        source = block_after(PAGE, "``durable_streams.server.testing`` has the contract")
        output = run_under_trial(Path(self.mktemp()), source, EXAMPLE.parent)
        self.assertRegex(output, r"PASSED \(successes=\d{3}\)")

    def test_half_a_record_at_the_end_is_dropped_and_the_rest_is_there(self) -> None:
        self.storage.create("a", StreamConfig("text/plain"), b"one", 1.0)
        self.append(b"two")
        self.storage.close()
        os.truncate(self.path, self.path.stat().st_size - 1)
        self.storage = self.opened()
        self.assertEqual(self.storage.status("a", 3.0).tail, 3)
        self.append(b"two!")
        self.storage.close()
        self.assertEqual(self.opened().status("a", 3.0).tail, 7)

    def test_a_file_has_one_owner(self) -> None:
        error = self.assertRaises(StorageError, self.opened)
        self.assertIn(str(self.path), str(error))

    def test_after_a_failed_sync_nothing_is_announced_read_or_written(self) -> None:
        self.storage.create("a", StreamConfig("text/plain"), b"one", 1.0)
        heard: list[str] = []

        class Listener:
            def committed(self, name: str) -> None:
                heard.append(name)

        self.storage.listen(Listener())

        def fail(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        self.patch(os, "fdatasync", fail)
        self.assertRaises(Unavailable, self.append, b"two")
        self.assertEqual([], heard)
        self.assertIn("Restart the server", self.storage.obstacle())
        self.assertRaises(Unavailable, self.storage.status, "a", 3.0)
