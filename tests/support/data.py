"""Data directories with a few streams, for commands that open one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.storages import storage_from
from durable_streams.server.model import Append, Lifetime, StreamConfig
from durable_streams.server.streams import Streams
from durable_streams.server.testing import settled

#: The kinds of storage on a disk.
MODES = ("file-durable", "acid")


async def opened_streams(directory: Path, mode: str = "file-durable") -> Streams:
    """Open the streams of a data directory, as a server does."""
    settings = Settings.from_mapping({"storage.mode": mode, "storage.data_dir": str(directory)})
    streams = Streams(storage_from(settings, reactor), reactor)
    streams.startService()
    return streams


async def make_directory(directory: Path, mode: str = "file-durable") -> None:
    """Make a data directory with three streams: JSON, closed text, and one with a TTL and a long name."""
    streams = await opened_streams(directory, mode)
    await settled(streams.create("chat/1", StreamConfig("application/json"), b'[{"a":1},{"b":2}]'))
    await settled(streams.create("log", StreamConfig("text/plain"), b"x" * 2000))
    await settled(streams.append("log", Append("text/plain", b"y", close=True)))
    await settled(streams.create("n" * 40, StreamConfig("text/plain", Lifetime(ttl=3600)), b""))
    await streams.stopService()


async def make_many(directory: Path, names: Iterable[str], mode: str = "file-durable") -> None:
    """Make a data directory with many streams of five bytes."""
    streams = await opened_streams(directory, mode)
    await gatherResults([maybeDeferred(streams.create, name, StreamConfig("text/plain"), b"hello") for name in names])
    await streams.stopService()


def storage_settings(directory: Path, mode: str = "file-durable") -> dict[str, str]:
    """Return the settings with which a command opens a data directory."""
    return {"storage__mode": mode, "storage__data_dir": str(directory)}
