"""How Server-Sent Events carry a stream (PROTOCOL section 5.8)."""

from __future__ import annotations

import re
from binascii import b2a_base64

from .messages import document

#: What keeps a connection alive while there is nothing to say.
KEEP_ALIVE = b":\n\n"

_LINE_END = re.compile(rb"\r\n|\r|\n")


def data_event(data: bytes, json: bool, text: bool) -> bytes:
    """
    Put a range of a stream into one data event.

    :param json: messages in wire form, which become one array.
    :param text: goes as it is, a line each; everything else in base64.
    """
    if json:
        data = document(data)
    elif not text:
        return b"event: data\ndata:" + b2a_base64(data, newline=False) + b"\n\n"
    if b"\n" not in data and b"\r" not in data:
        return b"event: data\n" + _line(data) + b"\n"
    return b"event: data\n" + b"".join(map(_line, _LINE_END.split(data))) + b"\n"


def _line(data: bytes) -> bytes:
    # A reader takes one space away after the colon. A line that begins with one, as most tokens of a language model
    # do, gets one more to lose.
    if data[:1] == b" ":
        return b"data: " + data + b"\n"
    return b"data:" + data + b"\n"


def control_event(offset: str, cursor: int, up_to_date: bool, closed: bool) -> bytes:
    """
    Say where the reader is now.

    :param cursor: left out when the stream is closed, since nobody comes back to it.
    :param closed: the stream is closed and the reader has all of it.
    """
    if closed:
        rest = ',"upToDate":true,"streamClosed":true}'
    elif up_to_date:
        rest = f',"streamCursor":"{cursor}","upToDate":true}}'
    else:
        rest = f',"streamCursor":"{cursor}"}}'
    return f'event: control\ndata:{{"streamNextOffset":"{offset}"{rest}\n\n'.encode()
