"""The storage of the settings, without the rest of the server, for commands that open a data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..config.choices import ACID_BACKENDS, STORAGE_MODES
from ..config.settings import Settings
from ..interfaces import IStorage
from ..model import StorageLimits
from ..storage.acid import AcidStorage
from ..storage.file import FileSettings, FileStorage
from ..storage.memory import MemoryStorage
from .databases import postgres_storage_from

if TYPE_CHECKING:
    from ..listening.descriptors import DescriptorBudget


def storage_from(
    settings: Settings, reactor: Any, budget: DescriptorBudget | None = None, checkpoint_bytes: int | None = None
) -> IStorage:
    """
    Create the storage of ``storage.mode``. It is not opened.

    :param reactor: the time; results of threads are passed on in its thread.
    :param budget: limits the number of open files; None for the default.
    :param checkpoint_bytes: how many bytes a file storage keeps in memory before a checkpoint; None for the default.
    :raises ConfigError: a file that the settings name cannot be used, or an extra is not installed.
    """
    limits = StorageLimits(
        total_bytes=settings.limits.max_total_bytes,
        stream_bytes=settings.limits.max_stream_bytes,
        streams=settings.limits.max_streams,
        writers=settings.limits.max_producers_per_stream,
        metadata_bytes=settings.limits.max_metadata_bytes,
        fork_depth=settings.limits.max_fork_depth,
    )
    mode = STORAGE_MODES[settings.storage.mode]
    queued = settings.limits.max_queued_bytes
    verify = settings.storage.verify_reads
    if mode == "memory":
        return MemoryStorage(limits)
    if mode == "postgres":
        return postgres_storage_from(settings, limits, reactor)
    # twistd changes the current directory later, as a daemon or with --rundir.
    directory = os.path.abspath(settings.storage.data_dir)
    if mode == "acid":
        in_memory = ACID_BACKENDS[settings.storage.acid_backend] == "in-memory"
        return AcidStorage(None if in_memory else directory, reactor, limits, queued, verify_reads=verify)
    chosen = FileSettings(durable=mode == "file-durable", queued_bytes=queued, verify_reads=verify)
    if budget is not None:
        chosen = replace(chosen, open_files=budget.open_files)
    if checkpoint_bytes is not None:
        chosen = replace(chosen, checkpoint_bytes=checkpoint_bytes)
    return FileStorage(directory, reactor, limits, chosen)
