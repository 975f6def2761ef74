"""The server's fronts without sockets: on a Clock, with clients that are buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any

from msgspec.structs import replace
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.server import Site

from durable_streams.server.config.sections import ConnectionSettings, LimitSettings, TransportSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.assembly import channel_settings_from, operations_from, resource_from
from durable_streams.server.daemon.storages import storage_from
from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import Append
from durable_streams.server.run_queue import RunQueue
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.telemetry import metrics_from, telemetry_from
from durable_streams.server.web.negotiation import ChannelFactory
from durable_streams.server.web.site.app import Pages, add_metrics, add_probes
from durable_streams.server.web.site.tree import Tree
from durable_streams.server.web.telemetry import Telemetry
from durable_streams.server.web.wire import below
from tests.support.clocks import SteppedClock

from .late_storage import LateStorage
from .replies import Event, Reply, ReplyReader, read_events
from .stopwatch import Stopwatch
from .wire import ENDLESS, Network, Socket

#: The time at which every test begins, in seconds since 1970: 2027-01-15T08:00:00Z.
START_TIME = 1_800_000_000.0

#: The base path of streams.
BASE = "/v1/stream/"

Headers = Mapping[str, str | bytes]


def request(
    method: str, target: str | bytes, headers: Headers | None = None, body: bytes = b"", version: str = "1.1"
) -> bytes:
    """Return a request; add Host and Content-Length if they are missing."""
    fields = {"Host": b"streams.example"} | {name: _bytes(value) for name, value in (headers or {}).items()}
    lower = {name.lower() for name in fields}
    if (body or method in ("POST", "PUT")) and not lower & {"content-length", "transfer-encoding"}:
        fields["Content-Length"] = b"%d" % len(body)
    lines = [b"%b %b HTTP/%b" % (method.encode(), _bytes(target), version.encode())]
    lines += [b"%b: %b" % (name.encode(), value) for name, value in fields.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def chunked(pieces: Iterable[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """Return a body in chunked encoding."""
    written = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return written + b"0\r\n" + trailers + b"\r\n"


class Peer:
    """
    A client's connection.

    :ivar received: all that it took so far.
    """

    def __init__(self, network: Network, skt: Socket, transport: Server, read_replies: bool) -> None:
        self._network = network
        self._socket = skt
        self._transport = transport
        self._reader = ReplyReader() if read_replies else None
        self.received = bytearray()

    # What it sends

    def send(self, data: bytes, *methods: str) -> None:
        """
        Send bytes and let the server process them.

        :param methods: of the requests that end in ``data``, where one is not a GET.
        """
        for method in methods:
            if self._reader is not None:
                self._reader.expect(method)
        self._socket.inbound += self._seal(data)
        self._network.settle()
        self._look()

    def put(self, data: bytes) -> None:
        """Put bytes into the socket; the server has not read them yet."""
        self._socket.inbound += self._seal(data)

    def send_unseen(self, data: bytes) -> None:
        """Send bytes and let the server handle one event: first a readable, then a writable descriptor."""
        self.put(data)
        self._network.turn()

    def break_off(self) -> None:
        """Break the connection so that the server notices when it sends."""
        self._socket.ended = True

    def send_request(self, method: str, target: str, headers: Headers | None = None, body: bytes = b"") -> None:
        self.send(request(method, target, headers, body), method)

    def send_bit_by_bit(self, data: bytes, sizes: Iterable[int]) -> None:
        """Send in packets of these sizes, and the rest in a last one."""
        place = 0
        for size in sizes:
            if place < len(data):
                self.send(data[place : place + size])
                place += size
        if place < len(data):
            self.send(data[place:])

    def send_no_more(self) -> None:
        """Shut down the sending side."""
        self._socket.inbound_ended = True
        self._network.settle()
        self._look()

    def leave(self) -> None:
        """Close the connection: the server reads its end, and can send nothing."""
        if not self._transport.disconnected:
            self._socket.inbound_ended = True
            self._socket.ended = True
            if self._transport not in self._network._readers:
                # A reactor hears of it all the same.
                self._transport.connectionLost(Failure(ConnectionResetError()))
            self._network.settle()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._transport.connectionLost(Failure(ConnectionResetError()))
        self._network.settle()

    # How it reads

    def take(self, size: int = ENDLESS) -> bytes:
        """Read some of the buffered bytes, which makes room for more."""
        self._look(size)
        before = len(self.received)
        self._network.settle()
        if self._socket.room == ENDLESS:
            self._look()
        return bytes(self.received[before:])

    def take_all(self, at_a_time: int = 65_536) -> None:
        """Read all buffered bytes, one piece at a time."""
        while self._socket.outbound:
            self._look(at_a_time)
            self._network.settle()

    def take_piece(self, size: int) -> None:
        """Read one piece and let the server send more."""
        self._look(size)
        self._network.settle()

    def limit(self, room: int) -> None:
        """Set the size of the receive buffer."""
        self._socket.room = room

    def read_freely(self) -> None:
        """Read everything as it arrives from now on."""
        self._socket.room = ENDLESS
        self._network.settle()
        self._look()

    def look(self) -> None:
        """Parse the bytes that arrived meanwhile."""
        if self._socket.room == ENDLESS:
            self._look()

    def _look(self, size: int = ENDLESS) -> None:
        if size == ENDLESS and self._socket.room != ENDLESS:
            return
        taken = bytes(self._socket.outbound[:size])
        del self._socket.outbound[:size]
        piece = self._open(taken)
        self.received += piece
        if self._reader is not None:
            self._reader.feed(piece)
            if self.ended and not self._reader._ended:
                self._reader.end()

    # What goes over the wire

    def _seal(self, data: bytes) -> bytes:
        return data

    def _open(self, piece: bytes) -> bytes:
        return piece

    # What it sees

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes in the receive buffer."""
        return len(self._socket.outbound)

    @property
    def unread_by_server(self) -> int:
        """The number of sent bytes that the server has not read."""
        return len(self._socket.inbound)

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection and all its bytes were read."""
        return self._socket.ended and not self._socket.outbound

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self._socket.closed

    @property
    def aborted(self) -> bool:
        """Whether the server has aborted the connection."""
        return self._socket.reset

    @property
    def replies(self) -> list[Reply]:
        assert self._reader is not None
        return self._reader.replies

    @property
    def interim(self) -> list[int]:
        assert self._reader is not None
        return self._reader.interim

    @property
    def reply(self) -> Reply:
        """The last answer, possibly incomplete."""
        assert self.replies, bytes(self.received)
        return self.replies[-1]

    @property
    def statuses(self) -> list[int]:
        """The statuses of all complete answers."""
        return [reply.status for reply in self.replies if reply.complete]

    @property
    def events(self) -> list[Event]:
        """The SSE events of the last answer so far."""
        return read_events(bytes(self.reply.body))

    @property
    def transport(self) -> Server:
        """The server's transport."""
        return self._transport


class Front:
    """
    A server with the front of a subclass.

    :param late: whether its storage answers later.
    :param storage: another storage.
    :param telemetry: who hears of the answers; whoever the settings say, unless given.
    :ivar obstacle: what keeps it from being ready.
    :cvar scheme: what its URLs begin with.
    :cvar framing: how bodies come of which it does not say how long they are.
    """

    front = ""
    scheme = "http"
    framing = "chunked"
    peer_type = Peer

    def __init__(
        self,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        late: bool = False,
        storage: Callable[[Clock], IStorage] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self.clock = SteppedClock()
        self.clock.advance(START_TIME)
        self.network = Network(self.clock)
        self.obstacle: str | None = None
        memory = storage_from(settings, self.clock)
        assert isinstance(memory, MemoryStorage)
        self.storage: Any = storage(self.clock) if storage else LateStorage(memory, self.clock) if late else memory
        # No time passes while it works, so that it does at once what there is to do.
        self.streams = Streams(self.storage, self.clock, RunQueue(self.clock, Stopwatch()))
        self.telemetry = telemetry_from(settings) if telemetry is None else telemetry
        self.operations = operations_from(self.streams, settings, self.clock, self.telemetry)
        self.metrics = metrics_from(settings, self.operations)
        base_path = settings.http.stream_base_path
        self.pages = Pages(self.operations.answers, below(base_path))
        self.pages.add(partial(add_probes, ready=lambda: self.obstacle or self.streams.obstacle()))
        if self.metrics is not None:
            self.pages.add(partial(add_metrics, render=self.metrics.scrape))
        resource = resource_from(self.operations, settings, self.clock)
        self.tree = Tree(
            resource,
            self.pages,
            self.operations,
            base_path,
            self.clock,
            settings.transport.connection.stall_timeout_secs,
        )
        # Not to read forms is what keeps twisted.web from parsing the bodies of appends.
        self.site = Site(self.tree, reactor=self.clock, parsePOSTFormSubmission=False)
        self.channels = ChannelFactory(
            self.operations, self.pages, base_path, self.clock, channel_settings_from(settings)
        )
        if self.metrics is not None:
            self.metrics.watch(self.channels)
        self._framers = (self.channels.framer, resource._framer, self.tree.pages.framer)
        self.peers: list[Peer] = []
        self.streams.startService()
        self.channels.doStart()

    @property
    def factory(self) -> IProtocolFactory:
        """The factory of the front's protocols."""
        raise NotImplementedError

    def record_with(self, telemetry: Telemetry) -> None:
        """Pass answers to another telemetry from now on."""
        for framer in self._framers:
            framer.record = telemetry.answered

    def connect(self, room: int = ENDLESS, read_replies: bool = True) -> Peer:
        """
        Connect a client.

        :param room: how much it lets lie unread; one that keeps up takes everything at once.
        """
        skt, transport = self.network.accept(self.factory, room)
        peer = self.peer_type(self.network, skt, transport, read_replies)
        self.peers.append(peer)
        self.network.settle()
        peer.look()
        return peer

    def ask(self, method: str, target: str, headers: Headers | None = None, body: bytes = b"") -> Reply:
        """Send one request on a new connection and return its answer."""
        peer = self.connect()
        peer.send_request(method, target, headers, body)
        assert len(peer.replies) == 1, (method, target, bytes(peer.received))
        peer.leave()
        self.peers.remove(peer)
        return peer.reply

    def follow(self, target: str, headers: Headers | None = None, room: int = ENDLESS) -> Peer:
        """Send a GET for a live read on a new connection and return the peer."""
        peer = self.connect(room)
        peer.send_request("GET", target, headers)
        return peer

    def create(self, name: str, content_type: str = "text/plain", body: bytes = b"", **headers: str) -> str:
        """Create a stream and return its tail."""
        fields = {"Content-Type": content_type} | {key.replace("_", "-"): value for key, value in headers.items()}
        reply = self.ask("PUT", BASE + name, fields, body)
        assert reply.status == 201, bytes(reply.body)
        return reply.get("stream-next-offset") or ""

    def append(self, name: str, body: bytes, content_type: str = "text/plain", **headers: str) -> str:
        """Append and return the new tail."""
        fields = {"Content-Type": content_type} | {key.replace("_", "-"): value for key, value in headers.items()}
        reply = self.ask("POST", BASE + name, fields, body)
        assert reply.status in (200, 204), bytes(reply.body)
        self.look()
        return reply.get("stream-next-offset") or ""

    def append_directly(self, name: str, body: bytes, media_type: str) -> None:
        """Append without HTTP and its limits."""
        self.streams.append(name, Append(media_type, body))
        self.network.settle()
        self.look()

    def close_stream(self, name: str) -> None:
        reply = self.ask("POST", BASE + name, {"Stream-Closed": "true"})
        assert reply.status == 204, bytes(reply.body)
        self.look()

    def delete(self, name: str) -> None:
        reply = self.ask("DELETE", BASE + name)
        assert reply.status == 204, bytes(reply.body)
        self.look()

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        """Advance the clock in steps, and process all events after each."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-6:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.network.settle(0)
            self.look()

    def settle(self) -> None:
        self.network.settle()
        self.look()

    def look(self) -> None:
        """Let every client parse what arrived."""
        for peer in self.peers:
            peer.look()

    def is_healthy(self) -> bool:
        """Return whether /healthz answers 200 on a new connection."""
        reply = self.ask("GET", "/healthz")
        return reply.status == 200 and bytes(reply.body) == b"ok" and reply.complete

    def stop(self) -> None:
        """Stop the front, and assert that no delayed call is left."""
        for peer in list(self.peers):
            peer.leave()
        self.peers.clear()
        self.channels.doStop()
        self.streams.stopService()
        self.pass_time(2 if isinstance(self.storage, LateStorage) else 0.1)
        left = self.clock.getDelayedCalls()
        assert not left, f"left behind: {left}"


class ChannelFront(Front):
    """
    The daemon's own HTTP/1.1.

    :ivar wrap: what to put under its protocols.
    """

    front = "channel"
    wrap: Callable[[IProtocolFactory, Clock], IProtocolFactory] | None = None

    @cached_property
    def factory(self) -> IProtocolFactory:
        return self.channels if self.wrap is None else self.wrap(self.channels, self.clock)


class WrappedFront(ChannelFront):
    """The daemon's own HTTP/1.1 on transports that wrap a socket's, and have no more than the interfaces say."""

    @staticmethod
    def wrap(factory: IProtocolFactory, clock: Clock) -> IProtocolFactory:
        return WrappingFactory(factory)


class SiteFront(Front):
    """A twisted.web Site."""

    front = "site"

    @property
    def factory(self) -> IProtocolFactory:
        return self.site


def settings_with(
    connection: Mapping[str, int] | None = None, cors_origins: tuple[str, ...] | None = None, **limits: int
) -> Settings:
    """Return settings with these limits, and ``connection`` of the transport."""
    settings = Settings(
        limits=replace(LimitSettings(), **limits),
        transport=TransportSettings(connection=replace(ConnectionSettings(), **(connection or {}))),
    )
    if cors_origins is not None:
        settings = replace(settings, http=replace(settings.http, cors_origins=cors_origins))
    return settings
