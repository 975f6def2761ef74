"""The messages between the supervisor and its workers, over two pipes: JSON after a length of four bytes.

A worker reads its :class:`Assignment` before its reactor runs, and all other messages afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct as Layout
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from ...config.settings import Settings

#: The length of the longest message, in bytes: metrics have 100 bytes a line.
MAX_LENGTH: Final = 16_777_216

_LENGTH: Final = Layout("!I")


class Message(Struct, frozen=True, tag=True):
    """A message."""


class Assignment(Message, frozen=True):
    """
    What a worker serves.

    :ivar worker: its number, from 1.
    :ivar settings: the settings, as the supervisor has read them.
    :ivar sockets: the descriptors of its listening sockets, in the order of the listeners.
    :ivar folder: the working directory at the start of the daemon, to which relative paths refer.
    :ivar log_level: the present level, which SIGHUP may have changed.
    """

    worker: int
    settings: Settings
    sockets: list[int]
    folder: str
    log_level: str


class Serving(Message, frozen=True):
    """The worker serves streams."""


class Leaving(Message, frozen=True):
    """The worker accepts no connections any more: a signal has ended it."""


class Failed(Message, frozen=True):
    """
    The worker cannot start.

    :ivar phase: one of :data:`.startup.PHASES`.
    :ivar cause: a sentence or two: the setting, its value, and what to change.
    """

    phase: str
    cause: str


class Stop(Message, frozen=True):
    """The worker is to drain its connections, and end."""


class Abort(Message, frozen=True):
    """The worker is to close all connections at once, and end."""


class Ping(Message, frozen=True):
    """The worker is to answer :class:`Pong`, which shows that its reactor is not blocked."""


class Pong(Message, frozen=True):
    """The answer to :class:`Ping`."""


class Reload(Message, frozen=True):
    """
    The worker is to reload certificates, tokens and log file.

    :ivar log_level: the new level; None to keep it.
    :ivar files: whether the files of certificates and tokens are valid; otherwise they are not read.
    """

    log_level: str | None
    files: bool


class Reloaded(Message, frozen=True):
    """The worker has reloaded."""


class MetricsRequest(Message, frozen=True):
    """
    A request of metrics: of a worker's own by the supervisor, of those of all workers by a worker.

    :ivar number: the number of the request, for its answer.
    """

    number: int


class MetricsAnswer(Message, frozen=True):
    """
    The answer to a request of metrics.

    :ivar text: metrics in Prometheus' text format.
    """

    number: int
    text: str


#: What the supervisor sends.
ToWorker = Assignment | Stop | Abort | Ping | Reload | MetricsRequest | MetricsAnswer

#: What workers send.
FromWorker = Serving | Leaving | Failed | Pong | Reloaded | MetricsRequest | MetricsAnswer


def encode(message: Message) -> bytes:
    """Return a message as it is written into a pipe."""
    body = msgspec.json.encode(message)
    return _LENGTH.pack(len(body)) + body


def read_assignment(source: BinaryIO) -> Assignment | None:
    """
    Read the first message from a pipe without buffer, and nothing behind it; block until it is there.

    :returns: None if the pipe ends before.
    """
    head = _read(source, _LENGTH.size)
    body = None if head is None else _read(source, _LENGTH.unpack(head)[0])
    return None if body is None else msgspec.json.decode(body, type=Assignment)


def _read(source: BinaryIO, length: int) -> bytes | None:
    received = b""
    while len(received) < length:
        more = source.read(length - len(received))
        if not more:
            return None
        received += more
    return received


class Channel(Int32StringReceiver):
    """
    One end of the pipes.

    :param kind: the messages that the other end sends.
    :param receive: is called with each of them.
    :param lost: is called when the other end has closed its pipe.
    """

    MAX_LENGTH = MAX_LENGTH

    def __init__(self, kind: object, receive: Callable[[Message], object], lost: Callable[[], object]) -> None:
        self._decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(kind)
        self._receive = receive
        self._lost = lost

    def stringReceived(self, string: bytes) -> None:
        self._receive(self._decoder.decode(string))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost()

    def send(self, message: Message) -> None:
        """Send a message."""
        assert self.transport is not None
        self.transport.write(encode(message))

    def close(self) -> None:
        """Close the pipes after everything was sent."""
        assert self.transport is not None
        self.transport.loseConnection()
