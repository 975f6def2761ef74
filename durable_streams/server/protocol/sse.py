"""How Server-Sent Events carry a stream (PROTOCOL section 5.8)."""

from __future__ import annotations

from binascii import b2a_base64

from .messages import document

#: What keeps a connection alive while there is nothing to say.
KEEP_ALIVE = b":\n\n"


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
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # A reader takes one space away after the colon. A line that begins with one, as most tokens of a language model do,
    # gets one more to lose.
    lines = (b"\n" + data).replace(b"\n", b"\ndata:").replace(b"\ndata: ", b"\ndata:  ")
    return b"event: data" + lines + b"\n\n"


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
