"""Tests of queries without signatures."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.redaction import redacted_name, redacted_query
from durable_streams.server.web.requests import stream_request

SIGNATURE = b"oMtFrXkE1s0RzH6y7qUu5BvNwQdL8pJcTi3aKgVe2Z0"

#: Queries without a parameter that could be a signature.
PLAIN = st.lists(
    st.tuples(st.sampled_from([b"offset", b"live", b"ds_key", b"d%73_op", b"x%zz", b""]), st.binary(max_size=9)),
    max_size=5,
).map(lambda pairs: b"&".join(key + b"=" + value.replace(b"&", b"") for key, value in pairs))


def spelled(name: bytes, encoded: list[bool]) -> bytes:
    """Percent-encode some characters of a name."""
    return b"".join(b"%%%02x" % byte if escape else bytes([byte]) for byte, escape in zip(name, encoded, strict=True))


class RedactionTests(SynchronousTestCase):
    @given(PLAIN, PLAIN, st.lists(st.booleans(), min_size=6, max_size=6), st.sampled_from([b"ds_sig", b"DS_Sig"]))
    def test_a_signature_is_replaced_however_its_name_is_spelled(
        self, before: bytes, after: bytes, encoded: list[bool], name: bytes
    ) -> None:
        query = b"&".join([before, spelled(name, encoded) + b"=" + SIGNATURE, after])
        redacted = redacted_query(query)
        self.assertNotIn(SIGNATURE, unquote_to_bytes(redacted))
        self.assertTrue(redacted.startswith(before))
        self.assertTrue(redacted.endswith(after))

    def test_a_signature_in_an_encoded_query_is_replaced(self) -> None:
        query = b"ds_key=main&ds_sig=" + SIGNATURE
        for times in (1, 2):
            for text, expected in (
                (b"%b", b"REDACTED"),
                (b"%b=x", b"REDACTED"),
                (b"next=%b&a=1", b"next=REDACTED&a=1"),
            ):
                encoded = query
                for _ in range(times):
                    encoded = quote(encoded).encode()
                self.assertEqual(redacted_query(text % encoded), expected)

    @given(PLAIN)
    def test_every_other_query_is_left_as_it_is(self, query: bytes) -> None:
        self.assertEqual(redacted_query(query), query)

    def test_the_targets_of_requests_have_no_signature(self) -> None:
        query = b"offset=-1&ds_sig=" + SIGNATURE
        target = b"/v1/stream/a?offset=-1&ds_sig=REDACTED"
        self.assertEqual(stream_request(b"GET", b"/v1/stream/", b"a", query, {}, b"").target, target)
        self.assertEqual(PageRequest(b"GET", b"/v1/stream/a?" + query, []).target, target)

    def test_a_signature_in_the_name_of_a_stream_is_replaced(self) -> None:
        name = f"a/ä?ds_key=k1&ds_sig={SIGNATURE.decode()}"
        self.assertEqual("a/ä?ds_key=k1&ds_sig=REDACTED", redacted_name(name))
        self.assertEqual("what?", redacted_name("what?"))
        self.assertEqual("a/ds_sig", redacted_name("a/ds_sig"))
