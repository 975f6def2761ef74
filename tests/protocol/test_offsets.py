from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidOffset, OffsetGone
from durable_streams.server.model import NOW, START, Offset
from durable_streams.server.protocol.offsets import locate, parse_offset

from .samples import examples, facts

numbers = st.integers(0, 10**16 - 1)
offsets = st.builds(Offset, numbers, numbers)
tails = st.integers(0, 2**50)


class FormTests(SynchronousTestCase):
    def test_minus_one_and_sixteen_zeros_twice_are_the_start(self) -> None:
        self.assertEqual(START, parse_offset("-1"))
        self.assertEqual(START, parse_offset("0000000000000000_0000000000000000"))

    def test_now_is_the_tail(self) -> None:
        self.assertEqual(NOW, parse_offset("now"))

    def test_an_offset_is_two_numbers_of_sixteen_digits(self) -> None:
        self.assertEqual("0000000000000012_0000000000000345", str(Offset(12, 345)))

    @examples(100)
    @given(offsets)
    def test_a_rendered_offset_is_parsed_back(self, offset: Offset) -> None:
        self.assertEqual(offset, parse_offset(str(offset)))

    @examples(100)
    @given(st.lists(offsets, max_size=20))
    def test_rendered_offsets_sort_by_incarnation_then_position(self, some: list[Offset]) -> None:
        by_number = sorted(some, key=lambda offset: (offset.incarnation, offset.position))
        self.assertEqual([str(offset) for offset in by_number], sorted(map(str, some)))

    @examples(100)
    @given(offsets)
    def test_rendered_offsets_are_short_url_safe_and_no_sentinels(self, offset: Offset) -> None:
        text = str(offset)
        self.assertIsNotNone(re.fullmatch("[0-9_]{1,255}", text))
        self.assertNotIn(text, ("-1", "now"))

    @examples(150)
    @given(
        st.one_of(
            st.text(max_size=40),
            st.from_regex(r"\A[0-9]{14,18}_[0-9]{14,18}\n?\Z"),
            st.from_regex(r"\A\d{16}_\d{16}\Z"),
        )
    )
    def test_malformed_offsets_are_rejected(self, text: str) -> None:
        if text in ("-1", "now") or re.fullmatch("[0-9]{16}_[0-9]{16}", text):
            self.assertIsInstance(parse_offset(text), Offset)
        else:
            self.assertRaises(InvalidOffset, parse_offset, text)

    def test_almost_valid_offsets_are_rejected(self) -> None:
        good = "0000000000000012_0000000000000345"
        for text in (
            "",
            "0",
            "-2",
            "+1",
            "NOW",
            "now ",
            " -1",
            good + "\n",
            " " + good,
            good.replace("_", "-"),
            good.replace("_", ""),
            good[1:],
            good + "0",
            good.replace("1", "a"),
            good.replace("1", "\uff11"),
            good.replace("1", "\u0661"),
            "-000000000000012_0000000000000345",
        ):
            self.assertRaises(InvalidOffset, parse_offset, text)


class LocateTests(SynchronousTestCase):
    @examples(150)
    @given(st.one_of(offsets, st.sampled_from([START, NOW])), st.integers(1, 10**16 - 1), tails)
    def test_a_located_position_is_never_past_the_tail(self, offset: Offset, incarnation: int, tail: int) -> None:
        try:
            position = locate(offset, facts(incarnation=incarnation), tail)
        except (InvalidOffset, OffsetGone):
            self.assertNotIn(offset, (START, NOW))
            self.assertNotEqual(incarnation, offset.incarnation)
        else:
            self.assertTrue(0 <= position <= tail)

    @examples(100)
    @given(st.integers(0, 2**50), tails)
    def test_an_offset_of_the_stream_is_its_position_or_the_tail(self, position: int, tail: int) -> None:
        stream = facts()
        self.assertEqual(min(position, tail), locate(Offset(stream.incarnation, position), stream, tail))

    def test_the_start_is_0_and_now_is_the_tail_in_any_stream(self) -> None:
        for incarnation in (1, 5, 10**15):
            self.assertEqual(0, locate(START, facts(incarnation=incarnation), 9))
            self.assertEqual(9, locate(NOW, facts(incarnation=incarnation), 9))

    def test_an_offset_of_an_earlier_stream_is_gone(self) -> None:
        error = self.assertRaises(OffsetGone, locate, Offset(99, 0), facts(incarnation=100), 9)
        self.assertEqual("room/1", error.name)
        self.assertRaises(OffsetGone, locate, Offset(1, 7), facts(incarnation=2), 9)

    def test_an_offset_that_no_stream_of_the_name_had_is_invalid(self) -> None:
        for offset in (Offset(101, 0), Offset(0, 1), Offset(10**16 - 1, 10**16 - 1)):
            self.assertRaises(InvalidOffset, locate, offset, facts(incarnation=100), 9)

    @examples(100)
    @given(st.integers(1, 10**15), st.integers(1, 10**6), numbers, numbers)
    def test_offsets_of_a_recreated_stream_sort_after_the_earlier_ones(
        self, incarnation: int, later: int, old: int, new: int
    ) -> None:
        self.assertLess(str(Offset(incarnation, old)), str(Offset(incarnation + later, new)))
