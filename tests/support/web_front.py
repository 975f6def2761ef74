"""The daemon's settings behind a plain twisted.web Site: ``python -m tests.support.web_front PORT``."""

from __future__ import annotations

import signal
import sys
from typing import Any, cast

from twisted.internet import reactor as running_reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.server import Site

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.storages import storage_from
from durable_streams.server.embedding import build_service
from durable_streams.server.listening.listeners import Listeners

reactor = cast(Any, running_reactor)


def main(port: int) -> None:
    """Serve until SIGTERM."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    settings = Settings.load()
    server = build_service(storage_from(settings, reactor), settings)
    server.startService()
    site: Any = Site(server.tree, parsePOSTFormSubmission=False)
    if settings.transport.mode == "http":
        reactor.listenTCP(port, site, backlog=1024, interface="127.0.0.1")
    else:
        Listeners(settings, reactor).bind(site)
    reactor.callWhenRunning(lambda: signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop)))
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
