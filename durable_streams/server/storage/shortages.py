"""Temporary shortages: the operating system refused a call before anything was written, and it can be tried again."""

from __future__ import annotations

import errno
from typing import Final

from ..errors import Unavailable

#: Out of descriptors, of memory or of threads, or interrupted. A failed sync never counts: see :exc:`SyncFailed`.
_SHORTAGES: Final = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR])

#: How long, in seconds, writes are refused after a shortage before the call is tried again.
RETRY_INTERVAL: Final = 0.5

SHORT: Final = "The server is short of file descriptors or memory. Try again in a moment."


class SyncFailed(OSError):
    """Data may not have reached the disk. A later sync that succeeds would not prove that it has: this is final."""


def is_shortage(error: BaseException | None) -> bool:
    """Return whether a call failed for a shortage that passes, without having written or lost anything."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES and not isinstance(error, SyncFailed)


def shortage_of(error: BaseException | None) -> Unavailable | None:
    """Return the answer for callers if an error is a temporary shortage, else None."""
    return Unavailable(SHORT) if is_shortage(error) else None
