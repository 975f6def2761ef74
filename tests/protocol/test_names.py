from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidName
from durable_streams.server.protocol.names import NameLimits, check_name, parse_name, quote_name

from .samples import examples

LIMITS = NameLimits()
WIDE = NameLimits(10**6, 10**6)

_character = st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/")
_segment = st.text(_character, min_size=1, max_size=8).filter(lambda text: text not in (".", ".."))
names = st.lists(_segment, min_size=1, max_size=8).map("/".join).filter(lambda name: name.split("/")[0] != "__ds")


@st.composite
def percent_encoded(draw: st.DrawFn, of: st.SearchStrategy[str]) -> tuple[str, bytes]:
    """Draw a text, and one of the ways in which its bytes can be written: each as it is, or as an escape."""
    text = draw(of)
    random = draw(st.randoms(use_true_random=True))
    written = b""
    for byte in text.encode():
        ways = [b"%%%02x" % byte, b"%%%02X" % byte]
        written += random.choice(ways if byte == ord("%") else [bytes([byte]), *ways])
    return text, written


def _bad_names() -> st.SearchStrategy[str]:
    good = _segment
    around = st.lists(good, max_size=3)
    control = st.builds(
        "{}{}{}".format, st.just("a"), st.characters(codec="utf-8", categories=["Cc"]), st.sampled_from(["", "b"])
    )
    bad = st.one_of(st.sampled_from(["", ".", ".."]), control)
    return st.one_of(
        st.builds(lambda before, segment, after: "/".join([*before, segment, *after]), around, bad, around),
        around.map(lambda after: "/".join(["__ds", *after])),
    )


class ParseTests(SynchronousTestCase):
    def refused(self, path: bytes, limits: NameLimits = LIMITS) -> str:
        return str(self.assertRaises(InvalidName, parse_name, path, limits))

    def test_a_name_is_the_percent_decoded_path(self) -> None:
        for path, name in (
            (b"chat", "chat"),
            (b"a/b/c", "a/b/c"),
            (b"a%2Fb", "a/b"),
            (b"a%20b", "a b"),
            (b"a+b", "a+b"),
            ("caf\u00e9".encode(), "caf\u00e9"),
            (b"caf%c3%a9", "caf\u00e9"),
            (b"...", "..."),
            (b".a", ".a"),
            (b"a/__ds", "a/__ds"),
            (b"__dsx", "__dsx"),
            (b"__DS/x", "__DS/x"),
        ):
            self.assertEqual(name, parse_name(path, LIMITS))

    def test_a_path_is_percent_decoded_once(self) -> None:
        self.assertEqual("%2e%2e/%5f", parse_name(b"%252e%252e/%255f", LIMITS))

    @examples(100)
    @given(percent_encoded(names))
    def test_every_encoding_of_a_name_is_parsed_to_the_name(self, case: tuple[str, bytes]) -> None:
        name, path = case
        self.assertEqual(name, parse_name(path, WIDE))

    @examples(150)
    @given(percent_encoded(_bad_names()))
    @example(("__ds", b"%5F_ds"))
    @example(("a/../b", b"a/%2e./b"))
    @example(("a\x00", b"a%00"))
    @example(("a\x85", b"a%c2%85"))
    @example(("/a", b"%2fa"))
    def test_an_invalid_name_is_rejected_however_it_is_encoded(self, case: tuple[str, bytes]) -> None:
        _, path = case
        self.refused(path, WIDE)

    @examples(150)
    @given(st.binary(max_size=24))
    def test_any_bytes_are_a_valid_name_or_rejected(self, path: bytes) -> None:
        try:
            name = parse_name(path, LIMITS)
        except InvalidName:
            return
        self.assertIsNone(re.search("[\x00-\x1f\x7f-\x9f]", name))
        self.assertFalse({"", ".", ".."} & set(name.split("/")))
        self.assertNotEqual("__ds", name.split("/")[0])
        self.assertEqual(name, parse_name(quote_name(name), LIMITS))

    def test_a_percent_sign_needs_two_hexadecimal_digits(self) -> None:
        for path in (b"a%", b"a%2", b"%zz", b"%2g", b"%%20", b"% 20", b"%+1"):
            self.assertIn("hexadecimal", self.refused(path))

    def test_invalid_utf8_is_rejected(self) -> None:
        # A lone byte, a cut sequence, an overlong dot, half a surrogate pair, and beyond Unicode.
        for path in (b"\xff", b"%FF", b"%C3", b"a/%C0%AE%C0%AE/b", b"%ED%A0%80", b"%F4%90%80%80"):
            self.assertIn("UTF-8", self.refused(path))

    def test_the_error_says_why_the_name_is_invalid(self) -> None:
        for path, part in (
            (b"", "no stream name"),
            (b"__ds/subscriptions/x", "__ds"),
            (b"a//b", "empty"),
            (b"a/", "slash"),
            (b"a%0ab", "control"),
        ):
            self.assertIn(part, self.refused(path))


class LimitTests(SynchronousTestCase):
    def test_length_counts_the_bytes_of_the_decoded_name(self) -> None:
        self.assertEqual("\u00e9" * 5, parse_name(b"%c3%a9" * 5, NameLimits(10, 8)))
        error = self.assertRaises(InvalidName, parse_name, b"%c3%a9" * 5 + b"a", NameLimits(10, 8))
        self.assertIn("10 bytes", str(error))

    def test_segments_are_counted_after_decoding(self) -> None:
        self.assertEqual("a/b/c", parse_name(b"a/b%2fc", NameLimits(100, 3)))
        error = self.assertRaises(InvalidName, parse_name, b"a/b%2fc/d", NameLimits(100, 3))
        self.assertIn("3 segments", str(error))

    def test_the_defaults_are_1024_bytes_and_8_segments(self) -> None:
        self.assertEqual((1024, 8), (LIMITS.name_bytes, LIMITS.segments))
        check_name("a" * 1024, LIMITS)
        check_name("/".join("a" * 8), LIMITS)
        self.assertRaises(InvalidName, check_name, "a" * 1025, LIMITS)
        self.assertRaises(InvalidName, check_name, "/".join("a" * 9), LIMITS)

    def test_a_name_with_half_a_surrogate_pair_is_refused(self) -> None:
        self.assertIn("surrogate", str(self.assertRaises(InvalidName, check_name, "a\ud800", LIMITS)))


class QuoteTests(SynchronousTestCase):
    @examples(150)
    @given(names)
    def test_a_quoted_name_is_read_back(self, name: str) -> None:
        self.assertEqual(name, parse_name(quote_name(name), WIDE))

    @examples(100)
    @given(names)
    def test_a_quoted_name_is_a_path_of_a_url(self, name: str) -> None:
        self.assertIsNotNone(re.fullmatch(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+", quote_name(name)))

    def test_characters_that_are_allowed_in_a_path_are_not_quoted(self) -> None:
        self.assertEqual(b"a/b-._~!$&'()*+,;=:@", quote_name("a/b-._~!$&'()*+,;=:@"))
        self.assertEqual(b"a%20%23%3F%25%C3%A9", quote_name("a #?%\u00e9"))
