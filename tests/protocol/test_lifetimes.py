from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from math import inf

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidRequest
from durable_streams.server.model import FOREVER, Lifetime
from durable_streams.server.protocol.lifetimes import (
    MAX_TTL,
    deadline,
    parse_lifetime,
    parse_timestamp,
    parse_ttl,
    render_timestamp,
)

from .samples import examples

_zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=_zones)


class TtlTests(SynchronousTestCase):
    def test_ttls_of_whole_seconds_are_accepted(self) -> None:
        for text, seconds in (("0", 0), ("1", 1), ("3600", 3600), (str(MAX_TTL), MAX_TTL)):
            self.assertEqual(seconds, parse_ttl(text))

    def test_ttls_with_signs_leading_zeros_points_exponents_or_spaces_are_rejected(self) -> None:
        for text in ("", "+1", "-1", "-0", "00", "01", "1.0", "1.", "1e3", "0x1", "1_000", " 1", "1\n", "\u0661", "a"):
            error = self.assertRaises(InvalidRequest, parse_ttl, text)
            self.assertIn("Stream-TTL", str(error))

    def test_ttls_above_the_largest_json_integer_are_rejected(self) -> None:
        self.assertEqual(9_007_199_254_740_991, MAX_TTL)
        self.assertRaises(InvalidRequest, parse_ttl, str(MAX_TTL + 1))

    @examples(100)
    @given(st.one_of(st.text("0123456789", min_size=1, max_size=400), st.text(max_size=5)))
    @example("9" * 400)
    @example("0" * 400)
    @example("9" * 16)
    def test_any_text_is_a_ttl_or_rejected(self, text: str) -> None:
        try:
            seconds = parse_ttl(text)
        except InvalidRequest:
            self.assertFalse(re.fullmatch("0|[1-9][0-9]{0,14}", text))
        else:
            self.assertEqual(text, str(seconds))
            self.assertLessEqual(seconds, MAX_TTL)


class TimestampTests(SynchronousTestCase):
    def test_rfc_3339_times_are_parsed(self) -> None:
        for text, seconds in (
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00-00:00", 0),
            ("1970-01-01t00:00:01z", 1),
            ("1970-01-01T01:30:00+01:30", 0),
            ("1969-12-31T22:30:00-01:30", 0),
            ("1970-01-01T00:00:00.5Z", 0.5),
            ("2030-01-31T12:00:00Z", 1_896_091_200),
            ("2024-02-29T00:00:00Z", 1_709_164_800),
            ("1970-01-01T00:00:00.123456789012345678Z", 0.123456789012345678),
            ("1990-12-31T23:59:60Z", 662_688_000),
        ):
            self.assertEqual(seconds, parse_timestamp(text))

    def test_other_forms_of_times_are_rejected(self) -> None:
        for text in (
            "",
            "soon",
            "1893456000",
            "2030-01-31",
            "2030-01-31T12:00Z",
            "2030-01-31T12:00:00",
            "2030-01-31 12:00:00Z",
            "2030-01-31T12:00:00.Z",
            "2030-01-31T12:00:00,5Z",
            "2030-01-31T12:00:00+0100",
            "2030-01-31T12:00:00+01",
            "2030-1-31T12:00:00Z",
            "2030-01-31T12:00:00Z\n",
            " 2030-01-31T12:00:00Z",
            "20300-01-31T12:00:00Z",
            "-2030-01-31T12:00:00Z",
            "\u06602030-01-31T12:00:00Z",
        ):
            error = self.assertRaises(InvalidRequest, parse_timestamp, text)
            self.assertIn("RFC 3339", str(error))

    def test_times_that_do_not_exist_are_rejected(self) -> None:
        for text in (
            "2030-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-00-01T00:00:00Z",
            "2030-01-00T00:00:00Z",
            "2030-01-31T24:00:00Z",
            "2030-01-31T12:60:00Z",
            "2030-01-31T12:00:61Z",
            "2030-01-31T12:00:00+24:00",
            "2030-01-31T12:00:00+01:60",
            "2030-01-31T12:00:00-99:99",
            "0000-01-01T00:00:00Z",
        ):
            error = self.assertRaises(InvalidRequest, parse_timestamp, text)
            self.assertIn("does not exist", str(error))

    @examples(100)
    @given(moments)
    def test_a_parsed_time_equals_that_of_the_standard_library(self, moment: datetime) -> None:
        self.assertAlmostEqual(moment.timestamp(), parse_timestamp(moment.isoformat()), 5)

    @examples(100)
    @given(moments, _zones)
    @example(datetime(2038, 1, 19, 4, 3, 56, 55_671, tzinfo=UTC), timezone(timedelta(hours=-2)))
    def test_a_moment_is_the_same_lifetime_in_every_zone(self, moment: datetime, zone: timezone) -> None:
        here, there = moment.isoformat(), moment.astimezone(zone).isoformat()
        self.assertEqual(parse_lifetime(None, here), parse_lifetime(None, there))

    @examples(150)
    @given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
    def test_a_rendered_time_is_read_back_to_the_millisecond(self, milliseconds: int) -> None:
        text = render_timestamp(milliseconds / 1000)
        self.assertEqual(milliseconds, round(parse_timestamp(text) * 1000))
        self.assertEqual(text, render_timestamp(parse_timestamp(text)))

    def test_rendered_times_have_milliseconds_only_if_they_are_not_0(self) -> None:
        for seconds, text in (
            (0, "1970-01-01T00:00:00Z"),
            (0.5, "1970-01-01T00:00:00.500Z"),
            (0.0004, "1970-01-01T00:00:00Z"),
            (1_896_091_200.9996, "2030-01-31T12:00:01Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ):
            self.assertEqual(text, render_timestamp(seconds))

    def test_every_accepted_time_can_be_rendered(self) -> None:
        for text, shown in (
            ("9999-12-31T23:59:59.9999Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:60Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
            ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z"),
        ):
            self.assertEqual(shown, render_timestamp(parse_timestamp(text)))

    def test_an_infinite_time_is_rendered_as_the_last_valid_time(self) -> None:
        self.assertEqual("9999-12-31T23:59:59.999Z", render_timestamp(inf))


class LifetimeTests(SynchronousTestCase):
    def test_the_headers_become_a_lifetime(self) -> None:
        self.assertEqual(FOREVER, parse_lifetime(None, None))
        self.assertEqual(Lifetime(ttl=60), parse_lifetime("60", None))
        self.assertEqual(Lifetime(expires_at=1.0), parse_lifetime(None, "1970-01-01T00:00:01Z"))

    def test_ttl_and_expires_at_together_are_rejected(self) -> None:
        error = self.assertRaises(InvalidRequest, parse_lifetime, "60", "2030-01-31T12:00:00Z")
        self.assertIn("not both", str(error))

    def test_a_ttl_counts_from_the_last_use(self) -> None:
        self.assertEqual(160.5, deadline(Lifetime(ttl=60), 100.5))

    def test_expires_at_does_not_depend_on_the_last_use(self) -> None:
        self.assertEqual(7.0, deadline(Lifetime(expires_at=7.0), 100.5))

    def test_a_stream_without_a_lifetime_has_an_infinite_deadline(self) -> None:
        self.assertEqual(inf, deadline(FOREVER, 100.5))

    @examples(100)
    @given(st.integers(0, MAX_TTL), st.floats(0, 1e12))
    def test_every_accepted_ttl_has_a_finite_deadline(self, ttl: int, now: float) -> None:
        end = deadline(Lifetime(ttl=ttl), now)
        self.assertTrue(now <= end < inf)
