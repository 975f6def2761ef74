"""Reading of files with secrets, which only their owner may use (mode 0600)."""

from __future__ import annotations

import os
import stat

from .regular_files import open_regular_file


class SharedFileError(Exception):
    """
    Users other than the owner may use the file.

    :ivar mode: the mode of the file in four octal digits, for messages.
    """

    def __init__(self, mode: str) -> None:
        super().__init__(f"its mode is {mode}")
        self.mode = mode


def read_secret_file(path: str, max_size: int) -> bytes:
    """
    Read a file that only its owner may use, without waiting for the writer of a pipe.

    If root owns the file and the process runs as another user, the file's group may read it, too: service managers and
    Kubernetes provide secrets with that owner and mode (0440 or 0640).

    :param max_size: the largest size of the file, in bytes. Of a larger file, one byte more is returned.
    :raises OSError: the file cannot be read.
    :raises NotAFileError: the path does not lead to a regular file.
    :raises SharedFileError: other users may use the file, whose bytes are not read then.
    """
    with open_regular_file(path) as file:
        found = os.fstat(file.fileno())
        if is_shared(found):
            raise SharedFileError(f"{stat.S_IMODE(found.st_mode):04o}")
        return file.read(max_size + 1)


def is_shared(found: os.stat_result) -> bool:
    """Return whether a file may be used by more users than :func:`read_secret_file` accepts."""
    accepted = 0o740 if found.st_uid == 0 and os.geteuid() != 0 else 0o700
    return bool(stat.S_IMODE(found.st_mode) & 0o777 & ~accepted)
