"""Tests of the gate on every front: who is let in, what is refused and how, and when live reads end."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.cases import TEXT, each_way
from tests.support.fronts import BASE
from tests.support.gates import GateTestCase, bearer


@each_way
class GateTests(GateTestCase):
    def test_an_allowed_request_is_performed(self) -> None:
        self.assertEqual(bytes(self.ask("GET", "alice/a", "alice").body), b"hello")
        self.assertEqual(self.ask("POST", "alice/a", "alice", TEXT, b"!").status, 204)
        self.assertEqual(bytes(self.ask("GET", "alice/a", "alice").body), b"hello!")

    def test_a_request_without_credentials_is_401_with_a_challenge(self) -> None:
        reply = self.ask("GET", "alice/a")
        self.assertEqual((reply.status, reply.code), (401, "UNAUTHORIZED"))
        self.assertEqual(reply.get("www-authenticate"), 'Bearer realm="durable-streams"')
        self.assertEqual(reply.get("access-control-allow-origin"), "*")
        self.assertEqual(reply.get("cache-control"), "no-store")

    def test_an_invalid_token_is_401_also_where_everybody_may_read(self) -> None:
        reply = self.ask("GET", "public/p", "nonsense")
        self.assertEqual(reply.status, 401)
        self.assertIn('error="invalid_token"', reply.get("www-authenticate") or "")

    def test_a_token_without_the_right_is_403(self) -> None:
        reply = self.ask("POST", "shared/s", "bob", TEXT, b"!")
        self.assertEqual((reply.status, reply.code), (403, "FORBIDDEN"))
        self.assertIn('error="insufficient_scope"', reply.get("www-authenticate") or "")
        self.assertEqual(reply.get("access-control-allow-origin"), "*")
        self.assertEqual(bytes(self.ask("GET", "shared/s", "bob").body), b"hello")

    def test_a_create_with_a_body_needs_append(self) -> None:
        self.control.set_rules("allow subject:bob create new/**")
        self.assertEqual(self.ask("PUT", "new/1", "bob", TEXT, b"data").status, 403)
        self.assertEqual(self.ask("PUT", "new/1", "bob", {**TEXT, "Stream-Closed": "true"}).status, 403)
        self.assertEqual(self.ask("PUT", "new/1", "bob", TEXT).status, 201)

    def test_a_fork_needs_fork_from_and_read_on_its_source(self) -> None:
        for rule, status in (("fork-from,read", 201), ("read", 403), ("fork-from", 403)):
            for source in ("shared/s", BASE + "shared/s", "sh%61red/s"):
                self.control.set_rules(
                    "allow subject:bob create bob/**",
                    f"allow subject:bob {rule} shared/**",
                    "allow subject:owner all **",
                )
                reply = self.ask("PUT", "bob/fork", "bob", {"Stream-Forked-From": source})
                self.assertEqual(reply.status, status, (rule, source))
                self.ask("DELETE", "bob/fork", "owner")

    def test_the_decisions_about_a_principal_are_forgotten_when_it_expires(self) -> None:
        for token in ("alice", "brief"):
            self.assertEqual(self.ask("GET", "alice/a", token).status, 200)
        alice, brief = (self.book.tokens[token] for token in ("alice", "brief"))
        decisions = self.gate._decisions.principals
        self.assertEqual(list(decisions), [alice, brief])
        self.front.clock.advance(11)
        self.assertEqual(list(decisions), [alice])
        self.assertEqual(self.ask("GET", "alice/a", "alice").status, 200)

    def test_a_preflight_needs_no_credentials(self) -> None:
        reply = self.ask("OPTIONS", "alice/a", None, {"Origin": "http://a", "Access-Control-Request-Method": "PUT"})
        self.assertEqual(reply.status, 204)

    def test_a_reserved_path_is_refused_unless_something_decides_about_it(self) -> None:
        for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
            self.assertEqual(self.ask(method, "__ds/subscriptions/s", "owner").status, 403)
            self.assertEqual(self.ask(method, "%5F_ds/subscriptions/s", "owner").status, 403)


@each_way
class EndTests(GateTestCase):
    def test_a_tail_ends_with_a_control_event_when_its_token_expires(self) -> None:
        peer = self.tail("alice/a", "brief")
        self.front.pass_time(9.5)
        self.assertFalse(peer.reply.complete)
        self.front.pass_time(1.25)
        self.assertTrue(peer.reply.complete)
        self.assertEqual([event.kind for event in peer.events], ["data", "control", "control"])
        self.assertEqual(self.ask("GET", "alice/a", "brief").status, 401)

    def test_a_tail_ends_at_once_when_its_token_is_revoked(self) -> None:
        peer, other = self.tail("alice/a", "alice"), self.tail("alice/a", "owner")
        self.control.revoke("alice")
        self.front.pass_time(0.25)
        self.assertTrue(peer.reply.complete)
        self.assertFalse(other.reply.complete)

    def test_a_tail_ends_at_once_when_the_rule_is_removed(self) -> None:
        peer = self.tail("alice/a", "alice")
        self.control.set_rules("allow subject:owner all **")
        self.front.pass_time(0.25)
        self.assertTrue(peer.reply.complete)

    def test_a_long_poll_ends_with_its_empty_answer(self) -> None:
        tail = self.ask("HEAD", "alice/a", "alice").get("stream-next-offset")
        peer = self.front.follow(BASE + f"alice/a?offset={tail}&live=long-poll", bearer("alice"))
        self.front.pass_time(0.5)
        self.assertEqual(peer.replies, [])
        self.control.revoke("alice")
        self.front.pass_time(0.25)
        self.assertEqual((peer.reply.status, peer.reply.get("stream-next-offset")), (204, tail))


@each_way
class DeferredTests(GateTestCase):
    def test_a_request_whose_authentication_takes_time_is_answered_after_it(self) -> None:
        pending: list[Deferred[None]] = []
        self.book.pending = pending
        peer = self.front.connect()
        peer.send_request("GET", BASE + "alice/a", bearer("alice"))
        self.assertEqual(peer.replies, [])
        self.assertEqual(len(pending), 1)
        self.fire(pending[0])
        self.assertEqual(bytes(peer.reply.body), b"hello")

    def fire(self, later: Deferred[None]) -> None:
        """Let an authentication succeed."""
        later.callback(None)
        self.front.pass_time(2)
