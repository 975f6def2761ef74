"""A server with streams in memory, for tests of clients."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.address import IPv4Address
from twisted.internet.task import deferLater

from ..config.sections import ServerSettings, StorageSettings
from ..config.settings import Settings
from ..daemon.storages import storage_from
from ..embedding import StreamServer, StreamService

#: The number of reactor turns after which clients in the same process have noticed that their connections are closed.
_TURNS: Final = 3


class MemoryServer:
    """
    A server on a free port of 127.0.0.1, with streams in memory.

    Use it in a running reactor, such as that of a ``twisted.trial`` test::

        async with MemoryServer() as server:
            await treq.put(f"{server.url}/greetings", b"hello")

    Each connection is closed after its answer, so that clients with a connection pool leave the reactor clean.

    :param settings: None for the defaults. The address and the storage in them are ignored.
    :param reactor: None for the installed reactor.
    """

    def __init__(self, settings: Settings | None = None, reactor: Any = None) -> None:
        self._settings = replace(
            settings or Settings(), server=ServerSettings("127.0.0.1:0"), storage=StorageSettings()
        )
        self._reactor = reactor
        self._server: StreamServer | None = None

    @property
    def url(self) -> str:
        """The URL of the streams; a slash and the name of a stream follow."""
        [address] = self._running.addresses
        assert isinstance(address, IPv4Address)
        return f"http://127.0.0.1:{address.port}{self._settings.http.stream_base_path.rstrip('/')}"

    @property
    def streams(self) -> StreamService:
        """The service, to read and write the same streams from Python."""
        return self._running.streams

    @property
    def _running(self) -> StreamServer:
        if self._server is None:
            raise RuntimeError("The server does not run: start it first.")
        return self._server

    async def start(self) -> None:
        """Listen and serve."""
        if self._server is not None:
            raise RuntimeError("The server runs already.")
        if self._reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 (the program may choose one until now)

            self._reactor = reactor
        service = StreamService(storage_from(self._settings, self._reactor), self._reactor, self._settings)
        listeners = ["tcp:0:interface=127.0.0.1"]
        self._server = StreamServer(service, self._settings, listeners, keep_connections=False)
        self._server.startService()

    async def stop(self) -> None:
        """Close every connection after its current answer, and leave the reactor clean."""
        server = self._running
        self._server = None
        await server.stopService()
        for _ in range(_TURNS):
            await deferLater(self._reactor, 0)

    async def __aenter__(self) -> MemoryServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
