"""The table and the JSON objects of a list of streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.listing import ListedStream, amount, rfc3339, shorten, table_head, table_row

STREAM = ListedStream(
    "chat/1",
    "open",
    3,
    1536,
    "application/json",
    "2026-11-30T12:00:00.250+00:00",
    "2026-11-30T13:00:00+01:00",
    None,
    None,
)


class TableTests(SynchronousTestCase):
    def test_the_head_has_the_seven_columns_and_a_rule_of_132_dashes(self) -> None:
        titles, rule = table_head().splitlines()
        self.assertEqual(
            "Name                           Status     Messages        Bytes Content-Type             "
            "Created                Updated               ",
            titles,
        )
        self.assertEqual("-" * 132, rule)

    def test_a_row_has_the_columns_of_the_head_and_times_in_utc(self) -> None:
        self.assertEqual(
            "chat/1                         open              3       1.5 KB application/json         "
            "2026-11-30 12:00:00    2026-11-30 12:00:00   ",
            table_row(STREAM),
        )

    def test_missing_values_are_dashes(self) -> None:
        stream = ListedStream("a", "closed", None, 0, "text/plain", "2026-11-30T12:00:00+00:00", None, None, None)
        self.assertEqual(
            "a                              closed            -          0 B text/plain               "
            "2026-11-30 12:00:00    -                     ",
            table_row(stream),
        )

    @given(st.text(max_size=60), st.text(max_size=40), st.text(max_size=30))
    def test_every_row_is_one_line_of_the_same_width(self, name: str, content_type: str, time: str) -> None:
        row = table_row(ListedStream(name, "open", 1, 1, content_type, time, time, None, None))
        self.assertEqual(cell_len(table_head().splitlines()[0]), cell_len(row))
        self.assertEqual([row], row.splitlines())
        self.assertNotIn("\x1b", row)


class ShortenTests(SynchronousTestCase):
    def test_text_that_fits_is_not_changed(self) -> None:
        self.assertEqual("x" * 30, shorten("x" * 30, 30))
        self.assertEqual("日" * 15, shorten("日" * 15, 30))

    def test_longer_text_ends_with_three_points(self) -> None:
        self.assertEqual("x" * 27 + "...", shorten("x" * 31, 30))

    def test_wide_characters_are_not_cut(self) -> None:
        self.assertEqual("日" * 13 + "...", shorten("日" * 16, 30))

    def test_control_characters_are_escaped(self) -> None:
        self.assertEqual(r"a\x1b[31m\n\u202eb", shorten("a\x1b[31m\n\u202eb", 30))

    @given(st.text(max_size=80), st.integers(4, 40))
    def test_the_result_never_exceeds_the_width(self, text: str, width: int) -> None:
        shown = shorten(text, width)
        self.assertLessEqual(cell_len(shown), width)
        self.assertIsNotNone(shown.encode())


class AmountTests(SynchronousTestCase):
    def test_sizes_have_the_unit_of_their_magnitude(self) -> None:
        for size, shown in (
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KB"),
            (1536, "1.5 KB"),
            (1 << 20, "1.0 MB"),
            ((1 << 30) - 1, "1024.0 MB"),
            (1 << 30, "1.0 GB"),
            (5 << 40, "5120.0 GB"),
        ):
            self.assertEqual(shown, amount(size))


class TimeTests(SynchronousTestCase):
    def test_times_have_the_offset_of_utc_and_milliseconds_only_if_there_are_any(self) -> None:
        self.assertEqual("1970-01-01T00:00:01+00:00", rfc3339(1.0))
        self.assertEqual("1970-01-01T00:00:01.250+00:00", rfc3339(1.25))
