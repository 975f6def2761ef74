"""Tests of the verification of tokens: what is accepted, and attacks."""

from __future__ import annotations

import json
from typing import Any

import jwt as pyjwt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.jwt.errors import TokenRefused
from durable_streams.server.identity.jwt.jwk import parse_jwk_set
from durable_streams.server.identity.jwt.keys import KeySet, VerificationKey
from durable_streams.server.identity.jwt.settings import (
    PUBLIC_KEY_ALGORITHMS,
    SHARED_SECRET_ALGORITHMS,
    JwtSettings,
)
from durable_streams.server.identity.jwt.verifying import TokenVerifier, VerifiedToken
from tests.support.jwts import (
    AUDIENCE,
    ISSUER,
    NOW,
    base64url,
    claims,
    jwk,
    jwk_set,
    private_key,
    public_pem,
    signed,
    signed_raw,
)

ALL = (*PUBLIC_KEY_ALGORITHMS, *SHARED_SECRET_ALGORITHMS)
SECRET = b"0123456789abcdef" * 4

ANY_MEMBER = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=3))),
    st.sampled_from(["RS256", "ES256", "none", "HS256", "k1", "JWT"]),
)


class KeysInMemory:
    """Keys that record each look-up."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.asked: list[str | None] = []

    def lookup(self, key_id: str | None) -> KeySet:
        self.asked.append(key_id)
        return self.keys


def key_set(*jwks: object, algorithms: tuple[str, ...] = ALL) -> KeySet:
    """Return the keys of a JWK set, all of which are good."""
    found = parse_jwk_set(jwk_set(*jwks), frozenset(algorithms), True)
    assert not found.defects, found.defects
    return found.keys


class VerifierCase(SynchronousTestCase):
    """A verifier with an RSA key k1, whose clock stands at NOW."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.use(jwk())

    def use(self, *jwks: object, **changes: Any) -> None:
        """Use other keys and settings."""
        values: dict[str, Any] = {"issuer": ISSUER, "audience": (AUDIENCE,), "keys_file": "f", "leeway_secs": 30}
        values["algorithms"] = ALL
        self.settings = JwtSettings(**values | changes)
        self.keys = KeysInMemory(key_set(*jwks, algorithms=self.settings.algorithms))
        self.verifier = TokenVerifier(self.settings, self.keys.lookup, clock_of(self.clock))

    def verify(self, token: bytes) -> VerifiedToken:
        found = self.verifier.verify(token)
        assert not isinstance(found, Deferred)
        return found

    def check_refused(self, token: bytes, message: str) -> None:
        error = self.assertRaises(TokenRefused, self.verify, token)
        self.assertEqual(message, str(error))


class AcceptedTokenTests(VerifierCase):
    def test_a_signed_token_of_the_issuer_is_accepted(self) -> None:
        found = self.verify(signed(claims(jti="t1", groups=["staff", "ops"], tenant={"id": "acme"})))
        self.assertEqual("alice", found.subject)
        self.assertEqual({"staff", "ops"}, found.groups)
        self.assertEqual(NOW + 330, found.expires_at)
        self.assertEqual("t1", found.token_id)
        self.assertEqual({"id": "acme"}, found.claims["tenant"])
        self.assertEqual("k1", found.key.key_id)

    def test_each_algorithm_is_accepted_with_a_key_of_its_type(self) -> None:
        for algorithm in PUBLIC_KEY_ALGORITHMS:
            self.use(jwk(algorithm))
            self.assertEqual("alice", self.verify(signed(algorithm=algorithm)).subject, algorithm)
        self.use(jwk("Ed448"))
        self.assertEqual("alice", self.verify(signed(algorithm="EdDSA", key=private_key("Ed448"))).subject)
        self.use({"kty": "oct", "k": base64url(SECRET).decode(), "kid": "k1"})
        for algorithm in SHARED_SECRET_ALGORITHMS:
            self.assertEqual("alice", self.verify(signed(algorithm=algorithm, key=SECRET)).subject, algorithm)

    def test_a_key_without_alg_accepts_each_algorithm_of_its_type(self) -> None:
        self.use(jwk(alg=None))
        for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
            self.assertEqual("alice", self.verify(signed(algorithm=algorithm)).subject)

    def test_a_token_without_kid_is_accepted_if_few_keys_fit(self) -> None:
        self.use(jwk(), jwk("ES256", kid="k2"))
        self.assertEqual("k2", self.verify(signed(algorithm="ES256", kid=None)).key.key_id)

    def test_types_of_access_tokens_are_accepted(self) -> None:
        for kind in ("JWT", "jwt", "at+jwt", "application/at+JWT"):
            self.assertEqual("alice", self.verify(signed(typ=kind)).subject)
        self.assertEqual("alice", self.verify(signed_raw(b'{"alg":"RS256"}', json.dumps(claims()).encode())).subject)

    def test_settings_name_the_claims_of_subject_and_groups(self) -> None:
        self.use(jwk(), subject_claim="preferred_username", groups_claim="realm_access.roles")
        found = self.verify(signed(claims(preferred_username="bob", realm_access={"roles": ["a"]})))
        self.assertEqual(("bob", {"a"}), (found.subject, found.groups))


class AlgorithmAttackTests(VerifierCase):
    def test_unsigned_tokens_are_refused_in_each_spelling(self) -> None:
        payload = json.dumps(claims()).encode()
        for alg in ("none", "None", "NONE", "nOnE", "none ", " none", "", "null", "NULL"):
            head = base64url(json.dumps({"alg": alg, "kid": "k1"}).encode())
            text = head + b"." + base64url(payload)
            self.check_refused(text + b".AAAA", "The alg of the token is not accepted.")
            for unsigned in (text, text + b".", text + b".="):
                self.check_refused(unsigned, "The token is not a signed JWT: three parts in base64url, joined by dots.")

    def test_alg_that_is_no_string_is_refused(self) -> None:
        for alg in (None, 1, True, ["RS256"], {"a": "RS256"}):
            token = signed_raw(json.dumps({"alg": alg, "kid": "k1"}).encode(), b"{}")
            self.check_refused(token, "The header of the token has no alg.")
        self.check_refused(signed_raw(b'{"kid":"k1"}', b"{}"), "The header of the token has no alg.")

    def test_a_public_key_is_not_a_secret(self) -> None:
        # Made by hand: libraries refuse to sign with such a secret.
        key = private_key().public_key()
        for secret in (public_pem(key), public_pem(key).strip(), key.public_numbers().n.to_bytes(256), b"", b"\0"):
            for algorithm in SHARED_SECRET_ALGORITHMS:
                text = base64url(json.dumps({"alg": algorithm, "kid": "k1"}).encode())
                text += b"." + base64url(json.dumps(claims()).encode())
                mac = pyjwt.get_algorithm_by_name(algorithm).sign(text, secret)
                self.check_refused(
                    text + b"." + base64url(mac),
                    "The token names no key of its issuer, or its alg does not fit the key.",
                )

    def test_algorithms_out_of_the_settings_are_refused(self) -> None:
        self.use(jwk(alg=None), algorithms=("RS256",))
        self.assertEqual("alice", self.verify(signed()).subject)
        for algorithm in ("RS384", "RS512", "PS256"):
            self.check_refused(signed(algorithm=algorithm), "The alg of the token is not accepted.")
        self.assertEqual(["k1"], self.keys.asked)

    def test_alg_must_fit_the_type_of_the_key(self) -> None:
        self.use(jwk(), jwk("ES256", kid="k2"), jwk("ES384", kid="k3"), jwk("EdDSA", kid="k4"))
        for kid, algorithm in (("k1", "ES256"), ("k2", "RS256"), ("k2", "ES384"), ("k3", "ES256"), ("k4", "ES256"),
                               ("k1", "EdDSA"), ("k1", "RS512"), ("k1", "PS256")):  # fmt: skip
            self.check_refused(
                signed(algorithm=algorithm, kid=kid),
                "The token names no key of its issuer, or its alg does not fit the key.",
            )


class HeaderAttackTests(VerifierCase):
    def test_keys_in_the_header_are_ignored(self) -> None:
        attacker = private_key("RS256", 1)
        own = jwk("RS256", 1)
        for header in ({"jwk": own}, {"jku": "https://attacker.example/k"}, {"x5u": "https://attacker.example/c"},
                       {"x5c": ["MII="]}, {"x5t": "AA"}):  # fmt: skip
            self.check_refused(signed(key=attacker, **header), "The signature of the token is wrong.")
            self.assertEqual("alice", self.verify(signed(**header)).subject)

    def test_a_kid_is_only_compared(self) -> None:
        kids = ("../../etc/passwd", "/dev/null", "k1' OR '1'='1", "k1; DROP TABLE keys", "k1\0", "K1", " k1", "k1 ",
                "http://attacker.example/", "${jndi:ldap://a}", "\ud7ff", "x" * 256)  # fmt: skip
        for kid in kids:
            self.check_refused(
                signed(kid=kid), "The token names no key of its issuer, or its alg does not fit the key."
            )
        self.assertEqual(list(kids), self.keys.asked)

    def test_a_kid_that_is_no_short_string_is_refused_before_the_look_up(self) -> None:
        for kid in ("", "x" * 257, 1, True, None, ["k1"], {"kid": "k1"}, 1.5):
            header = json.dumps({"alg": "RS256", "kid": kid}).encode()
            self.check_refused(
                signed_raw(header, b"{}"), "The kid of the token is not a string of 1 to 256 characters."
            )
        self.assertEqual([], self.keys.asked)

    def test_critical_extensions_are_refused(self) -> None:
        for crit in (["exp"], ["b64"], [], "x", None, ["urn:x"]):
            self.check_refused(
                signed(crit=crit), "The token has critical extensions (crit), of which none is supported."
            )

    def test_payloads_that_are_not_encoded_are_refused(self) -> None:
        for value in (False, None, 0, "false"):
            self.check_refused(
                signed(b64=value), "The payload of the token is not encoded (b64), which is not supported."
            )

    def test_tokens_for_other_purposes_are_refused(self) -> None:
        for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "", 1, None, ["JWT"]):
            self.check_refused(
                signed(typ=kind), "The typ of the token is neither JWT nor at+jwt, so it is not for access."
            )

    def test_headers_that_are_no_single_object_are_refused(self) -> None:
        for header, message in (
            (b'{"alg":"RS256","kid":"k1","alg":"none"}', "has a name twice"),
            (b'{"alg":"RS256","kid":"k1","x":{"a":1,"a":2}}', "has a name twice"),
            (b'{"alg":"RS256","kid":"k1"} {}', "is not valid JSON"),
            (b'["RS256"]', "is not a JSON object"),
            (b'"RS256"', "is not a JSON object"),
            (b"\xff\xfe", "is not valid JSON"),
            ('{"alg":"RS256"}'.encode("utf-16"), "is not valid JSON"),
            (b'\xef\xbb\xbf{"alg":"RS256"}', "is not valid JSON"),
            (b'{"alg":"RS256","x":NaN}', "has NaN or Infinity, which is not JSON"),
            (b'{"alg":"RS256","x":' + b"[" * 16 + b"]" * 16 + b"}", "has values nested more than 16 deep"),
            (b'{"alg":"RS256","x":' + b"[" * 1000 + b"]" * 1000 + b"}", "has values nested more than 16 deep"),
            (b'{"alg":"RS256","x":' + b"[" * 2000 + b"]" * 2000 + b"}", "has more than 1024 arrays and objects"),
            (b'{"alg":"RS256","x":' + b"9" * 5000 + b"}", "is not valid JSON"),
            (b'{"alg":"RS256","kid":"\\ud800"}', "has an escape that is not a character"),
        ):
            error = self.assertRaises(TokenRefused, self.verify, signed_raw(header, b"{}"))
            self.assertIn(f"The header of the token {message}.", str(error))
        self.assertEqual([], self.keys.asked)

    def test_headers_nested_without_end_are_refused(self) -> None:
        for header in (b"[" * 4000, b'{"a":' * 1000, b'{"alg":"RS256","x":' + b'[{"":' * 500):
            self.assertRaises(TokenRefused, self.verify, signed_raw(header, b"{}"))


class FormAttackTests(VerifierCase):
    def test_large_tokens_are_refused_before_they_are_parsed(self) -> None:
        small = signed(claims(x="x" * 5000))
        self.assertEqual("alice", self.verify(small).subject)
        large = signed(claims(x="x" * 6000))
        self.assertGreater(len(large), 8192)
        self.check_refused(large, "The token is larger than 8192 bytes.")
        self.check_refused(b"\xff" * 100_000_000, "The token is larger than 8192 bytes.")

    def test_tokens_of_another_form_are_refused(self) -> None:
        token = signed()
        head, payload, signature = token.split(b".")
        for bad in (b"", b".", b"..", head, head + b"." + payload, token + b".x", token + b".", b"." + token,
                    token + b"\n", b" " + token, token + b"=", token.replace(b".", b"..", 1), token + b"\0",
                    head + b"." + payload + b".+/==", token.decode().encode("utf-16"), b'{"payload":"x"}',
                    b".".join([head, payload, signature, b"a", b"b"])):  # fmt: skip
            self.check_refused(bad, "The token is not a signed JWT: three parts in base64url, joined by dots.")

    def test_base64url_has_one_form_for_each_value(self) -> None:
        head, payload, signature = signed().split(b".")
        # 256 bytes of a signature leave 4 bits of the last character unused, so 16 characters decode to the same.
        self.assertEqual(342, len(signature))
        last = b"AQgw".index(signature[-1:])
        for other in b"BCDEFGHIJKLMNOP"[:3]:
            bad = signature[:-1] + bytes([b"AQgw"[last] + 1 + other - b"B"[0]])
            self.check_refused(b".".join([head, payload, bad]), "The signature of the token is not valid base64url.")
        for part in (b"A", b"AAAAA"):
            self.check_refused(b".".join([part, payload, signature]), "The header of the token is not valid base64url.")

    def test_each_changed_character_is_refused(self) -> None:
        for algorithm in ("RS256", "ES256", "EdDSA"):
            self.use(jwk(algorithm))
            token = signed(algorithm=algorithm)
            for position in range(0, len(token), 7):
                changed = bytearray(token)
                changed[position] = ord("A") if token[position] != ord("A") else ord("B")
                self.assertRaises(TokenRefused, self.verify, bytes(changed))

    def test_signatures_of_other_lengths_are_refused(self) -> None:
        for algorithm in PUBLIC_KEY_ALGORITHMS:
            self.use(jwk(algorithm))
            text, _, signature = signed(algorithm=algorithm).rpartition(b".")
            for bad in (b"AA", b"AAAA", signature[:-4], signature + b"AAAA", base64url(bytes(64)), base64url(bytes(96)),
                        base64url(bytes(132)), base64url(bytes(256)), base64url(b"\xff" * 64)):  # fmt: skip
                error = self.assertRaises(TokenRefused, self.verify, text + b"." + bad)
                self.assertIn("signature of the token", str(error))

    @given(st.binary(max_size=200))
    @settings(max_examples=200, deadline=None)
    def test_any_bytes_are_refused(self, data: bytes) -> None:
        self.assertRaises(TokenRefused, self.verify, data)

    @given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
    @settings(max_examples=200, deadline=None)
    def test_any_three_parts_are_refused(self, header: bytes, payload: bytes, signature: bytes) -> None:
        self.assertRaises(TokenRefused, self.verify, b".".join(map(base64url, (header, payload, signature))))

    @given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty", "zip"]), ANY_MEMBER))
    @example({})
    @example({"typ": "at+jwt", "jwk": {}, "cty": 1})
    @settings(max_examples=300, deadline=None)
    def test_headers_that_are_accepted_are_accepted_by_another_implementation(self, changes: dict[str, object]) -> None:
        self.compare({"alg": "RS256", "kid": "k1"} | changes, claims())

    @given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "groups"]), ANY_MEMBER))
    @example({})
    @example({"aud": ["x", AUDIENCE], "nbf": 0, "jti": "1"})
    @settings(max_examples=300, deadline=None)
    def test_claims_that_are_accepted_are_accepted_by_another_implementation(self, changes: dict[str, object]) -> None:
        self.compare({"alg": "RS256", "kid": "k1"}, claims() | changes)

    def compare(self, header: dict[str, object], content: dict[str, object]) -> None:
        """Check that a token which the verifier accepts is accepted by PyJWT, at another time; some are never."""
        token = signed_raw(json.dumps(header).encode(), json.dumps(content).encode())
        try:
            subject = self.verify(token).subject
        except TokenRefused:
            self.assertNotEqual(({"alg": "RS256", "kid": "k1"}, claims()), (header, content))
            return
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "sub"]}
        key = private_key().public_key()
        found = pyjwt.decode(token, key, ["RS256"], options=options, audience=AUDIENCE, issuer=ISSUER)
        self.assertEqual(found["sub"], subject)


class FloodTests(VerifierCase):
    """Verifications are counted at the key."""

    def setUp(self) -> None:
        super().setUp()
        self.verifications = 0
        verifies = VerificationKey.verifies

        def counted(key: VerificationKey, algorithm: str, text: bytes, signature: bytes) -> bool:
            self.verifications += 1
            return verifies(key, algorithm, text, signature)

        self.patch(VerificationKey, "verifies", counted)

    def test_a_repeated_wrong_signature_is_computed_once(self) -> None:
        token = signed(key=private_key("RS256", 1))
        for _ in range(50):
            self.check_refused(token, "The signature of the token is wrong.")
        self.assertEqual(1, self.verifications)
        self.verify(signed())

    def test_wrong_signatures_are_forgotten_when_the_keys_change(self) -> None:
        token = signed(key=private_key("RS256", 1))
        self.check_refused(token, "The signature of the token is wrong.")
        self.keys.keys = key_set(jwk("RS256", 1))
        self.assertEqual("alice", self.verify(token).subject)

    def test_the_number_of_remembered_tokens_is_bounded(self) -> None:
        text = signed().rpartition(b".")[0]
        for number in range(12_000):
            self.assertRaises(TokenRefused, self.verify, text + b"." + base64url(b"%08d" % number))
        self.assertLessEqual(len(self.verifier._refused), 10_000)

    def test_no_signature_is_computed_for_unknown_keys_or_algorithms(self) -> None:
        for token in (signed(kid="k2"), signed(algorithm="ES256"), signed(algorithm="PS256"), signed(crit=["x"])):
            self.assertRaises(TokenRefused, self.verify, token)
        self.assertEqual(0, self.verifications)

    def test_few_keys_are_tried_for_a_token_without_kid(self) -> None:
        self.use(*(jwk("ES256", kid=f"k{n}") for n in range(4)))
        self.check_refused(signed(algorithm="ES256", kid=None, key=private_key("ES256", 9)),
                           "The signature of the token is wrong.")  # fmt: skip
        self.assertEqual(4, self.verifications)
        self.use(*(jwk("ES256", kid=f"k{n}") for n in range(5)))
        self.check_refused(
            signed(algorithm="ES256", kid=None),
            "The token does not say with which of its issuer's keys it is signed (kid).",
        )
        self.assertEqual(4, self.verifications)
