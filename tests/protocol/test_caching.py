from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.caching import etag, etag_prefix, matches

from .samples import examples

numbers = st.integers(0, 2**53)
ranges = st.tuples(numbers, numbers, numbers, st.booleans())

#: The opaque part of an entity-tag: anything but quotes, controls and spaces (RFC 9110 section 8.8.3).
_opaque = st.lists(st.one_of(st.sampled_from(b"*,W/:c0123"), st.sampled_from(b"!#~\x80\xff")), max_size=6).map(bytes)
_separators = st.sampled_from([b",", b", ", b" ,\t", b",,", b", ,"])
TAG = etag(etag_prefix(5), 10, 20, False)


def tag_of(stream_id: int, start: int, end: int, closed: bool) -> bytes:
    return etag(etag_prefix(stream_id), start, end, closed)


@st.composite
def tag_lists(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw an If-None-Match, and the opaque parts of the tags in it; :data:`TAG` is one of them every now and then."""
    opaque = draw(st.lists(st.one_of(_opaque, st.just(TAG[1:-1])), max_size=5))
    written = [(draw(st.sampled_from([b"", b"W/"]))) + b'"' + part + b'"' for part in opaque]
    return draw(_separators).join(written), opaque


class EtagTests(SynchronousTestCase):
    def test_an_etag_has_the_streams_id_the_range_and_the_closure(self) -> None:
        self.assertEqual(b'"5:10:20"', etag(etag_prefix(5), 10, 20, False))
        self.assertEqual(b'"5:10:20:c"', etag(etag_prefix(5), 10, 20, True))

    @examples(200)
    @given(ranges, ranges)
    def test_different_streams_ranges_and_closures_have_different_etags(
        self, one: tuple[int, int, int, bool], other: tuple[int, int, int, bool]
    ) -> None:
        self.assertEqual(one == other, tag_of(*one) == tag_of(*other))

    @examples(100)
    @given(numbers, numbers, numbers)
    def test_closing_the_stream_changes_the_etag(self, stream_id: int, start: int, end: int) -> None:
        before, after = (tag_of(stream_id, start, end, closed) for closed in (False, True))
        self.assertFalse(matches(before, after))
        self.assertFalse(matches(after, before))

    @examples(100)
    @given(ranges)
    def test_an_etag_is_a_valid_entity_tag(self, one: tuple[int, int, int, bool]) -> None:
        self.assertIsNotNone(re.fullmatch(rb'"[\x21\x23-\x7e\x80-\xff]*"', tag_of(*one)))


class MatchTests(SynchronousTestCase):
    def test_the_same_etag_matches_strong_or_weak_alone_or_in_a_list(self) -> None:
        for header in (
            TAG,
            b"W/" + TAG,
            b'"x", ' + TAG,
            TAG + b',"x"',
            b'"x",W/' + TAG + b' , "y"',
            b" " + TAG + b"\t",
        ):
            self.assertTrue(matches(header, TAG), header)

    def test_an_asterisk_matches_any_etag(self) -> None:
        self.assertTrue(matches(b"*", TAG))
        self.assertTrue(matches(b" * ", TAG))

    def test_other_etags_do_not_match(self) -> None:
        for header in (b"", b'""', b'"5:10:21"', b"5:10:20", b'"5:10:20', b'"5:10:20:c"', b'"*"', b"W/", b","):
            self.assertFalse(matches(header, TAG), header)

    def test_an_etag_inside_another_etag_does_not_match(self) -> None:
        self.assertFalse(matches(b'"a,*,b"', TAG))
        self.assertFalse(matches(b'"*"', TAG))

    @examples(200)
    @given(tag_lists())
    @example((b'W/"5:10:20", "*"', [b"5:10:20", b"*"]))
    def test_a_list_matches_if_one_of_its_opaque_parts_is_the_same(self, case: tuple[bytes, list[bytes]]) -> None:
        header, opaque = case
        self.assertEqual(TAG[1:-1] in opaque, matches(header, TAG))
