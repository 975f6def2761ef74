"""A storage with a log on a disk in memory, whose workers do at once what they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from durable_streams.server.storage.file import FileSettings, FileStorage

from .simulated_disk import SimulatedDisk

T = TypeVar("T")


class WorkerAtOnce:
    """No thread, and no waiting."""

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        return execute(work)

    def close(self) -> None:
        """There is nothing to wait for."""


def file_storage_at_once(clock: Clock) -> FileStorage:
    """Make one."""
    settings = FileSettings(segment_sizes=(1 << 20,))
    return FileStorage(
        "/streams", clock, settings=settings, disk=SimulatedDisk(1), workers=lambda name, hands: WorkerAtOnce()
    )
