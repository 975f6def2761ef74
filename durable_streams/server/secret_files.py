"""Reading of files with secrets, which only their owner may use (mode 0600)."""

from __future__ import annotations

import os
import stat

from .regular_files import open_regular_file


class SharedFileError(Exception):
    """
    Users other than the owner may read, write or execute the file.

    :ivar mode: the mode of the file in four octal digits, for messages.
    """

    def __init__(self, mode: str) -> None:
        super().__init__(f"its mode is {mode}")
        self.mode = mode


def read_secret_file(path: str, max_size: int) -> bytes:
    """
    Read a file that only its owner may use, without waiting for the writer of a pipe.

    :param max_size: the largest size of the file, in bytes. Of a larger file, one byte more is returned.
    :raises OSError: the file cannot be read.
    :raises NotAFileError: the path does not lead to a regular file.
    :raises SharedFileError: other users may use the file, whose bytes are not read then.
    """
    with open_regular_file(path) as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & 0o077:
            raise SharedFileError(f"{stat.S_IMODE(mode):04o}")
        return file.read(max_size + 1)
