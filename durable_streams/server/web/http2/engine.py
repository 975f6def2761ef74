"""The server's side of an HTTP/2 connection (RFC 9113): frames, states of streams, flow control and settings.

It has no sockets and no clock: bytes come in and go out, and what the client does is passed to an :class:`EngineOwner`
one frame at a time. Whatever a client gets wrong ends the connection, but for the errors that may happen because frames
cross on the wire. Priorities are ignored, and nothing is pushed.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, Protocol

from .decoding import HeadDecoder
from .encoding import HeadEncoder
from .errors import ErrorCode, Http2Error
from .heads import Head, check_trailers, read_head

#: What a client sends before its first frame.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Types of frames.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

#: Flags of frames.
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_WITH_PRIORITY: Final = 0x20

#: Settings.
_HEADER_TABLE_SIZE: Final = 0x1
_ENABLE_PUSH: Final = 0x2
_MAX_CONCURRENT_STREAMS: Final = 0x3
_INITIAL_WINDOW_SIZE: Final = 0x4
_MAX_FRAME_SIZE: Final = 0x5
_MAX_HEADER_LIST_SIZE: Final = 0x6
_ENABLE_CONNECT_PROTOCOL: Final = 0x8

#: The head of a frame: the length in two parts, type, flags, and stream.
_HEAD: Final = Struct(">HBBBL")
_HEAD_BYTES: Final = 9
_LENGTH_BYTES: Final = 3

_SETTING: Final = Struct(">HL")
_NUMBER: Final = Struct(">L")
_GOODBYE: Final = Struct(">LL")
_PRIORITY_BYTES: Final = 5
_PING_BYTES: Final = 8

#: The largest frame that is read, in bytes; the default of SETTINGS_MAX_FRAME_SIZE.
_FRAME_BYTES: Final = 16_384
_LARGEST_FRAME: Final = 2**24 - 1

#: The default of SETTINGS_INITIAL_WINDOW_SIZE, and the largest window.
_WINDOW: Final = 65_535
_LARGEST: Final = 2**31 - 1

#: The largest number of frames of a head.
_FRAMES_OF_HEAD: Final = 64

#: The largest size of a head before the client has acknowledged SETTINGS_MAX_HEADER_LIST_SIZE, in bytes.
_EARLY_LIST_BYTES: Final = 65_536

#: How many streams are remembered as reset, and how many gaps between stream ids.
_RESETS: Final = 128
_GAPS: Final = 16

#: How many heads are remembered for a connection, and how large the block of one may be, in bytes.
_HEADS: Final = 16
_BLOCK_BYTES: Final = 512

#: Bytes that have used up a window are given back from this number on.
_FEW: Final = 1024

#: The largest size of the reason in a GOAWAY, in bytes.
_REASON: Final = 200

#: DATA of no more bytes may be nothing but padding.
_PADDING: Final = 256


class EngineOwner(Protocol):
    """
    What is told of the frames that arrive.

    Each method may raise :class:`Http2Error`, which ends the connection.
    """

    def request_received(self, stream_id: int, head: Head, is_whole: bool) -> None:
        """
        Begin a request.

        :param is_whole: whether it has no body. :meth:`request_ended` is called in any case.
        """

    def data_received(self, stream_id: int, data: bytes, size: int) -> bool:
        """
        Take a piece of a body.

        :param size: how much of the flow-control windows it has used.
        :returns: whether to give that back to the client now; if not, :meth:`Engine.acknowledge` does it later.
        """

    def request_ended(self, stream_id: int) -> None:
        """Perform the request: its body is complete."""

    def stream_reset(self, stream_id: int) -> None:
        """Drop the request: its stream was reset."""

    def window_opened(self, stream_id: int) -> None:
        """
        Send on: there may be more room for answers.

        :param stream_id: 0 for all streams.
        """

    def idle_frame_received(self) -> None:
        """Count a frame that asks for nothing, and of which no client needs to send many."""

    def update_received(self) -> None:
        """Count a frame that asks for nothing, but belongs to others."""

    def goodbye_received(self, code: int) -> None:
        """Expect no further requests: the client has sent a GOAWAY."""


class _Nobody:
    """The owner of an engine whose connection is lost; no frame is read any more."""

    def request_received(self, stream_id: int, head: Head, is_whole: bool) -> None:
        pass

    def data_received(self, stream_id: int, data: bytes, size: int) -> bool:
        return False

    def request_ended(self, stream_id: int) -> None:
        pass

    def stream_reset(self, stream_id: int) -> None:
        pass

    def window_opened(self, stream_id: int) -> None:
        pass

    def idle_frame_received(self) -> None:
        pass

    def update_received(self) -> None:
        pass

    def goodbye_received(self, code: int) -> None:
        pass


_NOBODY: Final = _Nobody()


class _Stream:
    """
    The state of a stream that is open or half-closed.

    :ivar window: how much may be sent.
    :ivar room: how much may be received.
    :ivar taken: how much of what was received is not given back yet.
    :ivar left: how much of the body is missing by its ``content-length``; None if that is not known.
    """

    __slots__ = ("is_local_open", "is_remote_open", "left", "room", "taken", "window")

    def __init__(self, window: int, room: int, is_remote_open: bool, left: int | None) -> None:
        self.window = window
        self.room = room
        self.taken = 0
        self.left = left
        self.is_remote_open = is_remote_open
        self.is_local_open = True


class Engine:
    """
    The server's side of one connection.

    :param owner: is told what the client does.
    :param max_streams: the largest number of streams at a time.
    :param max_list_bytes: the largest size of a head that is announced. Up to twice as large a one is received.
    :param stream_window: how much may be received on a stream before it is given back, in bytes.
    :param connection_window: the same on all streams together.
    :ivar max_frame_bytes: the largest frame that the client takes.
    :ivar last_stream: the largest id of a stream that the client has opened.
    """

    def __init__(
        self, owner: EngineOwner, max_streams: int, max_list_bytes: int, stream_window: int, connection_window: int
    ) -> None:
        self.encoder = HeadEncoder()
        self.decoder = HeadDecoder(max(2 * max_list_bytes, _EARLY_LIST_BYTES))
        self.max_frame_bytes = _FRAME_BYTES
        self.last_stream = 0
        self._owner = owner
        self._max_streams = max_streams
        self._max_list_bytes = max_list_bytes
        self._stream_window = stream_window
        self._connection_window = connection_window
        self._streams: dict[int, _Stream] = {}
        # The windows of the connection, as those of a stream, and the one that new streams begin with.
        self._window = _WINDOW
        self._room = connection_window
        self._taken = 0
        self._initial_window = _WINDOW
        # What came, from where on it is not read yet, and what is missing of the preface.
        self._buffer = b""
        self._place = 0
        self._preface = _PREFACE
        # The only type of frame that may come next; None for any.
        self._expected: int | None = SETTINGS
        # The head that comes in several frames: its stream, its flags, its blocks and their size.
        self._head_stream = 0
        self._head_flags = 0
        self._blocks: list[bytes] = []
        self._blocks_bytes = 0
        # Streams that were reset, and ranges of streams that were passed over.
        self._resets: dict[int, None] = {}
        self._gaps: list[tuple[int, int]] = []
        # Block -> head, while the dynamic table is the same.
        self._heads: dict[bytes, Head] = {}
        self._heads_at = 0
        self._output: list[bytes | memoryview] = []

    def start(self) -> None:
        """Announce the server's settings."""
        payload = b"".join(
            (
                _SETTING.pack(_MAX_CONCURRENT_STREAMS, self._max_streams),
                _SETTING.pack(_INITIAL_WINDOW_SIZE, self._stream_window),
                _SETTING.pack(_MAX_HEADER_LIST_SIZE, self._max_list_bytes),
            )
        )
        self._frame(SETTINGS, 0, 0, payload)
        self._frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(self._connection_window - _WINDOW))

    # What the client sends

    def receive(self, data: bytes) -> None:
        """
        Buffer data, which :meth:`take_frame` reads.

        :raises Http2Error: it is no HTTP/2.
        """
        if self._preface:
            size = min(len(self._preface), len(data))
            if data[:size] != self._preface[:size]:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "The connection does not begin with the HTTP/2 preface.")
            self._preface = self._preface[size:]
            data = data[size:]
        if self._place < len(self._buffer):
            data = self._buffer[self._place :] + data
        self._buffer = data
        self._place = 0

    def take_frame(self) -> bool:
        """
        Read a frame, if one is complete.

        :returns: whether there was one.
        :raises Http2Error: it is malformed or comes at the wrong time.
        """
        buffer = self._buffer
        place = self._place
        left = len(buffer) - place - _HEAD_BYTES
        if left < 0:
            if left >= _LENGTH_BYTES - _HEAD_BYTES:
                _check_length(int.from_bytes(buffer[place : place + _LENGTH_BYTES], "big"))
            return False
        high, low, kind, flags, stream_id = _HEAD.unpack_from(buffer, place)
        length = high << 8 | low
        if length > left:
            _check_length(length)
            return False
        place += _HEAD_BYTES
        self._place = place + length
        if length > _FRAME_BYTES:
            _check_length(length)
        payload = buffer[place : place + length]
        # The highest bit is reserved.
        stream_id &= _LARGEST
        if self._expected is not None and kind != self._expected:
            if self._expected == SETTINGS:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A frame comes between HEADERS and its CONTINUATION.")
        if kind == HEADERS:
            self._receive_headers(flags, stream_id, payload)
        elif kind == DATA:
            self._receive_data(flags, stream_id, payload)
        elif kind == WINDOW_UPDATE:
            self._receive_window_update(stream_id, payload)
        elif kind == CONTINUATION:
            self._receive_continuation(flags, stream_id, payload)
        else:
            self._receive_other(kind, flags, stream_id, payload)
        return True

    def _receive_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS has a stream id that is even or 0.")
        if flags & (_PADDED | _WITH_PRIORITY):
            if flags & _PADDED:
                payload = _without_padding(payload)
            if flags & _WITH_PRIORITY:
                _check_priority(stream_id, payload[:_PRIORITY_BYTES])
                payload = payload[_PRIORITY_BYTES:]
        if flags & _END_HEADERS:
            self._receive_head(flags, stream_id, payload)
            return
        self._head_stream = stream_id
        self._head_flags = flags
        self._blocks = [payload]
        self._blocks_bytes = len(payload)
        self._expected = CONTINUATION

    def _receive_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._expected != CONTINUATION or stream_id != self._head_stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION does not follow HEADERS of its stream.")
        self._blocks.append(payload)
        self._blocks_bytes += len(payload)
        # No encoder makes a head larger than it is.
        if len(self._blocks) > _FRAMES_OF_HEAD or self._blocks_bytes > self.decoder.max_list_bytes:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "A head is too large.")
        if flags & _END_HEADERS:
            self._expected = None
            block = b"".join(self._blocks)
            self._blocks = []
            self._receive_head(self._head_flags, stream_id, block)

    def _receive_head(self, flags: int, stream_id: int, block: bytes) -> None:
        is_end = bool(flags & _END_STREAM)
        if stream_id <= self.last_stream:
            self._receive_late_head(is_end, stream_id, block)
            return
        if len(self._streams) >= self._max_streams:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"There are more than {self._max_streams} streams at a time.")
        decoder = self.decoder
        head = self._heads.get(block)
        if head is None or decoder.changes != self._heads_at:
            head = self._read_head(block)
        if stream_id > self.last_stream + 2:
            self._gaps = [*self._gaps[1 - _GAPS :], (self.last_stream, stream_id)]
        self.last_stream = stream_id
        length = head.length
        if is_end and length:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A body is shorter than its content-length.")
        self._streams[stream_id] = _Stream(self._initial_window, self._stream_window, not is_end, length)
        self._owner.request_received(stream_id, head, is_end)
        if is_end:
            self._owner.request_ended(stream_id)

    def _read_head(self, block: bytes) -> Head:
        decoder = self.decoder
        changes = decoder.changes
        head = read_head(decoder.decode(block))
        if decoder.changes == changes and len(block) <= _BLOCK_BYTES:
            if self._heads_at != changes or len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads_at = changes
            self._heads[block] = head
        return head

    def _receive_late_head(self, is_end: bool, stream_id: int, block: bytes) -> None:
        """Receive trailers, or HEADERS for a stream that is closed. They are decoded in any case."""
        fields = self.decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id in self._resets:
                # It was on its way when the stream was reset.
                self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED)
                return
            if any(before < stream_id < after for before, after in self._gaps):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A new stream has a lower id than an earlier one.")
            raise Http2Error(ErrorCode.STREAM_CLOSED, "HEADERS come on a stream that is closed.")
        if not stream.is_remote_open:
            self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED)
            return
        if not is_end:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "Trailers do not end the stream.")
        check_trailers(fields)
        self._end_remote(stream_id, stream)

    def _receive_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        data = _without_padding(payload) if flags & _PADDED else payload
        is_end = flags & _END_STREAM
        if not is_end and (not size or (flags & _PADDED and size <= _PADDING)):
            self._owner.idle_frame_received()
        self._room -= size
        if self._room < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "More is sent than the connection's window allows.")
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            self._check_not_idle(stream_id)
            self._give_back(size)
            self._fail_stream(stream_id, ErrorCode.STREAM_CLOSED)
            return
        stream.room -= size
        if stream.room < 0:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "More is sent than the stream's window allows.")
        if stream.left is not None:
            stream.left -= len(data)
            if stream.left < 0:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A body is longer than its content-length.")
        if is_end:
            # Nothing more may be received on the stream.
            if self._owner.data_received(stream_id, data, size):
                self._give_back(size)
            self._end_remote(stream_id, stream)
        elif self._owner.data_received(stream_id, data, size):
            self.acknowledge(stream_id, size)

    def _end_remote(self, stream_id: int, stream: _Stream) -> None:
        if stream.left:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A body is shorter than its content-length.")
        stream.is_remote_open = False
        if not stream.is_local_open:
            self._streams.pop(stream_id, None)
        self._owner.request_ended(stream_id)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Give back what a piece of a body has used of the flow-control windows."""
        self._give_back(size)
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            return
        stream.taken += size
        if stream.taken >= self._stream_window >> 1 or (not stream.room and stream.taken > _FEW):
            stream.room += stream.taken
            self._frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(stream.taken))
            stream.taken = 0

    def _give_back(self, size: int) -> None:
        self._taken += size
        if self._taken >= self._connection_window >> 1 or (not self._room and self._taken > _FEW):
            self._room += self._taken
            self._frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(self._taken))
            self._taken = 0

    def _receive_window_update(self, stream_id: int, payload: bytes) -> None:
        self._owner.update_received()
        increment = _read_number(payload) & _LARGEST
        if not increment:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE has an increment of 0.")
        if not stream_id:
            self._window += increment
            if self._window > _LARGEST:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is too large.")
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                self._check_not_idle(stream_id)
                return
            stream.window += increment
            if stream.window > _LARGEST:
                self._fail_stream(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
                return
        self._owner.window_opened(stream_id)

    def _receive_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING, GOAWAY):
            self._owner.idle_frame_received()
            if stream_id:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS, PING or GOAWAY has a stream id.")
            if kind == SETTINGS:
                self._receive_settings(flags, payload)
            elif kind == PING:
                self._receive_ping(flags, payload)
            else:
                self._receive_goaway(payload)
        elif kind == RST_STREAM:
            self._receive_reset(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE comes from a client.")
        else:
            # A frame of an extension is ignored, and so is a priority that is valid.
            self._owner.update_received()
            if kind == PRIORITY:
                if not stream_id:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY has the stream id 0.")
                if len(payload) != _PRIORITY_BYTES:
                    raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has a wrong length.")
                _check_priority(stream_id, payload)

    def _receive_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != _PING_BYTES:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "PING has a wrong length.")
        if not flags & _ACK:
            self._frame(PING, _ACK, 0, payload)

    def _receive_goaway(self, payload: bytes) -> None:
        if len(payload) < _GOODBYE.size:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has a wrong length.")
        self._owner.goodbye_received(_GOODBYE.unpack_from(payload)[1])

    def _receive_reset(self, stream_id: int, payload: bytes) -> None:
        self._owner.idle_frame_received()
        _read_number(payload)
        self._check_not_idle(stream_id)
        if self._streams.pop(stream_id, None) is not None:
            self._remember_reset(stream_id)
            self._owner.stream_reset(stream_id)

    def _receive_settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            if payload:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK has settings.")
            if self._expected is not None:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "The first SETTINGS is an ACK.")
            # A head that is a little over what was announced is answered; one that is twice as large is the end.
            self.decoder.max_list_bytes = 2 * self._max_list_bytes
            return
        self._expected = None
        if len(payload) % _SETTING.size:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has a wrong length.")
        initial_window = self._initial_window
        for setting, value in _SETTING.iter_unpack(payload):
            _check_setting(setting, value)
            if setting == _HEADER_TABLE_SIZE:
                self.encoder.resize(value)
            elif setting == _INITIAL_WINDOW_SIZE:
                initial_window = value
            elif setting == _MAX_FRAME_SIZE:
                self.max_frame_bytes = value
        # All streams once, however often a frame has the setting.
        more = initial_window - self._initial_window
        if more:
            self._initial_window = initial_window
            for stream in self._streams.values():
                stream.window += more
                if stream.window > _LARGEST:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The window of a stream is too large.")
        self._frame(SETTINGS, _ACK, 0, b"")
        self._owner.window_opened(0)

    def _check_not_idle(self, stream_id: int) -> None:
        if stream_id > self.last_stream or not stream_id & 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A frame is for a stream that was not opened.")

    def _fail_stream(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream for what the client did to it, which costs the client as much as if it had reset it itself."""
        self._owner.idle_frame_received()
        was_open = self._streams.pop(stream_id, None) is not None
        self._frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))
        if was_open:
            self._remember_reset(stream_id)
            self._owner.stream_reset(stream_id)

    def _remember_reset(self, stream_id: int) -> None:
        resets = self._resets
        if len(resets) >= _RESETS:
            del resets[next(iter(resets))]
        resets[stream_id] = None

    # What the server sends

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Queue a frame, whose payload is small."""
        self._output += _HEAD.pack(0, len(payload), kind, flags, stream_id), payload

    def take_output(self) -> bytes:
        """Return what is to be sent, once."""
        output = self._output
        if not output:
            return b""
        self._output = []
        return b"".join(output)

    def send_head(self, stream_id: int, block: bytes, is_end: bool) -> None:
        """Queue the head of an answer on a stream that is open, as :attr:`encoder` has encoded it."""
        stream = self._streams[stream_id]
        flags = _END_HEADERS | _END_STREAM if is_end else _END_HEADERS
        size = len(block)
        if size <= self.max_frame_bytes:
            self._output += _HEAD.pack(size >> 8, size & 0xFF, HEADERS, flags, stream_id), block
        else:
            self._send_large_head(stream_id, block, is_end)
        if is_end:
            self._end_local(stream_id, stream)

    def _send_large_head(self, stream_id: int, block: bytes, is_end: bool) -> None:
        kind, flags = HEADERS, _END_STREAM if is_end else 0
        step = self.max_frame_bytes
        for place in range(0, len(block), step):
            piece = block[place : place + step]
            if place + step >= len(block):
                flags |= _END_HEADERS
            self._output += _HEAD.pack(len(piece) >> 8, len(piece) & 0xFF, kind, flags, stream_id), piece
            kind, flags = CONTINUATION, 0

    def is_open(self, stream_id: int) -> bool:
        """Return whether an answer may be sent on a stream."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.is_local_open

    def room(self, stream_id: int) -> int:
        """Return how many bytes of a body may be sent in a frame."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        return min(stream.window, self._window, self.max_frame_bytes)

    def send_data(self, stream_id: int, data: bytes | memoryview, is_end: bool) -> None:
        """Queue a piece of a body that is not larger than :meth:`room`."""
        stream = self._streams[stream_id]
        size = len(data)
        stream.window -= size
        self._window -= size
        self._output += _HEAD.pack(size >> 8, size & 0xFF, DATA, _END_STREAM if is_end else 0, stream_id), data
        if is_end:
            self._end_local(stream_id, stream)

    def _end_local(self, stream_id: int, stream: _Stream) -> None:
        stream.is_local_open = False
        if not stream.is_remote_open:
            del self._streams[stream_id]

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream, unless it is closed."""
        if self._streams.pop(stream_id, None) is not None:
            self._frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))
            self._remember_reset(stream_id)

    def stop(self) -> None:
        """Forget the owner and everything that is buffered, so that no reference cycle keeps them."""
        self._owner = _NOBODY
        self._streams.clear()
        self._heads.clear()
        self._buffer = b""
        self._place = 0
        self._blocks = []
        self._output = []

    def say_goodbye(self, code: ErrorCode, reason: str = "") -> None:
        """
        Queue a GOAWAY.

        :param reason: a sentence for whoever debugs the client.
        """
        self._output.append(goodbye_frame(self.last_stream, code, reason))


def goodbye_frame(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """Return a GOAWAY; see :meth:`Engine.say_goodbye`."""
    payload = _GOODBYE.pack(last_stream, code) + reason[:_REASON].encode("ascii", "replace")
    return _HEAD.pack(0, len(payload), GOAWAY, 0, 0) + payload


def empty_settings() -> bytes:
    """Return a SETTINGS without settings."""
    return _HEAD.pack(0, 0, SETTINGS, 0, 0)


def _check_length(length: int) -> None:
    if length > _FRAME_BYTES:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"A frame is larger than {_FRAME_BYTES} bytes.")


def _check_setting(setting: int, value: int) -> None:
    if setting == _INITIAL_WINDOW_SIZE and value > _LARGEST:
        raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large.")
    if setting == _MAX_FRAME_SIZE and not _FRAME_BYTES <= value <= _LARGEST_FRAME:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range.")
    if setting in (_ENABLE_PUSH, _ENABLE_CONNECT_PROTOCOL) and value > 1:
        raise Http2Error(
            ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH or SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1."
        )


def _check_priority(stream_id: int, priority: bytes) -> None:
    if len(priority) < _PRIORITY_BYTES:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "A frame is too short for its priority.")
    if _NUMBER.unpack_from(priority)[0] & _LARGEST == stream_id:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A stream depends on itself.")


def _read_number(payload: bytes) -> int:
    """Read a frame that is one number."""
    if len(payload) != _NUMBER.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM or WINDOW_UPDATE has a wrong length.")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def _without_padding(payload: bytes) -> bytes:
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "A frame is too short for its padding.")
    end = len(payload) - payload[0]
    if end < 1:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "The padding of a frame is as long as the frame, or longer.")
    return payload[1:end]
