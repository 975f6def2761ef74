"""A site whose streams need authentication: ``python authenticated.py PORT``.

/streams has bearer tokens of a checker of this program. /app is a Klein application with streams at /app/streams, for
users with a name and a password. Both obey the same rules.
"""

import hmac
import sys
from typing import Any

from klein import Klein
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import implementer

from durable_streams.server import (
    IBearerToken,
    MemoryStorage,
    Principal,
    PrincipalRealm,
    StreamService,
    build_resource,
    parse_rules,
)

RULES = """
    # Each user has streams of their own. Editors write the news, which everybody may read.
    allow authenticated all users/{subject}/**
    allow group:editors create,append,close news/**
    allow anyone read news/**
"""


@implementer(ICredentialsChecker)
class TokenChecker:
    """Finds out whose a bearer token is."""

    credentialInterfaces = (IBearerToken,)

    def __init__(self, tokens: dict[bytes, Principal]) -> None:
        self._tokens = tokens

    def requestAvatarId(self, credentials: Any) -> Any:
        """Return the principal of a token, or a Deferred of it."""
        found = None
        for token, principal in self._tokens.items():
            # All are compared, so that the time does not tell which one is similar.
            if hmac.compare_digest(token, credentials.token):
                found = principal
        if found is None:
            raise UnauthorizedLogin
        return found


def build_site(streams: StreamService) -> Resource:
    """Create a site with streams at /streams."""
    tokens = {
        b"token-of-alice": Principal("alice", "session", groups=frozenset(["editors"])),
        b"token-of-bob": Principal("bob", "session"),
    }
    portal = Portal(PrincipalRealm(), [TokenChecker(tokens)])
    root = Resource()
    root.putChild(b"streams", build_resource(streams, portal, parse_rules(RULES.splitlines(), "RULES")))
    return root


def build_app(streams: StreamService) -> Klein:
    """Create an application with streams at /streams."""
    users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret", bob=b"secret")
    portal = Portal(PrincipalRealm(), [users])
    resource = build_resource(streams, portal, parse_rules(RULES.splitlines(), "RULES"))
    app = Klein()

    @app.route("/streams/", branch=True)
    def serve_streams(request: Any) -> IResource:
        return resource

    return app


async def main(reactor: Any, port: str) -> None:
    """Serve until the reactor stops."""
    streams = StreamService(MemoryStorage(), reactor)
    streams.startService()
    root = build_site(streams)
    root.putChild(b"app", build_app(streams).resource())
    site = Site(root, parsePOSTFormSubmission=False)
    listening = await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(site)
    print(f"http://127.0.0.1:{listening.getHost().port}/", flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", streams.stopService)
    await Deferred()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
