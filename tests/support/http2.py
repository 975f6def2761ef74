"""HTTP/2 without sockets: a client on the h2 library, over TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.internet.tcp import Server

from durable_streams.server.config.sections import VersionSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.interfaces import IStorage

from .fronts import Headers
from .replies import Reply
from .tls import TLSFront, TLSPeer
from .wire import ENDLESS, Network, Socket


class Http2Peer(TLSPeer):
    """
    A client with one HTTP/2 connection.

    :ivar h2: its side of it.
    :ivar streams: the answers by the streams' numbers, as far as they came.
    :ivar resets: with which code each stream was reset.
    :ivar goodbye: how the server ended the connection, if it did: the code, and the last stream it took.
    :ivar keeps_up: whether it makes room for more as it reads.
    :ivar settings: what the server has announced.
    """

    protocols: tuple[bytes, ...] = (b"h2",)

    def __init__(self, network: Network, skt: Socket, transport: Server, read_replies: bool) -> None:
        self.h2 = H2Connection(H2Configuration(header_encoding="latin-1", validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.streams: dict[int, Reply] = {}
        self.asked: list[int] = []
        self.resets: dict[int, int] = {}
        self.goodbye: tuple[int, int] | None = None
        self.keeps_up = True
        self.settings: dict[int, int] = {}
        self.interim_statuses: list[int] = []
        super().__init__(network, skt, transport, False)

    def handshake(self) -> None:
        super().handshake()
        assert self._tls.get_alpn_proto_negotiated() == b"h2"
        self.pass_on()

    def pass_on(self) -> None:
        """Send the bytes that h2 has queued."""
        while data := self.h2.data_to_send():
            self.send(data)

    def ask(
        self, method: str, target: str, headers: Headers | None = None, body: bytes = b"", is_all: bool = True
    ) -> int:
        """Send a request and return its stream id."""
        stream_id = self.begin(method, target, headers, not body and is_all)
        if body:
            self.upload(stream_id, body, is_all)
        self.pass_on()
        return stream_id

    def begin(self, method: str, target: str, headers: Headers | None = None, is_all: bool = True) -> int:
        """Queue a request's headers without sending them."""
        fields: list[tuple[Any, Any]] = [(":method", method), (":path", target), (":scheme", "https")]
        # Names that differ in case only are sent twice.
        given = [(name.lower(), value) for name, value in (headers or {}).items()]
        fields.append((":authority", dict(given).get("host", "streams.example")))
        fields += [field for field in given if field[0] != "host"]
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, fields, is_all)
        self.asked.append(stream_id)
        return stream_id

    def upload(self, stream_id: int, body: bytes, is_all: bool = True) -> None:
        """Send as much of a body as the flow-control window allows."""
        place = 0
        while place < len(body) and stream_id not in self.resets and not self.goodbye:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if room <= 0:
                break
            piece = body[place : place + room]
            place += len(piece)
            self.h2.send_data(stream_id, piece, is_all and place == len(body))
            self.pass_on()

    def _open(self, piece: bytes) -> bytes:
        plain = super()._open(piece)
        if plain:
            for event in self.h2.receive_data(plain):
                self._take(event)
            data = self.h2.data_to_send()
            if data:
                self._socket.inbound += self._seal(data)
        return plain

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived(headers=headers, stream_id=int(stream_id)) if headers is not None:
                fields = [(str(name), str(value)) for name, value in headers]
                status = int(fields[0][1])
                self.streams[stream_id] = Reply(status, fields[1:], "h2")
            case InformationalResponseReceived(headers=headers) if headers is not None:
                self.interim_statuses.append(int(str(headers[0][1])))
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                self.streams[stream_id].body += data
                if self.keeps_up:
                    self.h2.acknowledge_received_data(length, stream_id)
            case StreamEnded(stream_id=int(stream_id)):
                self.streams[stream_id].complete = True
            case StreamReset(stream_id=int(stream_id), error_code=code):
                self.resets[stream_id] = int(code or 0)
            case ConnectionTerminated(error_code=code, last_stream_id=last):
                self.goodbye = int(code or 0), int(last or 0)
                if not code:
                    # h2 takes it for the end of everything; it is that of new requests only.
                    self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
            case RemoteSettingsChanged(changed_settings=changed):
                self.settings |= {int(code): setting.new_value for code, setting in changed.items()}
            case _:
                pass

    def look(self) -> None:
        super().look()
        # What it has said to that, the server is to hear.
        while self._socket.inbound and not self.closed and self._transport in self._network._readers:
            self._network.settle()
            super().look()

    def send(self, data: bytes, *methods: str) -> None:
        super().send(data)
        self.look()

    def send_request(self, method: str, target: str, headers: Headers | None = None, body: bytes = b"") -> None:
        self.ask(method, target, headers, body)

    @property
    def replies(self) -> list[Reply]:
        return [self.streams[number] for number in self.asked if number in self.streams]

    @property
    def interim(self) -> list[int]:
        return self.interim_statuses


class Http2Front(TLSFront):
    """HTTP/2 over TLS."""

    front = "http2"
    framing = "h2"
    peer_type = Http2Peer

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        late: bool = False,
        storage: Callable[[Clock], IStorage] | None = None,
    ) -> None:
        transport = replace(settings.transport, http=VersionSettings(("http1", "http2")))
        super().__init__(replace(settings, transport=transport), late, storage)

    def connect(self, room: int = ENDLESS, read_replies: bool = True) -> Http2Peer:
        peer = super().connect(room, read_replies)
        assert isinstance(peer, Http2Peer)
        return peer
