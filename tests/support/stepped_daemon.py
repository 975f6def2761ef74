"""
A server whose wall clock a test can set while it runs, and whose syncs are counted.

``python -m tests.support.stepped_daemon SYNCS twistd ARGUMENTS`` is the daemon;
``python -m tests.support.stepped_daemon SYNCS embedded PORT MODE DIRECTORY`` is a program that embeds the server in a
reactor of its own. The file SYNCS grows by a byte with each fdatasync.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from durable_streams.server.storage.disk import RealFile
from tests.support.daemon import Daemon, free_port
from tests.support.programs import program

_LIBRARY: Final = "faketime/libfaketimeMT.so.1"


def library() -> str:
    """Return the path of libfaketimeMT; skip or fail the test if it is not installed."""
    program("faketime")
    return str(next(Path("/usr/lib").glob(f"*/{_LIBRARY}")))


class SteppedDaemon(Daemon):
    """
    A running daemon, or program that embeds the server, whose wall clock can be set.

    :param embedded: the storage mode of a program that embeds the server; None for the daemon.
    """

    def __init__(self, embedded: str | None = None, **settings: object) -> None:
        self._place = tempfile.TemporaryDirectory()
        self._clock = Path(self._place.name, "clock")
        self._syncs = Path(self._place.name, "syncs")
        self._syncs.touch()
        self.offset = 0
        self._set(0)
        port = free_port()
        directory = str(Path(self._place.name, "data"))
        if embedded is None:
            what = ["twistd", "-n", "--pidfile=", "durable-streams"]
        else:
            what = ["embedded", str(port), embedded, directory]
        self.command = (
            "env",
            f"LD_PRELOAD={library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._clock}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "NO_FAKE_STAT=1",
            sys.executable,
            "-m",
            "tests.support.stepped_daemon",
            str(self._syncs),
            *what,
        )
        super().__init__(port, **({"storage__data_dir": directory} | settings))

    def close(self) -> None:
        super().close()
        self._place.cleanup()

    def _set(self, offset: int) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        new.rename(self._clock)

    def step(self, seconds: int) -> None:
        """Set the daemon's wall clock forward or back by so many seconds."""
        self.offset += seconds
        self._set(self.offset)

    def wall(self) -> float:
        """Return the time by the daemon's wall clock."""
        return time.time() + self.offset

    def syncs(self) -> int:
        """Return the number of fdatasyncs so far."""
        return self._syncs.stat().st_size


def _count_syncs(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    sync = RealFile.sync

    def counted(self: RealFile) -> None:
        sync(self)
        os.write(descriptor, b".")

    patched: Any = RealFile
    patched.sync = counted


def _embedded(port: str, mode: str, directory: str) -> None:
    from twisted.internet import reactor as running  # noqa: PLC0415 (the daemon chooses its own)

    from durable_streams.server import build_service  # noqa: PLC0415 (as above)
    from durable_streams.server.config.settings import Settings  # noqa: PLC0415 (as above)
    from durable_streams.server.daemon.storages import storage_from  # noqa: PLC0415 (as above)

    reactor: Any = running
    settings = Settings.load()
    service = build_service(storage_from(settings, reactor), settings, [f"tcp:{port}:interface=127.0.0.1"], reactor)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def main() -> None:
    """Serve until SIGTERM."""
    _count_syncs(sys.argv.pop(1))
    if sys.argv[1] == "embedded":
        _embedded(*sys.argv[2:])
    else:
        from twisted.scripts.twistd import run  # noqa: PLC0415 (as above)

        sys.argv.pop(0)
        run()


if __name__ == "__main__":
    main()
