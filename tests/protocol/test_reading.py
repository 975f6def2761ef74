from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.reading import end_of_read, ends_between, start_of_append

from .samples import examples

#: Streams, as the positions at which their appends end.
streams = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(lambda sizes: list(accumulate(sizes)))


def _starts(ends: list[int]) -> list[int]:
    return [0, *ends[:-1]]


class StartOfAppendTests(SynchronousTestCase):
    def test_a_position_inside_an_append_steps_back_to_its_start(self) -> None:
        ends = [4, 10, 11]
        expected = {0: 0, 1: 0, 3: 0, 4: 4, 5: 4, 9: 4, 10: 10, 11: 11}
        self.assertEqual(expected, {position: start_of_append(ends, position) for position in expected})

    def test_a_position_past_the_last_append_is_returned_unchanged(self) -> None:
        self.assertEqual(12, start_of_append([4, 10], 12))
        self.assertEqual(0, start_of_append([], 0))

    @examples(150)
    @given(streams, st.data())
    def test_the_start_equals_that_of_a_linear_search(self, ends: list[int], data: st.DataObject) -> None:
        position = data.draw(st.integers(0, ends[-1]))
        around = [start for start, end in zip(_starts(ends), ends, strict=True) if start <= position < end]
        self.assertEqual(around[0] if around else position, start_of_append(ends, position))


class EndOfReadTests(SynchronousTestCase):
    def test_a_read_has_as_many_whole_appends_as_fit_and_at_least_one(self) -> None:
        ends = [4, 10, 11]
        for start, limit, end in (
            (0, 3, 4),
            (0, 0, 4),
            (0, 4, 4),
            (0, 9, 4),
            (0, 10, 10),
            (0, 99, 11),
            (4, 5, 10),
            (4, 7, 11),
            (10, 0, 11),
        ):
            self.assertEqual(end, end_of_read(ends, start, limit))

    @examples(150)
    @given(streams, st.integers(0, 120), st.data())
    def test_the_end_equals_that_of_a_linear_search(self, ends: list[int], limit: int, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(_starts(ends)))
        after = [end for end in ends if end > start]
        fitting = [end for end in after if end <= start + limit]
        self.assertEqual(max(fitting) if fitting else min(after), end_of_read(ends, start, limit))

    @examples(100)
    @given(streams, st.integers(0, 20))
    def test_consecutive_reads_return_every_append_once(self, ends: list[int], limit: int) -> None:
        seen = [0]
        while seen[-1] < ends[-1]:
            seen.append(end_of_read(ends, seen[-1], limit))
        self.assertEqual(ends[-1], seen[-1])
        self.assertEqual(sorted(set(seen)), seen)
        self.assertTrue(set(seen) <= {0, *ends})


class EndsBetweenTests(SynchronousTestCase):
    @examples(150)
    @given(streams, st.integers(0, 14), st.data())
    def test_the_ends_equal_those_of_a_linear_search(
        self, ends: list[int], max_count: int, data: st.DataObject
    ) -> None:
        start = data.draw(st.integers(0, ends[-1]))
        stop = data.draw(st.integers(start, ends[-1]))
        within = [end for end in ends if start < end < stop] + ([stop] if start < stop else [])
        self.assertEqual(within[:max_count], ends_between(ends, start, stop, max_count))
