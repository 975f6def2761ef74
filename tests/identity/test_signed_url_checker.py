"""The checker of signed URLs: which URLs it accepts, and the principals that it returns."""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity import signed_url_checker
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.credentials import Presented, SignedUrlCredentials
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.revocation import IRevocations
from durable_streams.server.identity.signed_url_checker import SignedUrlChecker
from durable_streams.server.identity.signed_urls import (
    CLOCK_SKEW,
    MAX_VALIDITY,
    SignedUrl,
    SigningKey,
    is_signed_by,
    sign,
)
from tests.support.clocks import SteppedClock

NOW = 1_767_225_600
OLD = SigningKey("old", b"0123456789abcdef0123456789abcdef")
NEW = SigningKey("new", b"fedcba9876543210fedcba9876543210")


class CheckerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SteppedClock()
        self.clock.advance(NOW)
        self.checker = SignedUrlChecker(self.clock.wall)
        self.checker.set_keys([NEW, OLD])

    def check(self, query: str, path: bytes = b"chats/a") -> Principal:
        return self.checker.requestAvatarId(SignedUrlCredentials(query.encode(), path, b"GET"))

    def refused(self, query: str, path: bytes = b"chats/a") -> str:
        error = self.assertRaises(NotAuthenticated, self.check, query, path)
        self.assertIn('error="invalid_token"', error.challenge)
        self.assertNotIn(query[-43:], f"{error} {error.challenge}")
        return str(error)

    def signed(self, key: SigningKey = NEW, operations: str = "read", seconds: int = 60, subject: str = "") -> str:
        return sign(key, operations, b"chats/a", int(self.clock.wall()) + seconds, subject)


class PrincipalTests(CheckerTestCase):
    def test_the_checker_provides_the_interfaces_of_checkers_and_of_revocations(self) -> None:
        self.assertTrue(verifyObject(ICredentialsChecker, self.checker))
        self.assertTrue(verifyObject(IRevocations, self.checker))

    def test_the_principal_has_one_grant_for_the_stream_until_the_time(self) -> None:
        principal = self.check(self.signed(operations="append,create", subject="alice"))
        self.assertEqual(
            ("alice", "signed-url", "new", NOW + 60.0),
            (principal.subject, principal.kind, principal.credential, principal.expires_at),
        )
        assert principal.grants is not None
        [grant] = principal.grants
        self.assertEqual(
            (frozenset({"append", "create"}), "chats/a", True), (grant.operations, grant.pattern, grant.literal)
        )

    def test_without_rules_a_url_allows_its_operations_on_its_stream_only(self) -> None:
        policy = parse_rules([], "auth.rules")
        principal = self.check(self.signed())
        for operation, name, allowed in (
            ("read", "chats/a", True),
            ("head", "chats/a", True),
            ("read", "chats/b", False),
            ("read", "chats/a/b", False),
            ("read", "chats", False),
            ("append", "chats/a", False),
            ("create", "chats/a", False),
            ("delete", "chats/a", False),
            ("subscribe", "chats/a", False),
            ("admin", "", False),
        ):
            self.assertEqual(allowed, policy.decide(principal, operation, name).allowed, (operation, name))

    def test_a_name_with_pattern_characters_is_literal(self) -> None:
        policy = parse_rules([], "auth.rules")
        principal = self.check(sign(NEW, "read", b"a/%2a", NOW + 60), b"a/*")
        self.assertTrue(policy.decide(principal, "read", "a/*").allowed)
        self.assertFalse(policy.decide(principal, "read", "a/b").allowed)

    def test_a_rule_that_denies_the_subject_denies_its_urls(self) -> None:
        policy = parse_rules(["deny subject:alice all **"], "auth.rules")
        for subject, allowed in (("alice", False), ("bob", True), ("", True)):
            principal = self.check(self.signed(subject=subject))
            self.assertEqual(allowed, policy.decide(principal, "read", "chats/a").allowed, subject)

    def test_rules_that_allow_more_do_not_widen_a_url(self) -> None:
        policy = parse_rules(["allow anyone all **"], "auth.rules")
        principal = self.check(self.signed())
        self.assertFalse(policy.decide(principal, "append", "chats/a").allowed)
        self.assertFalse(policy.decide(principal, "read", "chats/b").allowed)

    def test_requests_with_one_url_have_one_principal(self) -> None:
        query = self.signed()
        first = self.check(query)
        self.assertIs(first, self.check("offset=-1&" + query + "&live=sse"))
        self.assertIs(first, self.check(query, b"%63hats%2fa"))
        self.assertIsNot(first, self.check(self.signed(seconds=61)))

    def test_the_number_of_remembered_urls_is_bounded(self) -> None:
        self.patch(signed_url_checker, "_REMEMBERED", 3)
        for seconds in range(60, 70):
            self.check(self.signed(seconds=seconds))
        self.assertEqual(3, len(self.checker._principals))


class RefusalTests(CheckerTestCase):
    def test_a_url_is_refused_from_its_expiry_on(self) -> None:
        query = self.signed(seconds=60)
        self.clock.advance(59.9)
        self.check(query)
        self.clock.advance(0.1)
        self.assertEqual("The signed URL has expired. Get a new one from who has issued it.", self.refused(query))

    def test_an_expired_url_with_a_wrong_signature_is_refused_for_the_signature(self) -> None:
        self.assertIn("changed after it was signed", self.refused(self.signed(seconds=-5)[:-8] + "AAAAAAAA"))

    def test_a_validity_of_more_than_the_maximum_is_refused(self) -> None:
        self.check(self.signed(seconds=MAX_VALIDITY))
        self.check(self.signed(seconds=MAX_VALIDITY + CLOCK_SKEW))
        self.assertIn("more than 7 days", self.refused(self.signed(seconds=MAX_VALIDITY + CLOCK_SKEW + 1)))
        self.assertIn("more than 7 days", self.refused(sign(NEW, "read", b"chats/a", 10**12 - 1)))

    def test_unknown_keys_and_wrong_signatures_have_one_message(self) -> None:
        messages = {
            self.refused(self.signed(SigningKey("new", OLD.secret))),
            self.refused(self.signed(SigningKey("other", NEW.secret))),
            self.refused(self.signed(), b"chats/b"),
            self.refused(self.signed().replace("=read", "=append")),
            self.refused(self.signed(SigningKey("-", bytes(32)))),
        }
        self.assertEqual(1, len(messages), messages)

    def test_an_unknown_key_takes_the_computation_of_a_known_one(self) -> None:
        computed: list[str] = []

        def count(key: SigningKey, url: SignedUrl) -> bool:
            computed.append(key.id)
            return is_signed_by(key, url)

        self.patch(signed_url_checker, "is_signed_by", count)
        for key in (SigningKey("new", OLD.secret), SigningKey("other", NEW.secret)):
            self.refused(self.signed(key))
        self.assertEqual(["new", "-"], computed)

    def test_malformed_parameters_are_refused_with_a_sentence(self) -> None:
        query = self.signed()
        self.assertIn("twice", self.refused("ds_op=append&" + query))
        self.assertIn("begins with ds_", self.refused("ds_unknown=1&" + query))


class KeyTests(CheckerTestCase):
    def test_every_key_of_the_file_verifies(self) -> None:
        self.assertEqual(["new", "old"], [self.check(self.signed(key)).credential for key in (NEW, OLD)])

    def test_urls_of_a_key_that_was_removed_are_refused_and_not_current(self) -> None:
        query = self.signed(OLD)
        principal = self.check(query)
        self.assertTrue(self.checker.is_current(principal))
        self.checker.set_keys([NEW])
        self.assertFalse(self.checker.is_current(principal))
        self.refused(query)

    def test_a_key_whose_secret_was_replaced_is_another_one(self) -> None:
        principal = self.check(self.signed(OLD))
        self.checker.set_keys([SigningKey("old", NEW.secret)])
        self.assertFalse(self.checker.is_current(principal))

    def test_keys_that_are_added_revoke_nothing(self) -> None:
        principal = self.check(self.signed(OLD))
        self.checker.set_keys([SigningKey("newer", b"x" * 32), NEW, OLD])
        self.assertTrue(self.checker.is_current(principal))

    def test_without_keys_no_url_is_accepted(self) -> None:
        self.checker = SignedUrlChecker(self.clock.wall)
        self.refused(self.signed(OLD))


class AuthenticationTests(CheckerTestCase):
    def authentication(self) -> Authentication:
        portal = Portal(PrincipalRealm(), [self.checker])
        authentication = Authentication(portal, ["signed-url"], True, self.clock)
        self.addCleanup(authentication.close)
        return authentication

    def test_a_request_with_a_signed_url_has_its_principal(self) -> None:
        authentication = self.authentication()
        presented = Presented(query=self.signed(OLD).encode(), name=b"chats/a")
        principal = authentication.principal_of(presented)
        assert isinstance(principal, Principal)
        self.assertEqual("old", principal.credential)
        self.assertTrue(authentication.is_current(principal, NOW + 59.0))
        self.assertFalse(authentication.is_current(principal, NOW + 60.0))
        self.checker.set_keys([NEW])
        self.assertFalse(authentication.is_current(principal, float(NOW)))

    def test_an_invalid_url_is_an_error_even_where_anonymous_requests_are_allowed(self) -> None:
        authentication = self.authentication()
        for query in (self.signed(seconds=-1), "ds_sig=x", "ds%5fsig=x", "ds_=1"):
            presented = Presented(query=query.encode(), name=b"chats/a")
            self.assertRaises(NotAuthenticated, authentication.principal_of, presented)
