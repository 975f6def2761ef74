"""The exceptions of transfers. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

from typing import ClassVar

from ..errors import StreamsError

#: The longest part of a name or a text that a message shows, in characters.
_SHOWN = 200

#: How many names of streams that are done a message shows.
_NAMES = 3


def shown(text: str) -> str:
    """Quote a text from a document for a message: on one line, and not longer than 200 characters."""
    printable = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_SHOWN]
    )
    return f"'{printable}'" if len(text) <= _SHOWN else f"'{printable}'..."


def _except_for(done: tuple[str, ...]) -> str:
    """Return the end of a sentence that leaves out streams that are done; three names at most."""
    if not done:
        return ""
    names = ", ".join(shown(name) for name in done[:_NAMES])
    more = f" and {len(done) - _NAMES} more" if len(done) > _NAMES else ""
    return f", except {names}{more}, which had been begun before and {'is' if len(done) == 1 else 'are'} done"


class TransferError(StreamsError):
    """The base class of all errors of transfers."""


class InvalidDocument(TransferError):
    """The document is not valid. Nothing was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid document: {reason}")


class UnsupportedVersion(TransferError):
    """The document has another format version. Nothing was written. ``version`` is the document's."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"unsupported format version: {version}. Only version 1 can be imported. Export again with a server that "
            "writes it."
        )
        self.version = version


class InvalidMessage(InvalidDocument):
    """
    A message of the document is not valid. Nothing was written.

    :ivar stream: the stream's name, or its number in the document if the name comes after the messages.
    :ivar message: the message's number in the stream, from 1.
    """

    def __init__(self, stream: str, message: int, reason: str) -> None:
        super().__init__(f"message {message} of stream {stream} {reason}")
        self.stream = stream
        self.message = message


class InvalidBase64(InvalidMessage):
    """A message is not padded standard base64. Nothing was written."""


class InvalidJsonMessage(InvalidMessage):
    """A message of a JSON stream is not one JSON value. Nothing was written."""


class MessageTooLarge(InvalidMessage):
    """A message is larger than the limit of an import. Nothing was written."""


class Conflict(TransferError):
    """A stream of the document exists, or cannot be created or replaced. ``stream`` is its name."""

    def __init__(self, stream: str, reason: str = "already exists", remedy: str = "") -> None:
        remedy = remedy or "Nothing was written. Delete the stream, or import with the policy skip or replace."
        super().__init__(f"import conflict: stream {shown(stream)} {reason}. {remedy}")
        self.stream = stream


class PartialTransfer(TransferError):
    """
    The base class of :exc:`PartialImport` and :exc:`PartialRestore`: a stream could not be written.

    :ivar stream: the name of that stream.
    :ivar completed: the number of streams that were written.
    :ivar source: the error.
    :ivar later: the names of streams after ``stream`` that are done nevertheless: many are written at the same time.
    """

    #: The words of the message: the transfer, its participle, its source, and a sentence about the result.
    action: ClassVar[str]
    done: ClassVar[str]
    document: ClassVar[str]
    result: ClassVar[str] = ""

    def __init__(
        self, stream: str, completed: int, source: BaseException, policy: str = "skip", later: tuple[str, ...] = ()
    ) -> None:
        reason = (str(source) or type(source).__name__).rstrip(".")
        again = "again" if policy != "fail" else "again with the policy skip"
        super().__init__(
            f"{self.action} stopped at stream {shown(stream)}, after {completed} stream(s) were {self.done}: {reason}. "
            f"This stream and those after it are unchanged{_except_for(later)}. {self.result}Remove the cause, and "
            f"{self.action} the same {self.document} {again}."
        )
        self.stream = stream
        self.completed = completed
        self.source = source
        self.later = later


class PartialImport(PartialTransfer):
    """
    An import failed after its document was found valid.

    The streams of the document before ``stream`` are imported, whole, and so are those in ``later``. ``stream`` and all
    others after it are as they were.
    """

    action = "import"
    done = "imported"
    document = "document"


class SpoolFailed(TransferError):
    """A temporary file of a transfer cannot be written or read. ``source`` is the OSError or the database's error."""

    def __init__(self, directory: str, source: BaseException) -> None:
        super().__init__(
            f"cannot use a temporary file in {directory}: {source}. Free space there, or set TMPDIR to a directory on "
            "another disk."
        )
        self.directory = directory
        self.source = source


class ExportFailed(TransferError):
    """A stream cannot be exported; the document is incomplete. ``stream`` is its name, ``source`` the error."""

    def __init__(self, stream: str, source: BaseException) -> None:
        super().__init__(f"stream {shown(stream)} cannot be exported: {source} The document is incomplete.")
        self.stream = stream
        self.source = source
