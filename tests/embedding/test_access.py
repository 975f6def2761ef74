"""Access control of streams in another program: a portal and a policy, or the settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

from durable_streams.server import (
    AccessControl,
    ConfigError,
    IBearerToken,
    IRevocations,
    MemoryStorage,
    Policy,
    Principal,
    PrincipalRealm,
    RuleError,
    Settings,
    StreamService,
    build_access_control,
    build_admin_resource,
    build_resource,
    build_service,
    parse_rules,
)
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.pages import PageRequest

RULES = ("allow subject:ops admin", "allow authenticated all {subject}/**", "allow anyone read public/**")


@implementer(ICredentialsChecker, IRevocations)
class Names:
    """Takes a token for its user's name, if it is one of these."""

    credentialInterfaces = (IBearerToken,)
    kinds = ("custom", "session")

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.later: Deferred[None] | None = None

    def requestAvatarId(self, credentials: Any) -> Any:
        if credentials.token.decode() not in self.names:
            raise UnauthorizedLogin
        if self.later is None:
            return credentials.token
        return self.later.addCallback(lambda _: Principal(credentials.token.decode(), "session"))

    def is_current(self, principal: Principal) -> bool:
        return principal.subject in self.names


def rules(*lines: str) -> Policy:
    return parse_rules(lines, "the program")


class AccessCase(SynchronousTestCase):
    """Streams of a program in a Site on a Clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.checker = Names("alice", "bob", "ops")
        self.portal = Portal(PrincipalRealm(), [self.checker])

    def service(self, settings: Settings | None = None) -> StreamService:
        service = StreamService(MemoryStorage(), self.clock, settings)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def begin(
        self, resource: IResource, method: str, path: str, token: str | None = None, body: bytes = b""
    ) -> StringTransport:
        """Send a request on a new connection, and return its transport."""
        channel: Any = Site(resource, reactor=self.clock, parsePOSTFormSubmission=False).buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        self.addCleanup(channel.connectionLost, Failure(ConnectionDone()))
        authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
        head = f"{method} /{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{authorization}\r\n"
        channel.dataReceived(head.encode() + body)
        self.clock.pump([0.01] * 10)
        return transport

    def ask(self, resource: IResource, method: str, path: str, token: str | None = None, body: bytes = b"") -> int:
        """Send a request on a new connection, and return the status."""
        answer = self.begin(resource, method, path, token, body).value()
        return int(answer.split(b" ")[1]) if answer else 0


class ResourceTests(AccessCase):
    def test_without_a_portal_everybody_may_do_everything(self) -> None:
        resource = build_resource(self.service())
        self.assertEqual([self.ask(resource, method, "a") for method in ("PUT", "GET", "DELETE")], [201, 200, 204])
        self.assertEqual(self.ask(resource, "PUT", "a", "any token"), 201)

    def test_a_portal_and_a_policy_decide_about_each_request(self) -> None:
        service = self.service()
        resource = build_resource(service, self.portal, rules(*RULES))
        for token, status in ((None, 401), ("wrong", 401), ("bob", 403), ("alice", 201)):
            self.assertEqual(self.ask(resource, "PUT", "alice/a", token), status)
        self.successResultOf(service.create("public/p", "text/plain", b"hello"))
        self.assertEqual(self.ask(resource, "GET", "public/p"), 200)
        self.assertEqual(self.ask(resource, "POST", "public/p", "alice", b"x"), 403)
        self.assertEqual(self.ask(resource, "GET", "__ds/jwks.json"), 200)
        self.assertEqual(
            [self.ask(resource, "GET", "__ds/subscriptions/s", name) for name in (None, "bob")], [401, 403]
        )

    def test_a_checker_may_need_time(self) -> None:
        later: Deferred[None] = Deferred()
        self.checker.later = later
        resource = build_resource(self.service(), self.portal, rules(*RULES))
        transport = self.begin(resource, "PUT", "alice/a", "alice")
        self.assertEqual(transport.value(), b"")
        later.callback(None)
        self.clock.pump([0.01] * 10)
        self.assertEqual(transport.value().split(b" ")[1], b"201")

    def test_passwords_and_anonymous_requests_are_of_a_portal_as_well(self) -> None:
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")
        portal = Portal(PrincipalRealm(), [users, AllowAnonymousAccess()])
        resource = build_resource(self.service(), portal, rules("allow subject:alice all **", "allow anyone create **"))
        self.assertEqual(self.ask(resource, "PUT", "a"), 201)
        self.assertEqual(self.ask(resource, "GET", "a"), 401)
        self.assertEqual(self.ask(resource, "GET", "a", "alice"), 401)

    def test_a_policy_without_a_portal_is_for_anonymous_requests(self) -> None:
        resource = build_resource(self.service(), policy=rules("allow anyone create,read **"))
        self.assertEqual([self.ask(resource, method, "a") for method in ("PUT", "GET", "DELETE")], [201, 200, 401])

    def test_a_changed_policy_and_a_revoked_token_end_tails(self) -> None:
        access = build_access_control(self.portal, rules(*RULES), self.clock)
        self.assertIsInstance(access, AccessControl)
        service = self.service()
        resource = build_resource(service, access=access)
        self.successResultOf(service.create("alice/a", "text/plain", b"hello"))
        for end in (lambda: access.set_policy(rules("allow subject:bob all **")), self.revoke(access)):
            access.set_policy(rules(*RULES))
            transport = self.begin(resource, "GET", "alice/a?offset=-1&live=sse", "alice")
            self.assertFalse(transport.value().endswith(b"0\r\n\r\n"))
            end()
            self.clock.pump([0.1] * 10)
            self.assertTrue(transport.value().endswith(b"0\r\n\r\n"), transport.value())
            self.assertIn(self.ask(resource, "GET", "alice/a", "alice"), (401, 403))

    def revoke(self, access: AccessControl) -> Any:
        def revoke() -> None:
            self.checker.names.remove("alice")
            access.changed()

        return revoke

    def test_the_settings_of_a_service_count_as_they_do_for_the_daemon(self) -> None:
        settings = Settings.from_mapping({"auth": {"rules": ["allow anyone read **"], "hide_forbidden": False}})
        service = self.service(settings)
        resource = build_resource(service)
        self.successResultOf(service.create("a", "text/plain", b"hello"))
        self.assertEqual([self.ask(resource, method, "a") for method in ("GET", "DELETE")], [200, 401])

    def test_the_audit_log_of_the_settings_is_written_until_the_service_has_stopped(self) -> None:
        path = Path(self.mktemp()).absolute()
        service = self.service(Settings.from_mapping({"audit": {"file": str(path), "events": "all"}}))
        resource = build_resource(service, self.portal, rules("allow subject:alice create,append,read **"))
        self.successResultOf(service.create("a", "text/plain", b"hello"))
        self.assertEqual([200, 403], [self.ask(resource, "GET", "a", token) for token in ("alice", "bob")])
        rotated = path.rename(path.with_suffix(".1"))
        service.reopen_audit_log()
        self.assertEqual(401, self.ask(resource, "GET", "a", "nobody"))
        self.successResultOf(service.stopService())
        lines = [json.loads(line) for part in (rotated, path) for line in part.read_text().splitlines()]
        self.assertEqual(
            [("opened", None), ("request", "alice"), ("request", "bob"), ("request", None), ("closed", None)],
            [(line["event"], line.get("subject")) for line in lines],
        )
        self.assertEqual([], [call for call in self.clock.getDelayedCalls() if "Audit" in repr(call)])

    def check_one_line_of_a_change(self, path: Path, change: Callable[[], object]) -> None:
        """Check that a change has one line in the audit log of a service with two resources."""
        change()
        self.clock.pump([0.1] * 15)
        lines = [json.loads(line)["event"] for line in path.read_text().splitlines()]
        self.assertEqual(["opened", "rules_changed"], lines)

    def test_a_change_of_an_access_control_that_resources_share_is_recorded_once(self) -> None:
        path = Path(self.mktemp()).absolute()
        service = self.service(Settings.from_mapping({"audit": {"file": str(path)}}))
        access = build_access_control(self.portal, rules(*RULES), self.clock)
        for build in (build_resource, build_admin_resource):
            build(service, access=access)
        self.check_one_line_of_a_change(path, lambda: access.set_policy(rules("allow anyone read **")))

    def test_resources_share_the_access_control_of_the_settings(self) -> None:
        path, file = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        file.write_text("allow anyone read **\n")
        settings = {"audit": {"file": str(path)}, "auth": {"rules_file": str(file)}}
        service = self.service(Settings.from_mapping(settings))
        for build in (build_resource, build_admin_resource):
            build(service)
        self.check_one_line_of_a_change(path, lambda: file.write_text("allow anyone all **\n"))

    def test_an_audit_log_that_cannot_be_opened_is_named(self) -> None:
        path = Path(self.mktemp()).absolute() / "audit.jsonl"
        service = self.service(Settings.from_mapping({"audit": {"file": str(path)}}))
        error = self.assertRaises(ConfigError, build_resource, service, self.portal, rules("allow anyone read **"))
        self.assertIn(f"Cannot open the audit log {path} (audit.file): No such file", str(error))

    def test_a_portal_without_a_policy_and_two_access_controls_are_refused(self) -> None:
        service = self.service()
        policy = rules(*RULES)
        access = build_access_control(self.portal, policy, self.clock)
        self.assertIn("needs a policy", str(self.assertRaises(ValueError, build_resource, service, self.portal)))
        for options in ({"policy": policy}, {"portal": self.portal, "policy": policy}):
            self.assertRaises(ValueError, build_resource, service, access=access, **options)
        useless = Portal(PrincipalRealm())
        message = str(self.assertRaises(ValueError, build_resource, service, useless, policy))
        self.assertIn("IBearerToken", message)
        of_settings = self.service(Settings.from_mapping({"auth": {"rules": ["allow anyone read **"]}}))
        self.assertRaises(ValueError, build_resource, of_settings, self.portal, policy)

    def test_a_rule_that_cannot_be_read_is_named(self) -> None:
        error = self.assertRaises(RuleError, rules, "allow anyone read a", "permit alice")
        self.assertIn("the program", str(error))
        self.assertIn("2", str(error))


class AdminResourceTests(AccessCase):
    def test_the_pages_need_the_right_admin_on_this_machine_as_well(self) -> None:
        resource = build_admin_resource(self.service(), portal=self.portal, policy=rules(*RULES))
        self.assertEqual([self.ask(resource, "GET", "counts", name) for name in (None, "x", "bob")], [401, 401, 403])
        self.assertEqual(self.ask(resource, "GET", "counts", "ops"), 200)


class ServerTests(SynchronousTestCase):
    def test_a_whole_server_obeys_a_portal_and_a_policy(self) -> None:
        reactor = MemoryReactorClock()
        portal = Portal(PrincipalRealm(), [Names("alice", "ops")])
        settings = Settings.from_mapping({"admin": {"enabled": True}})
        server = build_service(MemoryStorage(), settings, ["tcp:0"], reactor, portal=portal, policy=rules(*RULES))
        pages = server._fronts._for_all
        for path, statuses in (("/admin/counts", [401, 403]), ("/metrics", [401, 403, 200]), ("/healthz", [200, 200])):
            for token, status in zip(("x", "alice", "ops"), statuses, strict=False):
                fields = [(b"Host", b"localhost"), (b"Authorization", b"Bearer " + token.encode())]
                request = PageRequest(b"GET", path.encode(), fields, caller=Caller("127.0.0.1"))
                self.assertEqual(self.successResultOf(pages.perform(request)).status, status, (path, token))

    def test_a_portal_without_a_policy_leaves_the_storage_free(self) -> None:
        storage = MemoryStorage()
        portal = Portal(PrincipalRealm(), [Names("alice")])
        self.assertRaises(
            ValueError, build_service, storage, Settings(), ["tcp:0"], MemoryReactorClock(), portal=portal
        )
        build_service(storage, Settings(), ["tcp:0"], MemoryReactorClock())
