"""A site whose streams need authentication: ``python authenticated.py PORT``.

/private has HTTP Basic authentication by twisted.web.guard. /app is a Klein application that checks a token, with
streams at /app/streams.
"""

import hmac
import sys
from typing import Any

from klein import Klein
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer

from durable_streams.server import MemoryStorage, StreamService, build_resource


@implementer(IRealm)
class StreamsRealm:
    """Gives every user who has logged in the same streams."""

    def __init__(self, streams: IResource) -> None:
        self._streams = streams

    def requestAvatar(self, user: object, mind: object, *interfaces: object) -> tuple[Any, IResource, Any]:
        """Return the streams."""
        return IResource, self._streams, lambda: None


class Guarded(HTTPAuthSessionWrapper):
    """Requests need a password, except CORS preflights: browsers send those without credentials."""

    def __init__(self, streams: IResource, portal: Portal) -> None:
        super().__init__(portal, [BasicCredentialFactory(b"streams")])
        self._streams = streams

    def getChildWithDefault(self, path: bytes, request: Any) -> Any:
        """Return the streams for a preflight; otherwise ask for a password."""
        if request.method == b"OPTIONS":
            request.postpath.insert(0, request.prepath.pop())
            return self._streams
        return super().getChildWithDefault(path, request)


def guarded(streams: IResource) -> IResource:
    """Put HTTP Basic authentication around the streams."""
    users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
    return Guarded(streams, Portal(StreamsRealm(streams), [users]))


READER = b"a token that may read"
WRITER = b"a token that may also write"


def token_of(request: Any) -> bytes:
    """Return the token of a request: of Authorization, of a cookie, or of the query."""
    header: bytes = request.getHeader(b"authorization") or b""
    if header.startswith(b"Bearer "):
        return header.removeprefix(b"Bearer ")
    return bytes(request.getCookie(b"token") or request.args.get(b"token", [b""])[0])


def may(request: Any) -> bool:
    """Return whether the token of a request permits its method."""
    tokens = [WRITER] if request.method in (b"PUT", b"POST", b"DELETE") else [READER, WRITER]
    token = token_of(request)
    return any(hmac.compare_digest(token, each) for each in tokens)


def build_app(streams: IResource) -> Klein:
    """Create an application with streams at /streams."""
    app = Klein()

    @app.route("/streams/", branch=True)
    def checked(request: Any) -> IResource | bytes:
        if request.method == b"OPTIONS" or may(request):
            return streams
        request.setResponseCode(401)
        request.setHeader(b"WWW-Authenticate", b"Bearer")
        # Without this, the script of a page cannot see the status.
        request.setHeader(b"Access-Control-Allow-Origin", b"*")
        return b"A token is missing or does not permit this.\n"

    return app


async def main(reactor: Any, port: str) -> None:
    """Serve until the reactor stops."""
    service = StreamService(MemoryStorage(), reactor)
    service.startService()
    streams = build_resource(service)
    root = Resource()
    root.putChild(b"private", guarded(streams))
    root.putChild(b"app", build_app(streams).resource())
    site = Site(root, parsePOSTFormSubmission=False)
    listening = await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(site)
    print(f"http://127.0.0.1:{listening.getHost().port}/", flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    await Deferred()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
