"""The daemon with tokens of an OpenID Connect issuer: rotation of keys, an issuer that is down, and attacks."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from tests.support.bearer_case import STREAM, BearerTestCase
from tests.support.daemon import Daemon, read_until
from tests.support.jwts import AUDIENCE, claims, jwk, jwk_set, private_key, signed
from tests.support.oidc_issuer import IssuerProcess
from tests.support.process_case import wait_for

#: Clients of the issuer.
CLIENTS: Final[dict[str, dict[str, Any]]] = {
    "backend": {"secret": "s1", "claims": {"aud": "streams", "realm_access": {"roles": ["writers"]}}},
    "viewer": {"secret": "s2", "claims": {"aud": ["streams", "other"]}},
    "brief": {"secret": "s3", "seconds": 2, "claims": {"aud": "streams"}},
    "other": {"secret": "s4", "claims": {"aud": "other"}},
    "narrow": {
        "secret": "s5",
        "claims": {
            "aud": "streams",
            "realm_access": {"roles": ["writers"]},
            "ds_streams": [{"operations": ["read"], "names": "reports/**"}],
        },
    },
}

RULES: Final = """allow group:writers create,append,close,read reports/**
allow authenticated read reports/**
allow authenticated create,append,read inbox/{subject}/**"""


class JwtCase(BearerTestCase):
    """An issuer, and daemons that trust it."""

    def setUp(self) -> None:
        super().setUp()
        self.issuer = IssuerProcess(self.folder, CLIENTS)
        self.issuer.start()
        self.addCleanup(self.issuer.stop)

    def daemon(self, **changes: object) -> Daemon:
        settings: dict[str, object] = {
            "auth__methods": "jwt",
            "auth__allow_anonymous": "false",
            "auth__rules": RULES,
            "auth__jwt__discovery_url": f"{self.issuer.url}/.well-known/openid-configuration",
            "auth__jwt__ca_file": self.issuer.ca_file,
            "auth__jwt__issuer": self.issuer.url,
            "auth__jwt__audience": "streams",
            "auth__jwt__groups_claim": "realm_access.roles",
            "auth__jwt__leeway_secs": 0,
        }
        return Daemon(None, **settings | changes)


class TokenTests(JwtCase):
    def test_tokens_append_and_read_as_the_rules_say(self) -> None:
        with self.daemon() as daemon:
            backend, viewer = self.issuer.token("backend"), self.issuer.token("viewer")
            self.assertEqual(201, self.ask(daemon, "PUT", backend))
            self.assertEqual(204, self.ask(daemon, "POST", backend, body=b"one"))
            self.assertEqual(200, self.ask(daemon, "GET", viewer))
            self.assertEqual(403, self.ask(daemon, "POST", viewer, body=b"two"))
            self.assertEqual(403, self.ask(daemon, "DELETE", backend))
            self.assertEqual(201, self.ask(daemon, "PUT", viewer, "/v1/stream/inbox/viewer/1"))
            self.assertEqual(403, self.ask(daemon, "PUT", viewer, "/v1/stream/inbox/backend/1"))
            narrow = self.issuer.token("narrow")
            self.assertEqual(200, self.ask(daemon, "GET", narrow))
            self.assertEqual(403, self.ask(daemon, "POST", narrow, body=b"two"))
            status, headers, _ = daemon.request("GET", STREAM)
            self.assertEqual((401, 'Bearer realm="durable-streams"'), (status, headers["www-authenticate"]))
            status, headers, _ = daemon.request("GET", STREAM, authorization=f"Bearer {self.issuer.token('other')}")
            self.assertEqual(401, status)
            self.assertIn('error_description="The token is for another audience (aud)."', headers["www-authenticate"])
            self.assertEqual(1, self.issuer.fetches())
            for token in (backend, viewer, narrow):
                self.assertNotIn(token, daemon.log())

    def test_a_tail_ends_when_its_token_expires_and_a_new_token_goes_on(self) -> None:
        with self.daemon() as daemon:
            backend = self.issuer.token("backend")
            self.ask(daemon, "PUT", backend)
            tail = self.tail(daemon, self.issuer.token("brief"))
            self.ask(daemon, "POST", backend, body=b"one")
            read_until(tail, b"one")
            end = self.wait_for_end(tail, 4)
            self.assertNotIn(b"error", end)
            follower = self.tail(daemon, self.issuer.token("brief"))
            self.ask(daemon, "POST", backend, body=b"two")
            read_until(follower, b"two")


class RotationTests(JwtCase):
    def test_keys_are_rotated_while_a_tail_is_open(self) -> None:
        with self.daemon() as daemon:
            old = self.issuer.token("backend")
            self.ask(daemon, "PUT", old)
            tail = self.tail(daemon, old)
            for algorithm in ("ES256", "RS256"):
                self.issuer.control(f"add-key/{algorithm}")
            self.issuer.control("use-newest")
            new = self.issuer.token("backend")
            self.assertEqual(204, self.ask(daemon, "POST", new, body=b"by the new key"))
            self.assertEqual(2, self.issuer.fetches())
            read_until(tail, b"by the new key")
            self.assertEqual(204, self.ask(daemon, "POST", old, body=b"by the old key"))
            read_until(tail, b"by the old key")
            # The key of the tail's token is withdrawn.
            self.issuer.control("remove-old")
            daemon.process.send_signal(signal.SIGHUP)
            self.wait_for_end(tail, 5)
            self.assertEqual(401, self.ask(daemon, "POST", old, body=b"x"))
            self.assertEqual(204, self.ask(daemon, "POST", new, body=b"by the new key"))

    def test_many_requests_with_a_new_key_wait_for_one_fetch(self) -> None:
        with self.daemon() as daemon:
            self.ask(daemon, "PUT", self.issuer.token("backend"))
            self.issuer.control("add-key/ES256")
            self.issuer.control("use-newest")
            waiting = [self.get(daemon, self.issuer.token("backend")) for _ in range(50)]
            for connection in waiting:
                self.assertIn(b"HTTP/1.1 200", read_until(connection, b"\r\n\r\n"))
            self.assertEqual(2, self.issuer.fetches())


class FailingIssuerTests(JwtCase):
    def test_known_keys_work_while_the_issuer_is_down(self) -> None:
        with self.daemon() as daemon:
            self.ask(daemon, "PUT", self.issuer.token("backend"))
            first, second = self.issuer.token("backend"), self.issuer.token("viewer")
            self.issuer.control("add-key/ES256")
            self.issuer.control("use-newest")
            unknown = self.issuer.token("viewer")
            self.issuer.stop()
            self.assertEqual(204, self.ask(daemon, "POST", first, body=b"one"))
            self.assertEqual(200, self.ask(daemon, "GET", second))
            status, headers, body = daemon.request("GET", STREAM, authorization=f"Bearer {unknown}")
            self.assertEqual(503, status)
            self.assertTrue(headers["retry-after"].isdigit(), headers)
            self.assertIn("The keys of the token issuer cannot be fetched.", json.loads(body)["detail"])
            self.assertEqual(204, self.ask(daemon, "POST", first, body=b"two"))
            self.assertIn("(auth.jwt.discovery_url) failed: the connection was refused.", daemon.log())

    def test_the_server_starts_without_the_issuer_and_recovers(self) -> None:
        self.issuer.stop()
        with self.daemon() as daemon:
            self.assertEqual(401, self.ask(daemon, "GET", None))
            self.issuer.start()
            token = self.issuer.token("backend")
            wait_for(lambda: self.ask(daemon, "PUT", token) in (200, 201), "the keys")

    def test_a_jwk_set_that_is_silent_large_or_wrong_blocks_nobody(self) -> None:
        with self.daemon() as daemon:
            known = self.issuer.token("backend")
            self.ask(daemon, "PUT", known)
            for failure in ("silent", "huge", "html", "empty", "status"):
                self.issuer.control(f"fail/{failure}")
                daemon.process.send_signal(signal.SIGHUP)
                for _ in range(20):
                    begin = time.monotonic()
                    self.assertEqual(204, self.ask(daemon, "POST", known, body=b"x"))
                    self.assertLess(time.monotonic() - begin, 3.0)
            self.assertLess(daemon.resident_bytes(), 300_000_000)
            self.issuer.control("fail")
            self.issuer.control("add-key/ES256")
            self.issuer.control("use-newest")
            new = self.issuer.token("backend")
            wait_for(lambda: self.ask(daemon, "POST", new, body=b"y") == 204, "the new key")


class KeyFileTests(BearerTestCase):
    """A daemon with keys of a file."""

    def setUp(self) -> None:
        super().setUp()
        self.keys = self.folder / "keys.json"

    def daemon_of_file(self, algorithms: str = "ES256") -> Daemon:
        return Daemon(
            None,
            auth__methods="jwt",
            auth__allow_anonymous="false",
            auth__rules="allow authenticated all **",
            auth__jwt__keys_file=self.keys,
            auth__jwt__algorithms=algorithms,
            auth__jwt__audience=AUDIENCE,
        )

    def write(self, *keys: object) -> None:
        """Replace the file, as careful programs do."""
        beside = self.folder / "keys.new"
        beside.touch(0o600)
        beside.write_bytes(jwk_set(*keys))
        os.replace(beside, self.keys)

    def token(self, number: int) -> str:
        content = claims(exp=time.time() + 300, iat=time.time())
        return signed(content, "ES256", f"k{number}", private_key("ES256", number)).decode()

    def test_a_replaced_file_is_noticed_and_ends_what_its_old_keys_had_opened(self) -> None:
        self.write(jwk("ES256", 1, "k1"))
        with self.daemon_of_file() as daemon:
            self.assertEqual(201, self.ask(daemon, "PUT", self.token(1)))
            self.assertEqual(401, self.ask(daemon, "GET", self.token(2)))
            tail = self.tail(daemon, self.token(1))
            self.write(jwk("ES256", 1, "k1"), jwk("ES256", 2, "k2"))
            wait_for(lambda: self.ask(daemon, "POST", self.token(2), body=b"both") == 204, "the new key")
            read_until(tail, b"both")
            self.write(jwk("ES256", 2, "k2"))
            self.wait_for_end(tail, 5)
            self.assertEqual(401, self.ask(daemon, "GET", self.token(1)))
            self.keys.write_bytes(b"{")
            time.sleep(1.5)
            self.assertEqual(204, self.ask(daemon, "POST", self.token(2), body=b"still"))
            self.assertIn("auth.jwt.keys_file was not read again, its keys stay as they were.", daemon.log())

    def test_a_secret_that_others_may_read_ends_the_start(self) -> None:
        self.write({"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "k1"})
        self.keys.chmod(0o644)
        with self.assertRaises(AssertionError) as caught, self.daemon_of_file("HS256"):
            pass
        self.assertIn("its mode is 0644. Run chmod 600", str(caught.exception))
        self.assertNotIn("c2VjcmV0", str(caught.exception))
        self.keys.chmod(0o600)
        with self.daemon_of_file("HS256") as daemon:
            secret = b"secret" * 8
            token = signed(claims(exp=time.time() + 300, iat=time.time()), "HS256", "k1", secret).decode()
            self.assertEqual(201, self.ask(daemon, "PUT", token))


class StartTests(JwtCase):
    def test_settings_that_cannot_be_used_end_the_start_with_a_sentence(self) -> None:
        missing = Path(self.folder, "missing.pem")
        for changes, message in (
            ({"auth__jwt__ca_file": missing}, "no such file. Give the path of a PEM file."),
            ({"auth__jwt__issuer": ""}, "auth.jwt.issuer"),
            ({"auth__jwt__algorithms": "none"}, "auth.jwt.algorithms: 'none' is not one of"),
            ({"auth__jwt__algorithms": "HS256"}, "auth.jwt.algorithms: HS256 needs a secret"),
            ({"auth__jwt__discovery_url": "http://id.example.com/"}, "auth.jwt.discovery_url: must be https"),
        ):
            with self.assertRaises(AssertionError) as caught, self.daemon(**changes):
                pass
            self.assertIn(message, str(caught.exception))
            self.assertNotIn("Traceback", str(caught.exception))
