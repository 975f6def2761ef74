"""
The table of the gate: each kind of credential x each operation x each outcome of the rules, on each front.

Certificates and the identities that a proxy names come with a connection whose TLS handshake is left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import Any, Final, cast

from msgspec import Struct
from twisted.cred.portal import Portal

from durable_streams.server.clocks import clock_of
from durable_streams.server.config.sections import IdentitySettings, ProxySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.bearer import BearerChecker
from durable_streams.server.identity.certificates import CertificateChecker, PeerCertificate
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.credentials import ClientCertificate
from durable_streams.server.identity.jwt.checker import jwt_checker
from durable_streams.server.identity.jwt.settings import JwtSettings
from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.proxy_identity import ProxyIdentityChecker
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.signed_url_checker import SignedUrlChecker
from durable_streams.server.identity.signed_urls import SigningKey, sign
from durable_streams.server.web import proxies
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.http1 import channel as http1_channel
from durable_streams.server.web.http2 import channel as http2_channel
from tests.support.cases import TEXT, FrontTestCase
from tests.support.fronts import BASE, START_TIME, Front, SiteFront
from tests.support.http2 import Http2Front
from tests.support.identities import TokenBook, person

SECRET: Final = b"the-secret-of-the-keys-of-the-table"
PROXY: Final = "192.0.2.9"
CLIENT: Final = "192.0.2.1"
METHODS: Final = ("jwt", "certificate", "header", "signed-url")

#: Each kind of credential, as rules name its principal.
KINDS: Final = {
    "token": "subject:anna",
    "jwt": "subject:ben",
    "certificate": "subject:CN=cleo",
    "header": "subject:dora",
    "signed-url": "kind:signed-url",
    "anonymous": "anonymous",
}


class Request(Struct, frozen=True):
    """
    A request that needs operations.

    :ivar needs: the operations.
    :ivar status: of the answer when it is allowed.
    """

    needs: tuple[str, ...]
    method: str
    status: int
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    is_new: bool = False


CLOSE: Final = {"Stream-Closed": "true"}
REQUESTS: Final = (
    Request(("read",), "GET", 200),
    Request(("read",), "GET", 200, "offset=now"),
    Request(("read",), "GET", 200, "offset=-1&live=sse"),
    Request(("read",), "GET", 200, "offset=-1&live=long-poll"),
    Request(("head",), "HEAD", 200),
    Request(("append",), "POST", 204, "", TEXT, b"x"),
    Request(("close",), "POST", 204, "", CLOSE),
    Request(("append", "close"), "POST", 204, "", {**TEXT, **CLOSE}, b"x"),
    Request(("delete",), "DELETE", 204),
    Request(("create",), "PUT", 201, "", TEXT, is_new=True),
    Request(("create", "append"), "PUT", 201, "", TEXT, b"x", is_new=True),
    Request(("create", "close"), "PUT", 201, "", {**TEXT, **CLOSE}, is_new=True),
    Request(("create", "append", "close"), "PUT", 201, "", {**TEXT, **CLOSE}, b"x", is_new=True),
)

#: A fork, which needs operations on its source, too.
FORK: Final = Request(("create",), "PUT", 201, "", {"Stream-Forked-From": "source"}, is_new=True)


class Presenter(Struct):
    """A certificate without a handshake."""

    names: ClientCertificate

    @property
    def subject(self) -> str:
        """The distinguished name."""
        return self.names.subject


def presented(name: str) -> PeerCertificate:
    """Return the certificate of a subject."""
    return cast(PeerCertificate, Presenter(ClientCertificate(f"CN={name}", common_name=name)))


def jwt(subject: str) -> str:
    """Return a token."""
    claims = {"sub": subject, "exp": START_TIME + 3600}
    parts = [{"alg": "HS256", "kid": "k"}, claims]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + signature).decode()


class TableTestCase(FrontTestCase):
    """A front behind a gate with all methods of authentication."""

    settings = Settings(
        proxy=ProxySettings(True, "x-forwarded", (PROXY,), IdentitySettings("header", "X-User")),
    )

    def setUp(self) -> None:
        super().setUp()
        self.peer = Caller(CLIENT)
        for module in (http1_channel, http2_channel, proxies):
            self.patch(module, "caller_on", lambda transport, is_trusted: self.peer)
        self.number = 0
        clock = clock_of(self.front.clock)
        key = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        keys = self.secret_file(json.dumps({"keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": key}]}))
        by_jwt = jwt_checker(JwtSettings(keys_file=keys, algorithms=("HS256",)), self.front.clock)
        checkers: list[Any] = [
            BearerChecker(jwt=by_jwt, other=TokenBook({"anna": person("anna")})),
            CertificateChecker("subject"),
            ProxyIdentityChecker(),
            SignedUrlChecker(clock.wall, [SigningKey("key1", SECRET)]),
        ]
        authentication = Authentication(Portal(PrincipalRealm(), checkers), METHODS, True, clock)
        self.addCleanup(authentication.close)
        self.control = AccessControl(authentication, parse_rules([], "rules"), clock)
        self.gate = self.front.operations.guard(self.control)
        self.create("source")

    def secret_file(self, text: str) -> str:
        """Write a file that only its owner may read, and return its path."""
        path: str = self.mktemp()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(text)
        return path

    def create(self, name: str) -> None:
        """Create a stream around the gate."""
        self.front.operations.gate = None
        self.front.create(name, body=b"hello")
        self.front.operations.gate = self.gate

    def status(self, kind: str, asked: Request, signed: str) -> int:
        """
        Send a request with a kind of credential, and return the status of its answer.

        :param signed: what a signed URL allows.
        """
        self.number += 1
        name = f"table/{self.number}"
        if not asked.is_new:
            self.create(name)
        headers, query = dict(asked.headers), asked.query
        self.peer = Caller(CLIENT)
        match kind:
            case "token":
                headers["Authorization"] = "Bearer anna"
            case "jwt":
                headers["Authorization"] = f"Bearer {jwt('ben')}"
            case "certificate":
                self.peer = Caller(CLIENT, True, False, "CN=cleo", None, presented("cleo"))
            case "header":
                self.peer = Caller(PROXY, True, True, "CN=proxy", None, presented("proxy"))
                headers["X-User"] = "dora"
            case "signed-url":
                parameters = sign(SigningKey("key1", SECRET), signed, name.encode(), int(START_TIME) + 3600)
                query = f"{query}&{parameters}" if query else parameters
        peer = self.front.connect()
        peer.send_request(asked.method, BASE + name + (f"?{query}" if query else ""), headers, asked.body)
        self.front.pass_time(0.01, 0.01)
        status = peer.reply.status
        peer.leave()
        self.front.peers.remove(peer)
        return status

    def check(self, kind: str, asked: Request, expected: int, signed: str = "", *rules: str) -> None:
        """Send a request under some rules, and check the status of its answer."""
        self.control.set_policy(parse_rules(rules, "rules"))
        operations = signed or ",".join(asked.needs)
        self.assertEqual(self.status(kind, asked, operations), expected, (kind, asked, rules, signed))


class TableTests(TableTestCase):
    def test_what_a_rule_allows_is_performed(self) -> None:
        for kind, who in KINDS.items():
            for asked in REQUESTS:
                self.check(kind, asked, asked.status, "", f"allow {who} {','.join(asked.needs)} table/**")

    def test_what_a_rule_denies_is_refused_though_a_later_one_allows_it(self) -> None:
        for kind, who in KINDS.items():
            refused = 401 if kind == "anonymous" else 403
            for asked in REQUESTS:
                for operation in asked.needs:
                    self.check(kind, asked, refused, "", f"deny {who} {operation} table/**", "allow anyone all **")

    def test_what_no_rule_allows_is_refused_unless_a_signed_url_grants_it(self) -> None:
        for kind in KINDS:
            for asked in REQUESTS:
                refused = {"anonymous": 401, "signed-url": asked.status}.get(kind, 403)
                self.check(kind, asked, refused, "", "allow subject:nobody all **")

    def test_each_of_several_needed_operations_must_be_allowed(self) -> None:
        for kind, who in KINDS.items():
            if kind == "signed-url":
                continue
            refused = 401 if kind == "anonymous" else 403
            for asked in REQUESTS:
                for operation in asked.needs:
                    rest = ",".join(
                        set(OPERATIONS) - {operation, "admin"} - ({"read"} if operation == "head" else set())
                    )
                    self.check(kind, asked, refused, "", f"allow {who} {rest} table/**")

    def test_a_signed_url_is_for_its_operations_only_whatever_the_rules_allow(self) -> None:
        for asked in REQUESTS:
            for operation in asked.needs:
                others = {"read", "append", "close", "create", "delete", "head"} - {operation}
                others -= {"read"} if operation == "head" else set()
                self.check("signed-url", asked, 403, ",".join(sorted(others)), "allow anyone all **")

    def test_a_fork_needs_both_operations_on_its_source(self) -> None:
        for kind, who in KINDS.items():
            if kind == "signed-url":
                continue
            refused = 401 if kind == "anonymous" else 403
            target = f"allow {who} create table/**"
            self.check(kind, FORK, FORK.status, "", target, f"allow {who} fork-from,read source")
            self.check(kind, FORK, refused, "", target, f"allow {who} fork-from source")
            self.check(kind, FORK, refused, "", target, f"allow {who} read source")
            self.check(kind, FORK, refused, "", f"allow {who} fork-from,read source")

    def test_no_principal_stays_with_a_connection(self) -> None:
        self.control.set_policy(parse_rules(["allow authenticated read **"], "rules"))
        self.create("table/mine")
        peer = self.front.connect()
        for token, status in (("anna", 200), (None, 401), (jwt("ben"), 200), ("wrong", 401), (None, 401)):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            peer.send_request("GET", BASE + "table/mine", headers)
            self.front.pass_time(0.01, 0.01)
            self.assertEqual(peer.reply.status, status, token)

    def test_the_header_of_a_peer_that_is_no_proxy_is_ignored(self) -> None:
        self.control.set_policy(parse_rules(["allow authenticated read **"], "rules"))
        self.create("table/mine")
        for peer in (Caller(CLIENT, True), Caller(PROXY, True, True)):
            self.peer = peer
            self.assertEqual(self.front.ask("GET", BASE + "table/mine", {"X-User": "dora"}).status, 401)

    def test_the_first_kind_of_credential_decides_and_an_invalid_one_is_not_passed_over(self) -> None:
        self.control.set_policy(parse_rules(["allow subject:CN=cleo read **"], "rules"))
        self.create("table/mine")
        self.peer = Caller(CLIENT, True, False, "CN=cleo", None, presented("cleo"))
        for headers, status in (
            ({}, 200),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer anna"}, 403),
        ):
            self.assertEqual(self.front.ask("GET", BASE + "table/mine", headers).status, status)


class TableOnSiteTests(TableTests):
    front_type: type[Front] = SiteFront


class TableOverHttp2Tests(TableTests):
    front_type: type[Front] = Http2Front
