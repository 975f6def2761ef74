"""How Server-Sent Events carry a stream (PROTOCOL section 5.8)."""

from __future__ import annotations

from binascii import b2a_base64

#: What keeps a connection alive while there is nothing to say.
KEEP_ALIVE = b":\n\n"


#: How many bytes of a stream a piece of an event has at the most. Line breaks make it grow six-fold. It can be divided
#: by three, so that the base64 of the pieces is the base64 of the whole.
PIECE = 65_535

_DATA = b"event: data\ndata:"
_END = b"\n\n"
_LINE_BREAKS = frozenset([b"", b"\n", b"\r"])


def data_event(data: bytes, json: bool, text: bool) -> bytes:
    """
    Put a range of a stream into one data event.

    :param json: messages in wire form, which become one array.
    :param text: goes as it is, a line each; everything else in base64.
    """
    return data_piece(data, json, text, b"", True)


def data_piece(data: bytes, json: bool, text: bool, before: bytes, last: bool) -> bytes:
    """
    Encode a piece of a data event; the pieces joined are what :func:`data_event` makes of all their data.

    :param data: of all pieces but the last, :data:`PIECE` bytes, or another number that can be divided by three.
    :param before: the byte before ``data`` in the event; nothing for the first piece.
    :param last: whether this is the last piece.
    """
    head = b"" if before else _DATA
    end = _END if last else b""
    if json:
        if not before:
            data = b"[" + data
        if last:
            data = data[:-1] + b"]"
    elif not text:
        return head + b2a_base64(data, newline=False) + end
    if before == b"\r" and data[:1] == b"\n":
        # The carriage return has become the line break.
        data = data[1:]
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # A reader takes one space away after the colon. A line that begins with one, as most tokens of a language model do,
    # gets one more to lose.
    if before in _LINE_BREAKS and data[:1] == b" ":
        data = b" " + data
    return head + data.replace(b"\n", b"\ndata:").replace(b"\ndata: ", b"\ndata:  ") + end


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
