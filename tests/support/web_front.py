"""The daemon's settings behind a plain twisted.web Site: ``python -m tests.support.web_front PORT``."""

from __future__ import annotations

import signal
import sys
from typing import Any, cast

from twisted.internet import reactor as running_reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.server import Site

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.service import Daemon

reactor = cast(Any, running_reactor)


def main(port: int) -> None:
    """Serve until SIGTERM."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    settings = Settings.load()
    daemon = Daemon(settings, reactor)
    daemon.start_without_port()
    site: Any = Site(daemon.tree, parsePOSTFormSubmission=False)
    if settings.transport.mode == "http":
        reactor.listenTCP(port, site, backlog=1024, interface="127.0.0.1")
    else:
        daemon.listeners.bind(site)
    reactor.callWhenRunning(lambda: signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop)))
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
