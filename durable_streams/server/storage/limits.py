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


def check_stream_count(count: int, limits: StorageLimits) -> None:
    """
    Check that another stream may be created.

    :param count: how many streams there are.
    :raises InsufficientStorage: there are as many as the limit allows.
    """
    if count >= limits.streams:
        raise InsufficientStorage(
            f"There are {limits.streams} streams, which is the limit (limits.max_streams). Delete some, or "
            "let them expire."
        )


def check_fork_depth(depth: int, limits: StorageLimits) -> None:
    """
    Check that a stream may be forked.

    :param depth: the number of forks from the stream that is not a fork to the source.
    :raises InsufficientStorage: it is as large as the limit allows.
    """
    if depth >= limits.fork_depth:
        raise InsufficientStorage(
            f"The source is at the maximum depth of forks of forks, {limits.fork_depth} "
            "(limits.max_fork_depth). Fork an earlier stream, or copy the source into a new stream."
        )


def check_values_room(metadata: int, size: int, limits: StorageLimits) -> None:
    """
    Check that the values beside the streams may grow.

    :param metadata: how many bytes the metadata of all streams and values has.
    :param size: by how many bytes it grows; if this is not positive, the limit does not matter.
    :raises InsufficientStorage: it would exceed its limit.
    """
    if size > 0 and metadata + size > limits.metadata_bytes:
        raise InsufficientStorage(
            "The metadata of all streams and subscriptions together would take more than "
            f"{limits.metadata_bytes} bytes (limits.max_metadata_bytes). Delete subscriptions or streams "
            "that are not needed, or raise the limit."
        )
