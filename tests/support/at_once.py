"""A file storage on a disk in memory, with workers that run each job at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from durable_streams.server.storage.file import FileSettings, FileStorage

from .simulated_disk import SimulatedDisk

T = TypeVar("T")


class WorkerAtOnce:
    """A worker that runs each job in the caller's thread."""

    def do(self, work: Callable[[], T]) -> Deferred[T]:
        return execute(work)

    def close(self) -> None:
        """Do nothing: no job is pending."""


def file_storage_at_once(clock: Clock) -> FileStorage:
    """Create such a storage."""
    settings = FileSettings(segment_sizes=(1 << 20,))
    return FileStorage(
        "/streams", clock, settings=settings, disk=SimulatedDisk(1), workers=lambda name, hands: WorkerAtOnce()
    )
