"""Tests of the credentials checker of JWTs, behind the portal."""

from __future__ import annotations

import gc
import json
import os
import weakref
from pathlib import Path
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.clocks import clock_of
from durable_streams.server.errors import NotAuthenticated, Unavailable
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.bearer import BearerChecker
from durable_streams.server.identity.control import FileSource
from durable_streams.server.identity.credentials import BearerToken, Presented
from durable_streams.server.identity.jwt.checker import JwtChecker, jwt_checker
from durable_streams.server.identity.jwt.errors import KeysUnusable
from durable_streams.server.identity.jwt.key_sources import FileKeys
from durable_streams.server.identity.jwt.remote_keys import RemoteKeys
from durable_streams.server.identity.jwt.settings import JwtSettings
from durable_streams.server.identity.principal import Grant, Principal
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.revocation import IRevocations
from tests.support.events import Events
from tests.support.jwts import AUDIENCE, ISSUER, NOW, claims, jwk, jwk_set, private_key, signed

from .test_remote_keys import BOTH, DOWN, FIRST, SECOND, Fetches


class CheckerCase(SynchronousTestCase):
    """A checker with the key k1 in a file, behind a portal and an Authentication."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.path = Path(self.mktemp())
        self.path.write_bytes(jwk_set(jwk("ES256", 1, "k1")))
        self.settings = JwtSettings(keys_file=str(self.path), issuer=ISSUER, audience=(AUDIENCE,))
        keys = FileKeys(str(self.path), frozenset({"ES256"}), self.clock)
        self.use(JwtChecker(self.settings, keys, clock_of(self.clock)))

    def use(self, checker: JwtChecker) -> None:
        self.checker = checker
        self.portal = Portal(PrincipalRealm(), [BearerChecker(jwt=checker)])
        self.authentication = Authentication(self.portal, ["jwt"], False, clock_of(self.clock))
        self.addCleanup(self.authentication.close)
        checker.on_change(self.authentication.forget)

    def reload(self) -> object:
        """Read the file again, and return whether it can be used."""
        done = self.checker.reload()
        assert isinstance(done, Deferred)
        return self.successResultOf(done)

    def token(self, kid: str = "k1", number: int = 1, **changes: object) -> bytes:
        return signed(claims(**changes), "ES256", kid, private_key("ES256", number))

    def ask(self, token: bytes) -> Principal | Deferred[Principal]:
        return self.authentication.principal_of(Presented(b"Bearer " + token))

    def principal(self, token: bytes | None = None) -> Principal:
        found = self.ask(self.token() if token is None else token)
        assert not isinstance(found, Deferred)
        return found

    def check_refused(self, token: bytes, message: str) -> None:
        error = self.assertRaises(NotAuthenticated, self.principal, token)
        self.assertEqual(message, str(error))
        self.assertEqual(
            f'Bearer realm="durable-streams", error="invalid_token", error_description="{message}"', error.challenge
        )


class PrincipalTests(CheckerCase):
    def test_the_checker_provides_its_interfaces(self) -> None:
        # ICredentialsChecker itself does not declare the result of requestAvatarId.
        self.assertTrue(verifyObject(IRevocations, self.checker))

    def test_a_token_becomes_a_principal(self) -> None:
        found = self.principal(self.token(groups=["staff"], tenant="acme", jti="t1", exp=NOW + 60))
        self.assertEqual(("alice", "jwt", {"staff"}), (found.subject, found.kind, found.groups))
        self.assertEqual(("acme", NOW + 90, None, "t1"),
                         (found.claims["tenant"], found.expires_at, found.grants, found.credential))  # fmt: skip

    def test_a_verified_token_is_cached_until_it_expires(self) -> None:
        header = b"Bearer " + self.token(exp=NOW + 20)
        found = self.authentication.principal_of(Presented(header))
        self.assertIs(found, self.authentication.cached(header))
        self.clock.advance(49.5)
        self.assertIs(found, self.authentication.cached(header))
        self.clock.advance(0.5)
        self.assertIs(None, self.authentication.cached(header))
        self.check_refused(header[7:], "The token has expired.")

    def test_a_refusal_says_why_without_the_token(self) -> None:
        self.check_refused(self.token(number=2), "The signature of the token is wrong.")
        self.check_refused(b"a.b.c", "The header of the token is not valid base64url.")

    def test_principals_do_not_keep_their_keys_when_they_are_gone(self) -> None:
        checker = self.checker
        reference = weakref.ref(checker.requestAvatarId(BearerToken(self.token())))
        gc.collect()
        self.assertIs(None, reference())
        self.assertEqual(0, len(checker._signed_by))


class GrantTests(CheckerCase):
    def test_a_list_of_streams_becomes_grants(self) -> None:
        streams: list[object] = [
            {"operations": ["read"], "names": "chats/alice/**"},
            {"operations": ["append", "create"], "names": "logs/*"},
        ]
        self.assertEqual(
            (Grant(frozenset({"read", "head"}), "chats/alice/**"), Grant(frozenset({"append", "create"}), "logs/*")),
            self.principal(self.token(ds_streams=streams)).grants,
        )
        self.assertEqual((), self.principal(self.token(ds_streams=[])).grants)

    def test_a_malformed_list_refuses_the_token(self) -> None:
        good = {"operations": ["read"], "names": "a"}
        item = "has an item that is not an object with operations and names"
        for value, message in (
            ("read", "is not a list"),
            ({}, "is not a list"),
            (good, "is not a list"),
            (0, "is not a list"),
            ([good, "x"], item),
            ([None], item),
            ([{}], item),
            ([{"operations": ["read"]}], item),
            ([good | {"until": 5}], item),
            ([good | {"operations": "read"}], "has operations that are not a list of strings"),
            ([good | {"operations": [1]}], "has operations that are not a list of strings"),
            ([good | {"operations": [["read"]]}], "has operations that are not a list of strings"),
            ([good | {"operations": ["write"]}], "has an unknown operation"),
            ([good | {"operations": ["READ"]}], "has an unknown operation"),
            ([good | {"names": ["a"]}], "has names that are not a string"),
            ([good | {"names": None}], "has names that are not a string"),
            ([good | {"names": ""}], "has names that are not a pattern"),
            ([good | {"names": "a/../b"}], "has names that are not a pattern"),
            ([good | {"names": "a*"}], "has names that are not a pattern"),
            ([good | {"names": "x" * 5000}], "has names that are not a pattern"),
        ):
            self.check_refused(self.token(ds_streams=value), f"The ds_streams of the token {message}.")

    def test_null_is_malformed(self) -> None:
        payload = json.dumps(claims() | {"ds_streams": None}).encode()
        token = signed(payload, "ES256", "k1", private_key("ES256", 1))
        self.check_refused(token, "The ds_streams of the token is not a list.")


class RotationTests(CheckerCase):
    def test_a_removed_key_ends_its_principals(self) -> None:
        header = b"Bearer " + self.token()
        principal = self.principal(header[7:])
        self.path.write_bytes(BOTH)
        self.reload()
        self.assertTrue(self.authentication.is_current(principal, NOW))
        self.assertIs(None, self.authentication.cached(header))
        self.assertEqual("alice", self.principal(header[7:]).subject)
        self.path.write_bytes(SECOND)
        self.reload()
        self.assertFalse(self.authentication.is_current(principal, NOW))
        self.assertIs(None, self.authentication.cached(header))
        self.check_refused(header[7:], "The token names no key of its issuer, or its alg does not fit the key.")

    def test_a_key_whose_id_is_used_for_another_ends_its_principals(self) -> None:
        principal = self.principal()
        self.path.write_bytes(jwk_set(jwk("ES256", 2, "k1")))
        self.reload()
        self.assertFalse(self.authentication.is_current(principal, NOW))
        self.check_refused(self.token(), "The signature of the token is wrong.")

    def test_a_file_that_cannot_be_used_leaves_the_keys(self) -> None:
        principal = self.principal()
        self.path.write_bytes(b"{")
        self.reload()
        self.assertTrue(self.authentication.is_current(principal, NOW))
        self.assertEqual("alice", self.principal(self.token(jti="2")).subject)

    def test_a_bad_file_is_reported_once_and_as_stale_until_it_can_be_used(self) -> None:
        events = Events(self)
        self.assertIsInstance(self.checker, FileSource)
        self.assertEqual(("auth.jwt.keys_file", False), (self.checker.setting, self.checker.stale))
        self.path.write_bytes(b"{")
        for _ in range(3):
            self.assertIs(False, self.reload())
        self.assertTrue(self.checker.stale)
        errors = [formatEvent(event) for event in events.all if event["log_level"] is LogLevel.error]
        self.assertEqual(1, len(errors), errors)
        self.assertIn(
            "auth.jwt.keys_file was not read again, its keys stay as they were. auth.jwt.keys_file ", errors[0]
        )
        self.path.write_bytes(FIRST)
        self.assertIsNot(False, self.reload())
        self.assertFalse(self.checker.stale)

    def test_the_file_is_the_one_to_watch(self) -> None:
        self.assertEqual((str(self.path.absolute()),), self.checker.files)


class RemoteTests(CheckerCase):
    def setUp(self) -> None:
        super().setUp()
        self.fetches = Fetches()
        settings = JwtSettings(jwks_url=f"{ISSUER}/k", issuer=ISSUER, audience=(AUDIENCE,))
        clock = clock_of(self.clock)
        self.use(JwtChecker(settings, RemoteKeys(settings, self.fetches, clock), clock))

    def start(self) -> None:
        self.checker.start()
        self.fetches.answer(FIRST)

    def waiting(self, token: bytes) -> Deferred[Principal]:
        found = self.ask(token)
        assert isinstance(found, Deferred)
        self.assertNoResult(found)
        return found

    def test_requests_wait_for_the_first_fetch(self) -> None:
        self.checker.start()
        good, bad = self.waiting(self.token()), self.waiting(self.token(number=2))
        self.fetches.answer(FIRST)
        self.assertEqual("alice", self.successResultOf(good).subject)
        self.assertEqual("The signature of the token is wrong.",
                         str(self.failureResultOf(bad, NotAuthenticated).value))  # fmt: skip

    def test_keys_that_cannot_be_fetched_are_503(self) -> None:
        self.checker.start()
        waiting = self.waiting(self.token())
        self.fetches.answer(DOWN)
        self.failureResultOf(waiting, Unavailable)
        self.assertRaises(Unavailable, self.ask, self.token())
        self.assertRaises(NotAuthenticated, self.ask, b"a.b.c")

    def test_tokens_of_a_new_key_are_accepted_after_one_fetch(self) -> None:
        self.start()
        found = [self.waiting(self.token("k2", 2, sub=f"user{number}")) for number in range(20)]
        self.assertEqual("alice", self.principal().subject)
        self.fetches.answer(BOTH)
        self.assertEqual(
            [f"user{number}" for number in range(20)], [self.successResultOf(each).subject for each in found]
        )
        self.assertEqual(2, len(self.fetches.urls))

    def test_principals_of_a_key_stay_while_the_url_fails_and_end_when_it_is_removed(self) -> None:
        self.start()
        principal = self.principal(self.token(exp=NOW + 10_000))
        self.clock.advance(300)
        self.fetches.answer(DOWN)
        self.assertTrue(self.authentication.is_current(principal, NOW + 300))
        self.clock.advance(1)
        self.fetches.answer(SECOND)
        self.assertFalse(self.authentication.is_current(principal, NOW + 301))

    def test_the_url_is_stale_while_it_fails(self) -> None:
        self.assertEqual("auth.jwt.jwks_url", self.checker.setting)
        self.start()
        self.assertFalse(self.checker.stale)
        self.clock.advance(300)
        self.fetches.answer(DOWN)
        self.assertTrue(self.checker.stale)
        self.clock.advance(1)
        self.fetches.answer(FIRST)
        self.assertFalse(self.checker.stale)

    def test_stop_answers_the_requests_that_wait(self) -> None:
        self.checker.start()
        waiting = self.waiting(self.token())
        self.checker.stop()
        self.failureResultOf(waiting, Unavailable)


class ConstructionTests(SynchronousTestCase):
    def check_unusable(self, text: str, **values: Any) -> None:
        error = self.assertRaises(KeysUnusable, jwt_checker, JwtSettings(**values), Clock())
        self.assertIn(text, str(error))

    def test_settings_with_a_problem_are_refused(self) -> None:
        self.check_unusable("auth.jwt.issuer: must be set", jwks_url=f"{ISSUER}/k")

    def test_files_that_cannot_be_used_are_refused(self) -> None:
        missing = self.mktemp()
        self.check_unusable(f"auth.jwt.keys_file {os.path.abspath(missing)!r}: no such file.", keys_file=missing)
        self.check_unusable(
            f"auth.jwt.ca_file {missing!r}: no such file.", jwks_url=f"{ISSUER}/k", issuer=ISSUER, ca_file=missing
        )

    def test_a_checker_of_a_file_or_a_url_is_made(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(FIRST)
        self.assertEqual((str(path.absolute()),), jwt_checker(JwtSettings(keys_file=str(path)), Clock()).files)
        self.assertEqual((), jwt_checker(JwtSettings(jwks_url=f"{ISSUER}/k", issuer=ISSUER), Clock()).files)
