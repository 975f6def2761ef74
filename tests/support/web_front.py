"""The server behind a plain twisted.web Site: ``python -m tests.support.web_front PORT``, with the daemon's settings."""

from __future__ import annotations

import os
import signal
import sys

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.server import Site

from durable_streams.server.config.layers import load
from durable_streams.server.service import Daemon


def main(port: int) -> None:
    """Serve until SIGTERM."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    daemon = Daemon(load(None, None, os.environ), reactor)
    daemon.start_without_port()
    reactor.listenTCP(port, Site(daemon.tree), backlog=1024, interface="127.0.0.1")  # type: ignore[attr-defined]
    reactor.callWhenRunning(  # type: ignore[attr-defined]
        lambda: signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))  # type: ignore[attr-defined]
    )
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(int(sys.argv[1]))
