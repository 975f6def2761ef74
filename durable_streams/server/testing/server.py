"""A whole server that forgets, for the tests of its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from twisted.internet.address import IPv4Address

from ..config.sections import ServerSettings, StorageSettings
from ..config.settings import Settings
from ..streams import Streams

if TYPE_CHECKING:
    from ..daemon.service import Daemon


class MemoryServer:
    """
    A whole server on a free port of 127.0.0.1, which keeps its streams in memory.

    Use it in a running reactor, such as that of a ``twisted.trial`` test::

        async with MemoryServer() as server:
            await treq.put(f"{server.url}/greetings", b"hello")

    :param settings: what is to differ from the defaults; where it listens and keeps its streams is set here.
    :param reactor: None takes the one that is installed.
    """

    def __init__(self, settings: Settings | None = None, reactor: Any = None) -> None:
        self._settings = replace(
            settings or Settings(), server=ServerSettings("127.0.0.1:0"), storage=StorageSettings()
        )
        self._reactor = reactor
        self._daemon: Daemon | None = None

    @property
    def url(self) -> str:
        """The URL that the names of streams follow, after a slash."""
        address = self._running.address
        assert isinstance(address, IPv4Address)
        return f"http://127.0.0.1:{address.port}{self._settings.http.stream_base_path.rstrip('/')}"

    @property
    def streams(self) -> Streams:
        """The streams that are served, to look at and change beside HTTP."""
        return self._running.streams

    @property
    def _running(self) -> Daemon:
        if self._daemon is None:
            raise RuntimeError("The server does not run: start it first.")
        return self._daemon

    async def start(self) -> None:
        """Listen and serve."""
        if self._daemon is not None:
            raise RuntimeError("The server runs already.")
        if self._reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 (the program may choose one until now)

            self._reactor = reactor
        from ..daemon.service import Daemon  # noqa: PLC0415 (Klein, which it needs, chooses a reactor when it is imported)

        self._daemon = Daemon(self._settings, self._reactor)
        self._daemon.startService()

    async def stop(self) -> None:
        """End every connection after the answer that is on its way, and leave nothing in the reactor."""
        daemon = self._running
        self._daemon = None
        await daemon.stopService()

    async def __aenter__(self) -> MemoryServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
