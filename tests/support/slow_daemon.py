"""The daemon with a storage that loads slowly: ``python -m tests.support.slow_daemon FILE twistd-arguments``.

What the data directory holds is not taken up before FILE exists.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import twisted.scripts.twistd

from durable_streams.server.daemon import storages
from durable_streams.server.storage.file import FileStorage

PERMISSION = Path(sys.argv.pop(1))


class SlowStorage(FileStorage):
    """A file storage that loads its data only after a permission file exists."""

    def load(self) -> None:
        while not PERMISSION.exists():
            time.sleep(0.02)
        super().load()


if __name__ == "__main__":
    patched: Any = storages
    patched.FileStorage = SlowStorage
    sys.argv[0] = "twistd"
    twisted.scripts.twistd.run()
