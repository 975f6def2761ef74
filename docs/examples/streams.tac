"""The whole server as an application: ``twistd --nodaemon --python streams.tac``.

STREAMS_LISTEN says where it listens, as endpoints with spaces between; STREAMS_DIRECTORY where the streams are kept.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from durable_streams.server import FileStorage, Settings, build_service

settings = Settings()
storage = FileStorage(os.environ.get("STREAMS_DIRECTORY", "streams"), reactor)
listeners = os.environ.get("STREAMS_LISTEN", "http:4437:interface=127.0.0.1").split()

application = Application("streams")
build_service(storage, settings, listeners).setServiceParent(application)
