"""The limits of a storage's data and metadata, as the checks of a write."""

from __future__ import annotations

from ..errors import InsufficientStorage, StorageFull, StreamFull
from ..model import StorageLimits


def check_data_room(name: str, own: int, total: int, size: int, limits: StorageLimits) -> None:
    """
    Check that a stream may grow.

    :param own: how many bytes the stream has, without those of its source.
    :param total: how many bytes all streams have.
    :param size: by how many bytes it grows.
    :raises StorageFull: all streams together would exceed their limit.
    :raises StreamFull: the stream would exceed its limit.
    """
    if total + size > limits.total_bytes:
        raise StorageFull(name, limits.total_bytes)
    if own + size > limits.stream_bytes:
        raise StreamFull(name, limits.stream_bytes)


def check_metadata_room(metadata: int, size: int, limits: StorageLimits) -> None:
    """
    Check that the metadata of all streams together may grow.

    :param metadata: how many bytes it has.
    :param size: by how many bytes it grows; if this is not positive, the limit does not matter.
    :raises InsufficientStorage: it would exceed its limit.
    """
    if size > 0 and metadata + size > limits.metadata_bytes:
        raise InsufficientStorage(
            "The names, content types, Stream-Seqs and producers of all streams together would take more than "
            f"{limits.metadata_bytes} bytes (limits.max_metadata_bytes). Delete streams that are not needed, "
            "or reuse a Producer-Id."
        )
