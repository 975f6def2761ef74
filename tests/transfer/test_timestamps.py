from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.lifetimes import parse_timestamp
from durable_streams.server.transfer.timestamps import render_time
from tests.protocol.samples import examples

#: Until the year 2242, a float tells microseconds apart.
_LAST = 2**33 * 1_000_000


class RenderTimeTests(SynchronousTestCase):
    def test_a_time_has_as_many_groups_of_three_digits_as_it_needs(self) -> None:
        for seconds, text in (
            (0.0, "1970-01-01T00:00:00Z"),
            (1_796_040_796.0, "2026-11-30T12:13:16Z"),
            (1_796_040_796.5, "2026-11-30T12:13:16.500Z"),
            (1_796_040_796.000001, "2026-11-30T12:13:16.000001Z"),
            (-0.25, "1969-12-31T23:59:59.750Z"),
        ):
            self.assertEqual(text, render_time(seconds))

    def test_a_time_out_of_range_is_the_first_or_last_second(self) -> None:
        self.assertEqual("9999-12-31T23:59:59Z", render_time(1e300))
        self.assertEqual("0001-01-01T00:00:00Z", render_time(-1e300))

    @examples(200)
    @given(st.integers(0, _LAST))
    def test_microseconds_are_read_back(self, microseconds: int) -> None:
        seconds = microseconds / 1_000_000
        self.assertEqual(microseconds, round(parse_timestamp(render_time(seconds)) * 1_000_000))
        self.assertEqual(render_time(seconds), render_time(parse_timestamp(render_time(seconds))))
