"""Signed URLs: what is signed, and which parameters are refused."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.signed_urls import (
    OPERATIONS,
    InvalidSignedUrl,
    SigningKey,
    is_signed,
    is_signed_by,
    read_signed_url,
    sign,
    signature_of,
)
from durable_streams.server.protocol.names import quote_name

KEY = SigningKey("k1", b"0123456789abcdef0123456789abcdef")
EXPIRES = 1_767_225_600

SEGMENTS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=8
).filter(lambda segment: segment not in {".", "..", "__ds"})
NAMES = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
OPERATION_LISTS = st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=3, unique=True).map(",".join)
SUBJECTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
SIGNED = st.tuples(st.sampled_from(["k1", "k2", "k-1"]), OPERATION_LISTS, NAMES, st.integers(1, 10**12 - 1), SUBJECTS)


class SignTests(SynchronousTestCase):
    def test_the_signature_is_hmac_sha256_over_the_netstrings_of_the_fields(self) -> None:
        signed = b"21:durable-streams-url-1,4:read,13:chats/\xc3\xa9l\xc3\xa8ve,10:1767225600,2:k1,5:alice,"
        signature = urlsafe_b64encode(hmac.new(KEY.secret, signed, hashlib.sha256).digest()).rstrip(b"=").decode()
        self.assertEqual(
            f"ds_key=k1&ds_expires=1767225600&ds_op=read&ds_subject=alice&ds_sig={signature}",
            sign(KEY, "read", "chats/élève".encode(), EXPIRES, "alice"),
        )
        self.assertEqual(43, len(signature))

    def test_all_spellings_of_a_name_have_one_signature(self) -> None:
        spellings = (b"chats/a~b", b"chats%2Fa%7Eb", b"%63hats/a%7eb")
        self.assertEqual(1, len({sign(KEY, "read", path, EXPIRES) for path in spellings}))

    def test_operations_names_times_and_subjects_that_a_server_refuses_are_not_signed(self) -> None:
        for operations, path, expires, subject, reason in (
            ("admin", b"a", EXPIRES, "", "operations"),
            ("fork-from", b"a", EXPIRES, "", "operations"),
            ("read,read", b"a", EXPIRES, "", "each once"),
            ("", b"a", EXPIRES, "", "operations"),
            ("read", b"", EXPIRES, "", "not that of a stream"),
            ("read", b"a//b", EXPIRES, "", "not that of a stream"),
            ("read", b"a%00", EXPIRES, "", "not that of a stream"),
            ("read", b"__ds/subscriptions/a", EXPIRES, "", "not that of a stream"),
            ("read", b"a", 0, "", "positive"),
            ("read", b"a", -1, "", "positive"),
            ("read", b"a", EXPIRES, "a\nb", "printable"),
            ("read", b"a", EXPIRES, "a" * 257, "printable"),
        ):
            error = self.assertRaises(InvalidSignedUrl, sign, KEY, operations, path, expires, subject)
            self.assertIn(reason, str(error))

    def test_the_representations_of_keys_and_urls_show_no_secret(self) -> None:
        query = sign(KEY, "read", b"a", EXPIRES)
        url = read_signed_url(query.encode(), b"a")
        self.assertNotIn(KEY.secret.decode(), repr(KEY))
        self.assertNotIn(url.signature, repr(url))
        self.assertIn("'k1'", repr(KEY))


class PropertyTests(SynchronousTestCase):
    @given(SIGNED)
    def test_what_was_signed_is_read_again_and_verified(self, signed: tuple[str, str, str, int, str]) -> None:
        key_id, operations, name, expires, subject = signed
        key = SigningKey(key_id, KEY.secret)
        query = sign(key, operations, quote_name(name), expires, subject).encode()
        url = read_signed_url(query, quote_name(name))
        self.assertEqual(signed, (url.key_id, url.operations, url.name, int(url.expires), url.subject))
        self.assertTrue(is_signed(query))
        self.assertTrue(is_signed_by(key, url))

    @given(SIGNED, SIGNED)
    def test_no_two_requests_share_a_signature(
        self, one: tuple[str, str, str, int, str], other: tuple[str, str, str, int, str]
    ) -> None:
        assume(one != other)
        signatures = {
            signature_of(SigningKey(key_id, KEY.secret), operations, name, str(expires), subject)
            for key_id, operations, name, expires, subject in (one, other)
        }
        self.assertEqual(2, len(signatures))

    @given(st.text("0123456789:,ab", max_size=12), st.text("0123456789:,ab", max_size=12), st.integers(0, 12))
    def test_a_character_that_moves_from_one_field_to_the_next_changes_the_signature(
        self, name: str, subject: str, at: int
    ) -> None:
        whole = name + subject
        assume(at != len(name) and at <= len(whole))
        self.assertNotEqual(
            signature_of(KEY, "read", name, "1", subject), signature_of(KEY, "read", whole[:at], "1", whole[at:])
        )

    @given(st.binary(max_size=60), st.binary(max_size=10))
    def test_any_query_is_read_or_refused_with_a_sentence(self, query: bytes, path: bytes) -> None:
        try:
            read_signed_url(query, path)
        except InvalidSignedUrl as error:
            self.assertTrue(str(error).endswith("."))


class ReadTests(SynchronousTestCase):
    query = sign(KEY, "read", b"a", EXPIRES).encode()

    def test_other_parameters_are_ignored(self) -> None:
        self.assertTrue(is_signed_by(KEY, read_signed_url(b"offset=-1&" + self.query + b"&live=sse&sig=x", b"a")))

    def test_percent_encoded_values_are_decoded_once(self) -> None:
        query = sign(KEY, "append,create", b"a", EXPIRES, "alice smith").encode()
        for changed in (
            query.replace(b",", b"%2C"),
            query.replace(b"%20", b"+"),
            query.replace(b"ds_key", b"ds%5Fkey"),
        ):
            self.assertTrue(is_signed_by(KEY, read_signed_url(changed, b"a")))
        with self.assertRaises(InvalidSignedUrl):
            read_signed_url(query.replace(b",", b"%252C"), b"a")

    def test_missing_unknown_repeated_and_malformed_parameters_are_refused(self) -> None:
        signature = self.query.rpartition(b"=")[2]
        for query, reason in (
            (self.query + b"&ds_op=read", "ds_op twice"),
            (self.query + b"&ds%5fop=append", "ds_op twice"),
            (self.query + b"&ds_admin=1", "none of ds_key"),
            (self.query + b"&ds_", "none of ds_key"),
            (self.query + b"&ds_\xff=1", "none of ds_key"),
            (self.query.replace(b"ds_key=k1&", b""), "no ds_key"),
            (self.query.replace(b"ds_expires=1767225600&", b""), "no ds_expires"),
            (self.query.replace(b"ds_op=read&", b""), "no ds_op"),
            (self.query.partition(b"&ds_sig")[0], "no ds_sig"),
            (self.query.replace(b"k1", b"k/1"), "ds_key"),
            (self.query.replace(b"1767225600", b"01767225600"), "ds_expires"),
            (self.query.replace(b"1767225600", b"+1767225600"), "ds_expires"),
            (self.query.replace(b"1767225600", b"%D9%A1"), "ds_expires"),
            (self.query.replace(b"1767225600", b"1e9"), "ds_expires"),
            (self.query + b"=", "ds_sig"),
            (self.query[:-1], "ds_sig"),
            (self.query.replace(b"read", b"read,"), "operations"),
            (self.query.replace(b"read", b"Read"), "operations"),
            (self.query + b"&ds_subject=", "subject"),
            (self.query + b"&ds_subject=%00", "subject"),
        ):
            error = self.assertRaises(InvalidSignedUrl, read_signed_url, query, b"a")
            self.assertIn(reason, str(error), query)
            self.assertNotIn(signature.decode(), str(error))

    def test_a_url_that_was_changed_is_not_verified(self) -> None:
        for query, path in (
            (self.query, b"b"),
            (self.query, b"a/a"),
            (self.query.replace(b"=read", b"=append"), b"a"),
            (self.query.replace(b"=read", b"=head,read"), b"a"),
            (self.query.replace(b"1767225600", b"1767225601"), b"a"),
            (self.query.replace(b"k1", b"k2"), b"a"),
            (self.query + b"&ds_subject=bob", b"a"),
        ):
            self.assertFalse(is_signed_by(KEY, read_signed_url(query, path)), (query, path))

    def test_a_signature_has_one_spelling(self) -> None:
        last = self.query[-1:]
        letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        accepted = [
            letter for letter in letters if is_signed_by(KEY, read_signed_url(self.query[:-1] + bytes([letter]), b"a"))
        ]
        self.assertEqual(list(last), accepted)

    def test_only_queries_with_parameters_of_signed_urls_are_recognised(self) -> None:
        for query in (b"", b"offset=-1&live=sse", b"x=ds_sig", b"offset=%64s_", b"ads_sig=1", b"DS_SIG=1"):
            self.assertFalse(is_signed(query), query)
        for query in (self.query, b"ds_", b"offset=-1&ds_x", b"%64s_sig=1", b"a=%20&ds%5fsig=1"):
            self.assertTrue(is_signed(query), query)
