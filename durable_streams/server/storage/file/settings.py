"""Settings of the file storage that are fixed while it is open."""

from __future__ import annotations

from msgspec import Struct

from .journal import SEGMENT_SIZES


class FileSettings(Struct, frozen=True, gc=False):
    """
    Tuning of the file storage.

    :ivar durable: whether an acknowledgement waits for a sync, and not only for the write.
    :ivar queued_bytes: how many bytes of changes may be queued; more are refused.
    :ivar checkpoint_bytes: how many bytes the journal may grow before a checkpoint is made.
    :ivar reclaim_bytes: how many bytes packs may take beyond twice their live bytes before a checkpoint is made.
    :ivar max_behind_bytes: how many bytes the journal may grow while a checkpoint is due; further writes are refused.
    :ivar open_files: how many files stay open for reading.
    :ivar segment_sizes: sizes of a journal segment, in bytes; the next one is tried if the disk has no room.
    :ivar verify_reads: whether bytes that are read from disk are compared with their checksums before they are served.
    :ivar slice_streams: how many streams a checkpoint handles in one turn of the reactor.
    :ivar slice_bytes: about how many bytes of entries a checkpoint writes in one turn of the reactor.
    """

    durable: bool = True
    queued_bytes: int = 67_108_864
    checkpoint_bytes: int = 67_108_864
    reclaim_bytes: int = 4_194_304
    max_behind_bytes: int = 536_870_912
    open_files: int = 128
    segment_sizes: tuple[int, ...] = SEGMENT_SIZES
    slice_streams: int = 128
    slice_bytes: int = 524_288
    verify_reads: bool = True
