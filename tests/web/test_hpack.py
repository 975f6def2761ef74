"""HPACK: the decoder and the encoder of HTTP/2's heads, compared with RFC 7541 and with the hpack library."""

from __future__ import annotations

import contextlib
from typing import Final

import hpack
from hpack import HeaderTuple, HPACKError, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.http2 import decoding
from durable_streams.server.web.http2.decoding import HeadDecoder
from durable_streams.server.web.http2.encoding import HeadEncoder, encode_integer
from durable_streams.server.web.http2.errors import ErrorCode, Http2Error

DATE: Final = b"Date: Mon, 30 Nov 2026 09:00:00 GMT\r\n"

#: RFC 7541 appendices C.3 and C.4: three requests on one connection, without and with Huffman code.
REQUESTS: Final = (
    (
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ),
    (
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
        [
            *[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
            ("cache-control", "no-cache"),
        ],
        [
            *[(":method", "GET"), (":scheme", "https"), (":path", "/index.html"), (":authority", "www.example.com")],
            ("custom-key", "custom-value"),
        ],
    ),
)

#: RFC 7541 appendix C.2: fields of each kind.
FIELDS: Final = (
    ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", ("custom-key", "custom-header"), 1),
    ("040c2f73616d706c652f70617468", (":path", "/sample/path"), 0),
    ("100870617373776f726406736563726574", ("password", "secret"), 0),
    ("82", (":method", "GET"), 0),
)

#: RFC 7541 appendices C.5 and C.6: answers with a table of 256 bytes, from which fields are evicted.
ANSWERS: Final = (
    (
        (
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
            "7777772e6578616d706c652e636f6d"
        ),
        "4803333037c1c0bf",
        (
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b42"
            "5a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
        ),
    ),
    (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f"
            "3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
        ),
    ),
)


def decoded(decoder: HeadDecoder, block: str | bytes) -> list[tuple[str, str]]:
    """Decode a block to names and values."""
    block = bytes.fromhex(block) if isinstance(block, str) else block
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value, _, _ in decoder.decode(block)]


def dynamic(decoder: HeadDecoder) -> list[tuple[bytes, bytes]]:
    """Return the fields in the dynamic table, newest first."""
    fields = [(name, value) for name, value, _, _ in decoder._table[62:]]
    used = sum(len(name) + len(value) + 32 for name, value in fields)
    assert used == decoder._table_bytes <= decoder._max_table_bytes
    return fields


class AppendixTests(SynchronousTestCase):
    """The examples of RFC 7541 appendix C."""

    def test_integers_of_the_rfc_are_encoded_and_decoded(self) -> None:
        for number, prefix, expected in ((10, 0x1F, "0a"), (1337, 0x1F, "1f9a0a"), (42, 0xFF, "2a")):
            self.assertEqual(encode_integer(number, prefix, 0).hex(), expected)

    def test_fields_of_each_kind_are_decoded(self) -> None:
        for block, field, added in FIELDS:
            decoder = HeadDecoder(10_000)
            self.assertEqual(decoded(decoder, block), [field])
            self.assertEqual(len(dynamic(decoder)), added)

    def test_requests_of_the_rfc_are_decoded(self) -> None:
        blocks, heads = REQUESTS
        for sequence in blocks:
            decoder = HeadDecoder(10_000)
            self.assertEqual([decoded(decoder, block) for block in sequence], list(heads))
            self.assertEqual(
                dynamic(decoder),
                [
                    (b"custom-key", b"custom-value"),
                    (b"cache-control", b"no-cache"),
                    (b":authority", b"www.example.com"),
                ],
            )

    def test_answers_of_the_rfc_are_decoded_with_evictions(self) -> None:
        for sequence in ANSWERS:
            decoder = HeadDecoder(10_000)
            decoder.decode(encode_integer(256, 0x1F, 0x20))
            heads = [decoded(decoder, block) for block in sequence]
            self.assertEqual([head[0][1] for head in heads], ["302", "307", "200"])
            self.assertEqual(heads[0][3], ("location", "https://www.example.com"))
            self.assertEqual(heads[1][1:], heads[0][1:])
            self.assertEqual(heads[2][4:], [("content-encoding", "gzip"), heads[2][5]])
            self.assertEqual([name for name, _ in dynamic(decoder)], [b"set-cookie", b"content-encoding", b"date"])


class LimitTests(SynchronousTestCase):
    def assert_refused(self, block: bytes, code: ErrorCode = ErrorCode.COMPRESSION_ERROR, size: int = 10_000) -> None:
        error = self.assertRaises(Http2Error, HeadDecoder(size).decode, block)
        self.assertEqual(error.code, code, block)

    def test_invalid_hpack_is_a_compression_error(self) -> None:
        for block in (
            *(b"\x80", b"\xbe", b"\xff\x00", b"\xff", b"\x7f\xff\xff", b"\x7e\x01a"),
            *(b"\x40", b"\x40\x01", b"\x40\x01a", b"\x40\x01a\x02b", b"\x00\x05ab\x01c", b"\x40\x81\x00\x01a"),
            *(b"\xff\xff\xff\xff\xff\xff\x0f", b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x04\x81\xff\xff"),
            *(b"\x3f\xe2\x1f", b"\x82\x20", b"\x04\x82\x00\x00", b"\x04\x84\xff\xff\xff\xff"),
        ):
            self.assert_refused(block)

    def test_the_decoded_size_of_a_head_is_limited(self) -> None:
        large = b"\x40\x01a" + b"\x7f\x81\x1e" + b"x" * 3968
        self.assertEqual(len(HeadDecoder(8002).decode(large + b"\xbe")), 2)
        self.assert_refused(large + b"\xbe" * 2, ErrorCode.ENHANCE_YOUR_CALM, 8002)
        self.assert_refused(b"\x82" * 1000, ErrorCode.ENHANCE_YOUR_CALM, 8002)

    def test_a_field_larger_than_the_table_empties_it(self) -> None:
        decoder = HeadDecoder(10_000)
        decoder.decode(b"\x40\x01a\x01b")
        self.assertEqual(dynamic(decoder), [(b"a", b"b")])
        decoder.decode(b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096)
        self.assertEqual(dynamic(decoder), [])

    def test_never_indexed_strings_are_not_cached_across_connections(self) -> None:
        encoder = hpack.Encoder()
        block = encoder.encode([NeverIndexedHeaderTuple("authorization", "Bearer never-indexed-123")])
        decoder = HeadDecoder(10_000)
        for _ in range(2):
            self.assertEqual(decoded(decoder, block), [("authorization", "Bearer never-indexed-123")])
        self.assertIn(b"Bearer never-indexed-123", decoder._secrets.values())
        self.assertNotIn(b"Bearer never-indexed-123", decoding._strings.values())
        self.assertNotIn((b"authorization", b"Bearer never-indexed-123"), decoding._fields)

    def test_the_cache_of_strings_is_bounded(self) -> None:
        encoder, decoder = hpack.Encoder(), HeadDecoder(10_000)
        for number in range(3 * decoding._REMEMBERED):
            decoder.decode(encoder.encode([("x-number", str(number))]))
            decoder.decode(encoder.encode([NeverIndexedHeaderTuple("x-secret", str(number))]))
        self.assertLessEqual(len(decoding._strings), decoding._REMEMBERED)
        self.assertLessEqual(len(decoding._fields), decoding._REMEMBERED)
        self.assertLessEqual(len(decoder._secrets), decoding._SECRETS)
        decoder.decode(encoder.encode([("x-large", "large " * 200)]))
        self.assertLess(max(len(code) for code in decoding._strings), 300)


NAMES = st.sampled_from([b":path", b"a", b"cookie", b"x-long-name", b"etag", b"accept-encoding", b"X-Upper", b""])
VALUES = st.one_of(st.sampled_from([b"", b"/", b"gzip, deflate", b"x" * 1500]), st.binary(max_size=40))
FIELD = st.builds(
    lambda cls, name, value: cls(name, value),
    st.sampled_from([HeaderTuple, HeaderTuple, NeverIndexedHeaderTuple]),
    NAMES,
    VALUES,
)


class LibraryTests(SynchronousTestCase):
    """Comparison with the hpack library, in both directions."""

    @given(st.lists(st.tuples(st.lists(FIELD, max_size=8), st.booleans(), st.sampled_from([0, 100, 4096, None]))))
    def test_heads_encoded_by_hpack_are_decoded(self, heads: list[tuple[list[HeaderTuple], bool, int | None]]) -> None:
        encoder, decoder = hpack.Encoder(), HeadDecoder(100_000)
        for fields, huffman, size in heads:
            if size is not None:
                encoder.header_table_size = size
            block = encoder.encode(fields, huffman)
            found = [(name, value) for name, value, _, _ in decoder.decode(block)]
            self.assertEqual(found, [tuple(field) for field in fields])
            self.assertEqual(dynamic(decoder), list(encoder.header_table.dynamic_entries))

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=30),
                st.lists(FIELD, max_size=4).map(lambda fields: bytes(hpack.Encoder().encode(fields))),
                st.sampled_from([b"\x82", b"\xbe", b"\xbf", b"\x40\x01a\x01b", b"\x20", b"\x3f\xe1\x1f", b"\x7e\x01c"]),
            ),
            max_size=6,
        )
    )
    def test_bytes_that_hpack_rejects_are_rejected(self, blocks: list[bytes]) -> None:
        library, decoder = hpack.Decoder(2**30), HeadDecoder(2**30)
        for block in blocks:
            expected: list[tuple[bytes, bytes]] | None = None
            with contextlib.suppress(HPACKError):
                expected = [(bytes(name), bytes(value)) for name, value in library.decode(block, raw=True)]
            try:
                found = [(name, value) for name, value, _, _ in decoder.decode(block)]
            except Http2Error as error:
                # The library reads integers of any number of leading zeros.
                if "integer is too large" not in str(error):
                    self.assertIsNone(expected, block)
                return
            self.assertEqual(found, expected)
            self.assertEqual(dynamic(decoder), list(library.header_table.dynamic_entries))


LINES = st.lists(
    st.sampled_from(
        [
            b"Cache-Control: no-store\r\n",
            b"Content-Type: application/json\r\n",
            b"X-Large: %b\r\n" % (b"x" * 1800),
            b"X-Larger: %b\r\n" % (b"y" * 2100),
            b"X-Largest: %b\r\n" % (b"z" * 5000),
            b"Access-Control-Allow-Origin: *\r\n",
            b'ETag: "1"\r\n',
            b"Set-Cookie: a=b\r\n",
            b"Vary: Origin\r\n",
            b"Content-Type: text/plain\r\n",
            b"Empty: \r\n",
        ]
    ),
    max_size=6,
).map(b"".join)
OFFSETS = st.sampled_from(
    [b"", b"Stream-Next-Offset: 1_2\r\n", b'Stream-Next-Offset: 3_4\r\nETag: "2"\r\nStream-Closed: true\r\n']
)


class EncoderTests(SynchronousTestCase):
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([200, 201, 204, 404, 503, 599]),
                LINES,
                OFFSETS,
                st.sampled_from([None, 0, 127, 123_456]),
                st.lists(st.sampled_from([0, 40, 100, 2000, 4096, 2**32 - 1]), max_size=3),
            ),
            max_size=12,
        )
    )
    def test_hpack_decodes_what_is_encoded(
        self, answers: list[tuple[int, bytes, bytes, int | None, list[int]]]
    ) -> None:
        encoder, decoder = HeadEncoder(), hpack.Decoder(2**30)
        for status, lines, offset, length, sizes in answers:
            for size in sizes:
                encoder.resize(size)
                decoder.max_allowed_table_size = size
            block = encoder.encode(status, lines + offset, DATE, b"id-1", length)
            expected = [(b":status", b"%d" % status)]
            for line in (lines + DATE + b"X-Request-Id: id-1\r\n" + offset).split(b"\r\n")[:-1]:
                name, _, value = line.partition(b": ")
                expected.append((name.lower(), value))
            if length is not None:
                expected.append((b"content-length", b"%d" % length))
            self.assertEqual([tuple(field) for field in decoder.decode(block, raw=True)], expected)
            self.assertEqual(list(decoder.header_table.dynamic_entries), encoder.fields[::-1])
            self.assertLessEqual(encoder.used_bytes, encoder.table_bytes)
            self.assertLessEqual(encoder.table_bytes, 4096)
            self.assertLessEqual(len(encoder._beginnings), 8)

    def test_an_interim_answer_announces_the_size_of_the_table_too(self) -> None:
        encoder, decoder = HeadEncoder(), hpack.Decoder()
        encoder.encode(200, b"A: b\r\n", DATE, b"1", None)
        for size in (0, 1000):
            encoder.resize(size)
        decoder.max_allowed_table_size = 1000
        self.assertEqual(list(decoder.decode(encoder.encode_interim(100), raw=True)), [(b":status", b"100")])
        self.assertEqual(decoder.header_table_size, 1000)

    def test_the_second_head_of_a_kind_is_short(self) -> None:
        encoder = HeadEncoder()
        lines = b"".join(b"X-Header-%d: %b\r\n" % (number, b"v" * 50) for number in range(9))
        sizes = [len(encoder.encode(204, lines, DATE, b"1", None)) for _ in range(3)]
        self.assertGreater(sizes[0], 600)
        self.assertLess(sizes[1], 100)
        self.assertEqual(sizes[1], sizes[2])
