"""An asynchronous client of Durable Streams servers, for the command line.

:class:`StreamClient` has a method for each operation of the protocol. Its errors are those of :mod:`.errors`. Memory is
bounded whatever a server sends, and no request is repeated that could store data twice.
"""

from __future__ import annotations

from .errors import (
    AnswerTimeout,
    ClientError,
    ConnectFailed,
    ConnectionBroken,
    InvalidAnswer,
    InvalidUse,
    RedirectRefused,
    Refusal,
    RefusedAsClosed,
    RefusedAsGone,
    RefusedAsMissing,
    RefusedEpoch,
    RefusedGap,
    TlsFailed,
)
from .options import ClientOptions
from .reading import Live, StreamReader
from .streams import StreamClient
from .values import AppendResult, Batch, CreateResult, StreamInfo
from .writing import IdempotentWriter

__all__ = [
    "AnswerTimeout",
    "AppendResult",
    "Batch",
    "ClientError",
    "ClientOptions",
    "ConnectFailed",
    "ConnectionBroken",
    "CreateResult",
    "IdempotentWriter",
    "InvalidAnswer",
    "InvalidUse",
    "Live",
    "RedirectRefused",
    "Refusal",
    "RefusedAsClosed",
    "RefusedAsGone",
    "RefusedAsMissing",
    "RefusedEpoch",
    "RefusedGap",
    "StreamClient",
    "StreamInfo",
    "StreamReader",
    "TlsFailed",
]
