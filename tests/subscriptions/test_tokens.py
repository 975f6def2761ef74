"""Tokens: authentic for one wake of one subscription; everything else is refused alike."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.errors import TokenInvalid
from durable_streams.server.subscriptions.model import TokenClaims
from durable_streams.server.subscriptions.tokens import MAX_TOKEN_BYTES, Tokens, bearer_token

SECRET = bytes(range(32))
CLAIMS = TokenClaims("runner:1", 7, "w_abc-_123")
TOKENS = Tokens(SECRET)
TOKEN = TOKENS.issue(CLAIMS)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class TokenTests(SynchronousTestCase):
    def refused(self, token: str, subscription_id: str = "runner:1", tokens: Tokens = TOKENS) -> None:
        """Assert that a token is refused, without a word about why."""
        with self.assertRaises(TokenInvalid, msg=token) as caught:
            tokens.verify(token, subscription_id)
        self.assertEqual(str(TokenInvalid()), str(caught.exception))

    @given(
        st.text("abcXYZ09-._~:@+=,", min_size=1, max_size=256),
        st.integers(0, 2**63 - 1),
        st.text(ALPHABET, min_size=1, max_size=40),
    )
    def test_a_token_has_the_claims_of_its_wake(self, subscription_id: str, generation: int, wake_id: str) -> None:
        claims = TokenClaims(subscription_id, generation, wake_id)
        token = TOKENS.issue(claims)
        self.assertRegex(token, r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}$")
        self.assertLessEqual(len(token), MAX_TOKEN_BYTES)
        self.assertEqual(claims, TOKENS.verify(token, subscription_id))
        self.assertEqual(token, TOKENS.issue(claims))

    def test_a_token_of_another_subscription_is_refused(self) -> None:
        for other in ("runner:2", "runner:1:", "", "RUNNER:1"):
            self.refused(TOKEN, other)

    def test_a_token_of_another_secret_is_refused(self) -> None:
        self.refused(Tokens(bytes(32)).issue(CLAIMS))
        self.refused(TOKEN, tokens=Tokens(bytes(32)))

    def test_each_truncated_token_is_refused(self) -> None:
        for length in range(len(TOKEN)):
            self.refused(TOKEN[:length])
            self.refused(TOKEN[-length:] if length else "")

    def test_each_changed_character_is_refused(self) -> None:
        # The last character of the code has two bits that base64 ignores: those count as well.
        for index, character in enumerate(TOKEN):
            for other in ALPHABET + ".=+/ \u00e9":
                if other != character:
                    self.refused(TOKEN[:index] + other + TOKEN[index + 1 :])

    @given(st.text(max_size=200))
    def test_other_texts_are_refused(self, text: str) -> None:
        for token in (text, f"{text}.{text}", f"{TOKEN}{text}x", f"x{text}{TOKEN}", f"{TOKEN}\n"):
            self.refused(token)

    def test_very_long_tokens_are_refused(self) -> None:
        self.refused("A" * 1_000_000 + "." + "A" * 43)

    def test_authentic_claims_of_another_form_are_refused(self) -> None:
        for claims in (
            b"{}",
            b"[]",
            b'["runner:1",7]',
            b'["runner:1","7","w"]',
            b'["runner:1",7,"w",1]',
            b"\xff\xff\xff",
        ):
            encoded = urlsafe_b64encode(claims).rstrip(b"=")
            code = urlsafe_b64encode(hmac.digest(SECRET, encoded, "sha256")).rstrip(b"=")
            self.refused(f"{encoded.decode()}.{code.decode()}")

    def test_the_code_is_compared_in_constant_time(self) -> None:
        with patch("hmac.compare_digest", wraps=hmac.compare_digest) as compare:
            TOKENS.verify(TOKEN, "runner:1")
            self.refused(TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "B"))
        self.assertEqual(2, compare.call_count)
        self.assertEqual(TOKEN.rpartition(".")[2], compare.call_args_list[0].args[1])

    def test_a_secret_has_32_bytes(self) -> None:
        for secret in (b"", bytes(31), bytes(33)):
            self.assertRaises(ValueError, Tokens, secret)


class BearerTests(SynchronousTestCase):
    def test_the_scheme_is_not_case_sensitive(self) -> None:
        for value in ("Bearer a.b", "bearer a.b", "BEARER  a.b", "Bearer a.b "):
            self.assertEqual("a.b", bearer_token(value))

    def test_other_headers_are_refused(self) -> None:
        for value in ("", "Bearer", "Bearer ", "Bearera.b", "Basic a.b", "a.b", " Bearer a.b", "Bearer a b"):
            self.assertRaises(TokenInvalid, bearer_token, value)
