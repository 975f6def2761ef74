"""The PEM files of TLS: read them, and detect changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct, field

from ...regular_files import NotAFileError, file_signature, open_regular_file


class TLSFileError(ValueError):
    """A file cannot be read; the message has its setting and advice."""


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        # The current directory was deleted: only absolute paths can be found.
        return ""


class NamedFile(Struct, frozen=True):
    """
    The path of a file with its setting, for messages.

    :ivar setting: the dotted name of the setting, or the argument of an endpoint.
    :ivar path: the path as it was given.
    :ivar folder: the folder of a relative path: twistd changes the current directory later.
    """

    setting: str
    path: str
    folder: str = field(default_factory=_here)

    @property
    def place(self) -> str:
        """The path, independent of the current directory."""
        return os.path.join(self.folder, self.path)

    def __str__(self) -> str:
        return f"{self.setting} {self.path!r}"


class TLSFiles(Struct, frozen=True):
    """
    The files of a TLS server.

    :ivar certificate: the server's certificate, followed by its chain.
    :ivar key: the private key; may be the same file.
    :ivar client_ca: the authorities of client certificates; None if clients need none.
    """

    certificate: NamedFile
    key: NamedFile
    client_ca: NamedFile | None = None

    def __iter__(self) -> Iterator[NamedFile]:
        """Iterate over the files that are set."""
        yield self.certificate
        yield self.key
        if self.client_ca is not None:
            yield self.client_ca


#: The identity and times of each file, which differ when it is changed or replaced; None for a missing file.
Signature: TypeAlias = "tuple[tuple[int, ...] | None, ...]"


class Contents(Struct, frozen=True):
    """
    The contents of the files, read at one time.

    :ivar signature: the signature of the files right before they were read.
    """

    signature: Signature
    certificate: bytes
    key: bytes
    client_ca: bytes | None


def signature_of(files: TLSFiles) -> Signature:
    """Return a value that changes when a file is changed or replaced. Links are followed."""
    return tuple(file_signature(file.place) for file in files)


def read_files(files: TLSFiles) -> Contents:
    """
    Read the files.

    :raises TLSFileError: a file is missing or cannot be read.
    """
    signature = signature_of(files)
    found = [_read(file) for file in files]
    return Contents(signature, found[0], found[1], found[2] if files.client_ca is not None else None)


def _read(file: NamedFile) -> bytes:
    if not file.path:
        raise TLSFileError(f"{file.setting}: empty. Give the path of a PEM file.")
    try:
        opened = open_regular_file(file.place)
    except FileNotFoundError:
        raise TLSFileError(f"{file}: no such file.") from None
    except OSError as error:
        raise TLSFileError(
            f"{file}: cannot be read: {error.strerror}. Give the server's user read permission."
        ) from None
    except NotAFileError:
        raise TLSFileError(f"{file}: not a regular file. Give the path of a PEM file.") from None
    with opened:
        try:
            return opened.read()
        except OSError as error:
            raise TLSFileError(f"{file}: cannot be read: {error.strerror}.") from None


def is_open_to_all(file: NamedFile) -> bool:
    """Return whether every user of the machine may read a file; reading by its group is accepted."""
    try:
        return bool(os.stat(file.place).st_mode & stat.S_IROTH)
    except OSError:
        return False
