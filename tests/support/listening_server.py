"""The streams, behind the listeners that the settings ask for: ``python -m tests.support.listening_server``."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, cast

from twisted.internet import reactor as running_reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from durable_streams.server.config.layers import load
from durable_streams.server.listeners import Listeners
from durable_streams.server.service import Daemon

reactor = cast(Any, running_reactor)


def main() -> None:
    """Serve until SIGTERM; SIGHUP takes up the certificates."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    settings = load(None, None, os.environ).settings
    daemon = Daemon(settings, reactor)
    listeners = Listeners(settings, reactor)
    listeners.bind(daemon.factory)
    daemon.start_without_port()
    print("listening at", listeners.describe(), flush=True)

    async def stop() -> None:
        await listeners.stop()
        await daemon.stopService()

    def take_signals() -> None:
        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(listeners.reload))

    reactor.callWhenRunning(take_signals)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    reactor.run()


if __name__ == "__main__":
    main()
