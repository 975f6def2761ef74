"""Encoding of a stream as Server-Sent Events (PROTOCOL section 5.8)."""

from __future__ import annotations

from binascii import b2a_base64

#: A comment that keeps an idle connection open.
KEEP_ALIVE = b":\n\n"


#: The maximum number of a stream's bytes in one piece of an event; encoding a line break makes six of one. Divisible by
#: three, so that the base64 of the pieces, joined, is the base64 of the whole.
PIECE = 65_535

_DATA = b"event: data\ndata:"
_LINE_BREAKS = frozenset([b"", b"\n", b"\r"])


def data_event(data: bytes, json: bool, text: bool, offset: str) -> bytes:
    """
    Encode a range of a stream as one data event.

    :param json: whether the data is messages in wire form, which become one array.
    :param text: whether the data is text, with one ``data:`` line for each of its lines; otherwise base64 is used.
    :param offset: the offset after the range, which is the event's id: a browser's EventSource resumes from it.
    """
    return data_piece(data, json, text, offset, b"", True)


def data_piece(data: bytes, json: bool, text: bool, offset: str, before: bytes, last: bool) -> bytes:
    """
    Encode one piece of a data event. The pieces, joined, equal :func:`data_event` of the whole data.

    :param data: the piece's data; in all pieces but the last its length must be divisible by three, as :data:`PIECE`.
    :param before: the byte before ``data`` in the event; empty for the first piece.
    :param last: whether this is the last piece.
    """
    head = b"" if before else _DATA
    end = b"\nid:%b\n\n" % offset.encode() if last else b""
    if json:
        if not before:
            data = b"[" + data
        if last:
            data = data[:-1] + b"]"
    elif not text:
        return head + b2a_base64(data, newline=False) + end
    if before == b"\r" and data[:1] == b"\n":
        # The carriage return at the end of the previous piece was encoded as the line break.
        data = data[1:]
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # A client removes one space after the colon. A line that begins with a space, as most tokens of a language model
    # do, needs one more.
    if before in _LINE_BREAKS and data[:1] == b" ":
        data = b" " + data
    return head + data.replace(b"\n", b"\ndata:").replace(b"\ndata: ", b"\ndata:  ") + end


def control_event(offset: str, cursor: int, up_to_date: bool, closed: bool) -> bytes:
    """
    Encode a control event with the reader's next offset, which is also the event's id.

    :param cursor: omitted if the stream is closed, since the reader does not reconnect.
    :param closed: whether the stream is closed and the reader has all of its data.
    """
    if closed:
        rest = ',"upToDate":true,"streamClosed":true}'
    elif up_to_date:
        rest = f',"streamCursor":"{cursor}","upToDate":true}}'
    else:
        rest = f',"streamCursor":"{cursor}"}}'
    return f'event: control\ndata:{{"streamNextOffset":"{offset}"{rest}\nid:{offset}\n\n'.encode()
