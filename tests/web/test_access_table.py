"""
Every kind of credentials, with every kind of request, under several lists of rules, on every front.

What must be decided is computed from the documentation: the operations of each request are written out here, and the
rules are matched by their definition. Nothing may reach the streams but what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from twisted.cred.portal import Portal

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.bearer import BearerChecker
from durable_streams.server.identity.certificates import CertificateChecker
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.credentials import ClientCertificate
from durable_streams.server.identity.jwt.checker import jwt_checker
from durable_streams.server.identity.jwt.settings import JwtSettings
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.proxy_identity import ProxyIdentityChecker
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.signed_url_checker import SignedUrlChecker
from durable_streams.server.identity.signed_urls import SigningKey, sign
from durable_streams.server.run_queue import RunQueue
from durable_streams.server.web import proxies
from durable_streams.server.web.callers import Caller, Client
from durable_streams.server.web.http1 import channel as http1_channel
from durable_streams.server.web.http2 import channel as http2_channel
from tests.identity.naive import NaiveRule, decide, name_matches, operation_matches
from tests.support.cases import TEXT, FrontTestCase
from tests.support.fronts import BASE, START_TIME, ChannelFront, Front, SiteFront
from tests.support.http2 import Http2Front
from tests.support.identities import TokenBook
from tests.support.jwts import AUDIENCE, ISSUER, claims, jwk, jwk_set, private_key, signed

from .test_gate_bypass import RecordedStreams

NAME: Final = "chats/alice/1"
SOURCE: Final = "templates/t"
KEY: Final = SigningKey("k1", b"0123456789abcdef0123456789abcdef")


class Asked(NamedTuple):
    """
    A kind of request.

    :ivar operations: what it needs on the stream.
    :ivar on_source: what it needs on the source of a fork.
    """

    method: str
    query: str
    headers: dict[str, str]
    body: bytes
    operations: tuple[str, ...]
    on_source: tuple[str, ...] = ()


CLOSING: Final = {**TEXT, "Stream-Closed": "true"}
FORK: Final = {"Stream-Forked-From": SOURCE}

REQUESTS: Final = (
    Asked("GET", "", {}, b"", ("read",)),
    Asked("GET", "offset=now", {}, b"", ("read",)),
    Asked("GET", "offset=-1&live=long-poll", {}, b"", ("read",)),
    Asked("GET", "offset=-1&live=sse", {}, b"", ("read",)),
    Asked("HEAD", "", {}, b"", ("head",)),
    Asked("POST", "", TEXT, b"x", ("append",)),
    Asked("POST", "", CLOSING, b"", ("close",)),
    Asked("POST", "", CLOSING, b"x", ("append", "close")),
    Asked("POST", "", {**TEXT, "Stream-Closed": "false"}, b"x", ("append",)),
    Asked("DELETE", "", {}, b"", ("delete",)),
    Asked("PUT", "", TEXT, b"", ("create",)),
    Asked("PUT", "", TEXT, b"x", ("create", "append")),
    Asked("PUT", "", CLOSING, b"", ("create", "close")),
    Asked("PUT", "", CLOSING, b"x", ("create", "append", "close")),
    Asked("PUT", "", FORK, b"", ("create",), ("fork-from", "read")),
    Asked("PUT", "", {**FORK, **CLOSING}, b"", ("create", "close"), ("fork-from", "read")),
)


def rule(effect: str, who: str, operations: str, *names: str) -> NaiveRule:
    return NaiveRule(effect == "allow", who, operations.split(","), names)


RULES: Final[tuple[tuple[NaiveRule, ...], ...]] = (
    (),
    (rule("allow", "anyone", "all", "**"),),
    (rule("deny", "anonymous", "all", "**"), rule("allow", "authenticated", "all", "**")),
    (rule("allow", "subject:alice", "all", "chats/{subject}/**"), rule("allow", "anyone", "read", "**")),
    (rule("allow", "authenticated", "create,append,read", "chats/*/*"), rule("allow", "kind:jwt", "fork-from", "**")),
    (rule("deny", "anyone", "append,close", "**"), rule("allow", "anyone", "all", "*/**")),
    (rule("allow", "claim:tenant=acme", "all", "chats/**"), rule("allow", "claim:tenant=acme", "read", SOURCE)),
    (rule("allow", "group:staff&authenticated", "create,delete,head", "**/1"),),
    (rule("deny", "kind:signed-url", "read", "**"), rule("allow", "kind:certificate", "close,append", NAME)),
    (rule("deny", "anyone", "read,fork-from", "templates/**"), rule("allow", "anyone", "all", "**")),
)


class Sender(NamedTuple):
    """
    Who sends requests.

    :ivar principal: as its credentials must be understood; None if they are invalid.
    :ivar granted: operations and pattern of each grant; None for no list.
    :ivar signed: the operations of a signed URL.
    :ivar caller: what the connection tells.
    """

    principal: Principal | None
    authorization: str | None = None
    granted: tuple[tuple[str, str], ...] | None = None
    signed: str = ""
    caller: Caller = Caller("192.0.2.1")

    def may(self, rules: Sequence[NaiveRule], operation: str, name: str) -> bool:
        """Decide by the documentation."""
        assert self.principal is not None
        first = decide(rules, self.principal, operation, name)
        allowed = first is not None and rules[first].allow
        if self.granted is None:
            return allowed
        granted = any(
            operation_matches(operations.split(","), operation)
            and name_matches(pattern, self.principal, operation, name)
            for operations, pattern in self.granted
        )
        return granted and (allowed or (first is None and self.principal.kind == "signed-url"))


class _NoStreams(RecordedStreams):
    """Streams of which none exists."""

    draining = False

    def __init__(self, turns: RunQueue) -> None:
        super().__init__()
        self.turns = turns


class _Presented:
    """A certificate of a connection."""

    def __init__(self, names: ClientCertificate) -> None:
        self.names = names
        self.subject = names.subject


def token_of(**changes: object) -> str:
    """Return the header with a JWT."""
    return f"Bearer {signed(claims(**changes), 'ES256', 'k1', private_key('ES256', 1)).decode()}"


def connection_of(common_name: str) -> Caller:
    """Return the caller on a connection with a certificate."""
    names = ClientCertificate(f"CN={common_name}", common_name=common_name)
    return Caller("192.0.2.1", secure=True, subject=names.subject, presented=cast(Any, _Presented(names)))


def senders() -> dict[str, Sender]:
    """Return all kinds of senders."""
    alice = Principal("alice", "jwt", frozenset({"staff"}), {"tenant": "acme"})
    proxied = Caller("192.0.2.1", client=Client("192.0.2.2", identity="alice", identified=True))
    own = {"groups": ["staff"], "tenant": "acme"}
    narrow = [{"operations": ["read", "append"], "names": "chats/*/1"}, {"operations": ["create"], "names": "other"}]
    return {
        "nobody": Sender(Principal("", "anonymous")),
        "an unknown token": Sender(None, "Bearer dst_unknown_secret"),
        "a token": Sender(Principal("alice", "token", frozenset({"staff"})), "Bearer dst_alice_secret"),
        "a JWT": Sender(alice, token_of(sub="alice", **own)),
        "a JWT of somebody else": Sender(Principal("bob", "jwt"), token_of(sub="bob")),
        "a JWT with a list": Sender(
            alice,
            token_of(sub="alice", ds_streams=narrow, **own),
            (("read,append", "chats/*/1"), ("create", "other")),
        ),
        "an expired JWT": Sender(None, token_of(sub="alice", exp=START_TIME - 3600)),
        "a certificate": Sender(
            Principal("alice", "certificate", claims={"cn": "alice", "subject": "CN=alice"}),
            caller=connection_of("alice"),
        ),
        "a proxy's identity": Sender(Principal("alice", "header"), caller=proxied),
        "a URL to read": Sender(Principal("", "signed-url"), granted=(("read", NAME),), signed="read"),
        "a URL to write": Sender(
            Principal("alice", "signed-url"), granted=(("create,append,close", NAME),), signed="create,append,close"
        ),
        "a token and a certificate": Sender(
            Principal("alice", "token", frozenset({"staff"})), "Bearer dst_alice_secret", caller=connection_of("bob")
        ),
    }


class TableTests(FrontTestCase):
    front_type: type[Front] = ChannelFront
    methods = ("token", "jwt", "certificate", "header", "signed-url")

    def setUp(self) -> None:
        super().setUp()
        clock = clock_of(self.front.clock)
        keys = Path(self.mktemp())
        keys.write_bytes(jwk_set(jwk("ES256", 1, "k1")))
        jwts = jwt_checker(JwtSettings(keys_file=str(keys), issuer=ISSUER, audience=(AUDIENCE,)), self.front.clock)
        book = TokenBook({"dst_alice_secret": Principal("alice", "token", frozenset({"staff"}))})
        urls = SignedUrlChecker(clock.wall)
        urls.set_keys([KEY])
        checkers = [BearerChecker(static=book, jwt=jwts), CertificateChecker("cn"), ProxyIdentityChecker(), urls]
        authentication = Authentication(Portal(PrincipalRealm(), checkers), self.methods, True, clock)
        self.addCleanup(authentication.close)
        self.control = AccessControl(authentication, parse_rules((), "rules"), self.front.clock)
        self.front.operations.guard(self.control)
        self.recorded = _NoStreams(self.front.streams.turns)
        self.front.operations.streams = cast(Any, self.recorded)

    def come_as(self, caller: Caller) -> None:
        """Let the connections that follow be those of a caller."""
        for module in (proxies, http1_channel, http2_channel):
            self.patch(module, "caller_on", lambda *_: caller)

    def target(self, sender: Sender, asked: Asked) -> str:
        query = [asked.query] if asked.query else []
        if sender.signed:
            subject = "" if sender.principal is None else sender.principal.subject
            query.append(sign(KEY, sender.signed, NAME.encode(), int(START_TIME) + 600, subject))
        return BASE + NAME + ("?" + "&".join(query) if query else "")

    def expected(self, sender: Sender, asked: Asked, rules: Sequence[NaiveRule]) -> int:
        """Return the status: 404, since nothing exists, if it is allowed."""
        if sender.principal is None:
            return 401
        needed = [(operation, NAME) for operation in asked.operations]
        needed += [(operation, SOURCE) for operation in asked.on_source]
        if all(sender.may(rules, operation, name) for operation, name in needed):
            return 404
        return 401 if sender.principal.kind == "anonymous" else 403

    def test_each_request_is_decided_as_documented(self) -> None:
        seen: dict[int, int] = {}
        for label, sender in senders().items():
            self.come_as(sender.caller)
            credentials = {} if sender.authorization is None else {"Authorization": sender.authorization}
            for rules in RULES:
                self.control.set_policy(parse_rules([each.line() for each in rules], "rules"))
                for asked in REQUESTS:
                    self.recorded.names.clear()
                    headers = {**asked.headers, **credentials}
                    status = self.front.ask(asked.method, self.target(sender, asked), headers, asked.body).status
                    what = (label, asked, [each.line() for each in rules])
                    self.assertEqual(self.expected(sender, asked, rules), status, what)
                    names = [NAME, *([SOURCE] if asked.on_source else [])] if status == 404 else []
                    self.assertEqual(names, self.recorded.names, what)
                    seen[status] = seen.get(status, 0) + 1
        # The table has enough of each.
        self.assertEqual({401, 403, 404}, set(seen))
        self.assertGreater(min(seen.values()), 200)


class TableOnSiteTests(TableTests):
    front_type: type[Front] = SiteFront


class TableOverHttp2Tests(TableTests):
    front_type: type[Front] = Http2Front
