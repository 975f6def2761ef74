from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.cursors import EPOCH, INTERVAL, JITTER, next_cursor

from .samples import examples

times = st.floats(EPOCH, EPOCH + 10**10)
jitters = st.integers(*JITTER)
echoes = st.integers(0, 10**17)


class CursorTests(SynchronousTestCase):
    def test_a_cursor_is_the_number_of_the_interval(self) -> None:
        self.assertEqual(0, next_cursor(EPOCH, None, 1))
        self.assertEqual(0, next_cursor(EPOCH + INTERVAL - 0.001, None, 1))
        self.assertEqual(1, next_cursor(EPOCH + INTERVAL, None, 3600))
        self.assertEqual(1000, next_cursor(EPOCH + 1000.5 * INTERVAL, None, 3600))

    def test_intervals_and_jitter_are_those_of_the_protocol(self) -> None:
        self.assertEqual(datetime(2024, 10, 9, tzinfo=UTC).timestamp(), EPOCH)
        self.assertEqual((20, (1, 3600)), (INTERVAL, JITTER))

    def test_a_cursor_below_the_present_interval_gets_the_interval(self) -> None:
        self.assertEqual(1000, next_cursor(EPOCH + 1000 * INTERVAL, "999", 3600))

    def test_a_cursor_of_the_present_interval_is_advanced(self) -> None:
        now = EPOCH + 1000 * INTERVAL
        self.assertEqual(1001, next_cursor(now, "1000", 1))
        self.assertEqual(1050, next_cursor(now, "1000", 1000))
        self.assertEqual(1180, next_cursor(now, "1000", 3600))

    @examples(300)
    @given(times, echoes, jitters)
    def test_the_next_cursor_is_greater_than_an_echoed_one(self, now: float, given_cursor: int, jitter: int) -> None:
        current = next_cursor(now, None, jitter)
        answer = next_cursor(now, str(given_cursor), jitter)
        self.assertGreater(answer, given_cursor)
        self.assertGreaterEqual(answer, current)
        self.assertLessEqual(answer, max(current, given_cursor + JITTER[1] // INTERVAL))

    @examples(100)
    @given(st.lists(st.tuples(times, jitters), min_size=2, max_size=30), echoes)
    def test_echoed_cursors_increase_even_if_the_clock_is_set_back(
        self, requests: list[tuple[float, int]], first: int
    ) -> None:
        cursors = [first]
        for now, jitter in requests:
            cursors.append(next_cursor(now, str(cursors[-1]), jitter))
        self.assertEqual(sorted(set(cursors)), cursors)

    @examples(100)
    @given(st.lists(times, min_size=2, max_size=30).map(sorted), jitters)
    def test_cursors_for_clients_without_one_are_shared_and_never_decrease(
        self, clock: list[float], jitter: int
    ) -> None:
        cursors = [next_cursor(now, None, jitter) for now in clock]
        self.assertEqual(sorted(cursors), cursors)

    @examples(200)
    @given(st.text(max_size=20).filter(lambda text: not (text.isascii() and text.isdigit() and len(text) < 19)))
    def test_a_malformed_cursor_is_ignored(self, text: str) -> None:
        now = EPOCH + 1000 * INTERVAL
        self.assertEqual(1000, next_cursor(now, text, 3600))

    def test_a_cursor_of_any_length_is_accepted(self) -> None:
        self.assertEqual(1000, next_cursor(EPOCH + 1000 * INTERVAL, "9" * 8000, 1))

    def test_a_clock_that_is_not_set_yet_gives_cursors_that_can_be_echoed(self) -> None:
        first = next_cursor(0.0, None, 1)
        self.assertEqual(0, first)
        self.assertEqual(1, next_cursor(0.0, str(first), 1))
