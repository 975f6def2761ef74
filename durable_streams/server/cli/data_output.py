"""The data of streams on the standard output: its forms, and writing that waits for the reader without blocking."""

from __future__ import annotations

import os
import select
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from .errors import CommandError
from .terminal import silence

if TYPE_CHECKING:
    from ..client import Batch

#: The values of ``--output``.
RAW: Final = "raw"
JSON_LINES: Final = "json-lines"
BASE64: Final = "base64"

output_option = click.option(
    "--output",
    type=click.Choice([RAW, JSON_LINES, BASE64]),
    help="raw: the bytes as they are, of a JSON stream as arrays. json-lines: a JSON message a line. base64: a line "
    "for each message or piece. Default: json-lines for JSON streams, raw for all others.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line, with the data and the offset after it."
)


class Renderer:
    """
    Renders batches.

    :param output: one of :data:`RAW`, :data:`JSON_LINES` and :data:`BASE64`; None for the default.
    :param is_json: whether the stream is in JSON mode.
    :param as_json: whether to render JSON objects instead.
    :param one_array: whether a JSON stream in raw form is one array, and not one for each batch.
    :raises CommandError: json-lines was asked of a stream that has no JSON messages.
    """

    def __init__(self, output: str | None, is_json: bool, as_json: bool, one_array: bool) -> None:
        if output == JSON_LINES and not is_json:
            raise CommandError("The stream has no JSON messages. Use --output raw or --output base64.")
        self._output = output or (JSON_LINES if is_json else RAW)
        self._is_json = is_json
        self._as_json = as_json
        self._one_array = one_array
        self._count = 0

    def render(self, batch: Batch) -> bytes:
        """Return a batch as it is printed."""
        if self._as_json:
            return self._object(batch)
        if self._output == JSON_LINES:
            return b"".join(_on_one_line(message) + b"\n" for message in batch.messages)
        if self._output == BASE64:
            pieces = batch.messages if self._is_json else [batch.data] if batch.data else []
            return b"".join(b64encode(piece) + b"\n" for piece in pieces)
        return self._raw(batch)

    def _raw(self, batch: Batch) -> bytes:
        if not self._is_json:
            return batch.data
        if not batch.messages:
            return b""
        text = b",".join(batch.messages)
        before = b"," if self._count else b"["
        self._count += len(batch.messages)
        return before + text if self._one_array else b"[%b]\n" % text

    def end(self) -> bytes:
        """Return what follows the last batch."""
        if self._as_json or self._output != RAW or not self._is_json or not self._one_array:
            return b""
        return b"]\n" if self._count else b"[]\n"

    def _object(self, batch: Batch) -> bytes:
        found: dict[str, Any] = {}
        if self._is_json:
            found["messages"] = [msgspec.Raw(_on_one_line(message)) for message in batch.messages]
        else:
            found["data_base64"] = b64encode(batch.data).decode()
        found |= {"next_offset": batch.next_offset, "up_to_date": batch.up_to_date, "closed": batch.closed}
        return msgspec.json.encode(found) + b"\n"


def _on_one_line(message: bytes) -> bytes:
    """Replace the line ends of a JSON message, which are outside of its strings, by spaces."""
    if b"\n" in message or b"\r" in message:
        return message.replace(b"\r", b" ").replace(b"\n", b" ")
    return message


def output_descriptor() -> int:
    """
    Return the descriptor of the standard output.

    :raises CommandError: it is closed.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
            return sys.stdout.fileno()
    except (OSError, ValueError):
        pass
    raise CommandError("Cannot write the output: the standard output is closed.")


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write data; wait while the reader is slow.

    :raises BrokenPipeError: nobody reads it any more.
    :raises CommandError: it cannot be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process has made the descriptor non-blocking.
            select.select([], [descriptor], [])
        except BrokenPipeError:
            silence(sys.stdout)
            raise
        except OSError as error:
            silence(sys.stdout)
            raise CommandError(f"Cannot write the output: {error.strerror}.") from None


def has_reader(descriptor: int) -> bool:
    """Return False if a pipe or socket has no reader any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    try:
        return not any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:
        return True
