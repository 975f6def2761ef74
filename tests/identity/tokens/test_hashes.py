"""Hashes of secrets: the text form, the bounds of the cost, and the comparison."""

from __future__ import annotations

import hashlib
import hmac
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.tokens.hashes import (
    DEFAULT_COST,
    HashError,
    ScryptCost,
    SecretHash,
    decoy_hash,
    hash_secret,
    parse_hash,
)

CHEAP = ScryptCost(ln=4, r=1, p=1)


class SecretHashTests(SynchronousTestCase):
    def test_only_the_secret_matches_its_hash(self) -> None:
        found = hash_secret(b"secret", CHEAP)
        self.assertTrue(found.matches(b"secret"))
        for other in (b"", b"secre", b"secret ", b"Secret"):
            self.assertFalse(found.matches(other))

    def test_each_hash_has_a_salt_of_its_own(self) -> None:
        self.assertNotEqual(str(hash_secret(b"secret", CHEAP)), str(hash_secret(b"secret", CHEAP)))

    def test_a_hash_of_another_program_matches(self) -> None:
        # The third test vector of RFC 7914 section 12; this is the beginning of its result.
        digest = hashlib.scrypt(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1, dklen=64)
        self.assertEqual("7023bdcb3afd7348461c06cd81fd38eb", digest[:16].hex())
        text = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046w"
        self.assertEqual(SecretHash(ScryptCost(14, 8, 1), b"SodiumChloride", digest[:16]), parse_hash(text))

    def test_the_text_of_a_hash_does_not_show_in_its_repr(self) -> None:
        self.assertEqual("SecretHash(***)", repr(hash_secret(b"secret", CHEAP)))

    def test_digests_are_compared_in_constant_time(self) -> None:
        found = hash_secret(b"secret", CHEAP)
        with patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compare:
            found.matches(b"secret")
            found.matches(b"other")
        self.assertEqual([found.digest] * 2, [call.args[1] for call in compare.mock_calls])

    def test_a_decoy_costs_the_same_and_matches_nothing(self) -> None:
        decoy = decoy_hash(CHEAP)
        known = hash_secret(b"secret", CHEAP)
        self.assertEqual(
            (known.cost, len(known.salt), len(known.digest)), (decoy.cost, len(decoy.salt), len(decoy.digest))
        )
        self.assertFalse(decoy.matches(b"secret"))

    @given(
        st.integers(1, 13),
        st.integers(1, 8),
        st.integers(1, 4),
        st.binary(min_size=9, max_size=64),
        st.binary(min_size=17, max_size=64),
    )
    def test_the_text_of_a_hash_can_be_parsed(self, ln: int, r: int, p: int, salt: bytes, digest: bytes) -> None:
        made = SecretHash(ScryptCost(ln, r, p), salt, digest)
        self.assertEqual(made, parse_hash(str(made)))

    @given(st.text(max_size=80) | st.from_regex(r"\A\$scrypt\$ln=[0-9]+,r=[0-9]+,p=[0-9]+\$[^$]{0,90}\$[^$]{0,90}\Z"))
    @settings(max_examples=300)
    def test_any_other_text_is_refused(self, text: str) -> None:
        try:
            found = parse_hash(text)
        except HashError as error:
            self.assertNotIn("Traceback", str(error))
        else:
            self.assertEqual(parse_hash(str(found)), found)

    def test_hashes_that_cost_too_much_are_refused(self) -> None:
        salt_and_hash = str(hash_secret(b"secret", CHEAP)).partition("p=1")[2]
        for cost, text in (
            ("ln=17,r=8,p=1", "more than 64 MiB"),
            ("ln=90,r=1,p=1", "more than 64 MiB"),
            ("ln=16,r=8,p=3", "costs more"),
            ("ln=0,r=8,p=1", "is not of the form"),
            ("ln=13,r=0,p=1", "is not of the form"),
        ):
            error = self.assertRaises(HashError, parse_hash, f"$scrypt${cost}{salt_and_hash}")
            self.assertIn(text, str(error))
        parse_hash(f"$scrypt$ln=16,r=8,p=2{salt_and_hash}")

    def test_a_part_that_is_not_base64_is_refused(self) -> None:
        self.assertRaises(HashError, parse_hash, "$scrypt$ln=4,r=1,p=1$" + "a" * 13 + "$" + "a" * 43)

    def test_the_largest_allowed_memory_can_be_computed(self) -> None:
        self.assertFalse(decoy_hash(ScryptCost(ln=16, r=8, p=1)).matches(b"secret"))

    def test_the_default_takes_8_mib(self) -> None:
        self.assertEqual(8 << 20, 128 * DEFAULT_COST.r << DEFAULT_COST.ln)
