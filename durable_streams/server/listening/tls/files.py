"""The PEM files that TLS is made of: whether they can be read, and whether they have changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct, field


class TLSFileError(ValueError):
    """A file can't be read; the message says which setting names it, and what to change."""


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        # There is no such directory any more: only an absolute path can be found.
        return ""


class NamedFile(Struct, frozen=True):
    """
    A file, and who says that it is to be that one.

    :ivar setting: the setting's dotted name, or an endpoint's argument.
    :ivar path: as it is written there.
    :ivar folder: where a relative path begins: twistd goes elsewhere later, and the file stays the same.
    """

    setting: str
    path: str
    folder: str = field(default_factory=_here)

    @property
    def place(self) -> str:
        """The path, wherever the process is by now."""
        return os.path.join(self.folder, self.path)

    def __str__(self) -> str:
        return f"{self.setting} is {self.path!r}"


class TLSFiles(Struct, frozen=True):
    """
    Where TLS finds what it needs.

    :ivar certificate: the server's own, first in its file, and the chain up to its authority.
    :ivar key: the private key; it may be the same file.
    :ivar client_ca: the authorities of clients; with it, a client must show a certificate of theirs.
    """

    certificate: NamedFile
    key: NamedFile
    client_ca: NamedFile | None = None

    def __iter__(self) -> Iterator[NamedFile]:
        """List the files that there are."""
        yield self.certificate
        yield self.key
        if self.client_ca is not None:
            yield self.client_ca


#: What differs when a file was changed or replaced; None of a file that is not there.
Signature: TypeAlias = "tuple[tuple[int, ...] | None, ...]"


class Contents(Struct, frozen=True):
    """
    What is in them, read at one time.

    :ivar signature: of the files right before that.
    """

    signature: Signature
    certificate: bytes
    key: bytes
    client_ca: bytes | None


def signature_of(files: TLSFiles) -> Signature:
    """Say by what a later look tells whether any file has changed. Links are followed."""
    return tuple(_signature(file.place) for file in files)


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def read_files(files: TLSFiles) -> Contents:
    """
    Read the files.

    :raises TLSFileError: the first of certificate, key and authorities that is not there, or can't be read.
    """
    signature = signature_of(files)
    found = [_read(file) for file in files]
    return Contents(signature, found[0], found[1], found[2] if files.client_ca is not None else None)


def _read(file: NamedFile) -> bytes:
    if not file.path:
        raise TLSFileError(f"{file.setting} is empty. Give the path of a PEM file.")
    try:
        # Not to wait for whoever writes to a pipe
        descriptor = os.open(file.place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise TLSFileError(f"{file}, and there is no such file. Give the path of a PEM file that is there.") from None
    except OSError as error:
        raise TLSFileError(
            f"{file}, which can't be read: {error.strerror}. Let the user that the server runs as read it."
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TLSFileError(f"{file}, which is not a file. Give the path of a PEM file.")
    with open(descriptor, "rb") as opened:
        try:
            return opened.read()
        except OSError as error:
            raise TLSFileError(f"{file}, which can't be read: {error.strerror}.") from None


def is_open_to_all(file: NamedFile) -> bool:
    """Tell whether everybody on the machine may read a file. A group may be meant to."""
    try:
        return bool(os.stat(file.place).st_mode & stat.S_IROTH)
    except OSError:
        return False
