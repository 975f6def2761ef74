"""Tests of the trace context of deliveries: which traceparent is valid, and which a wake is delivered with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions import tracing
from durable_streams.server.subscriptions.model import DeliverWebhook, Snapshot, SnapshotEntry
from durable_streams.server.subscriptions.tracing import DeliveryTraces, parse_traceparent, parse_tracestate

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"
OTHER = f"00-{TRACE}-{PARENT}-00"
OWN = r"\A00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01\Z"


def delivery(*entries: tuple[str, int, int], wake_id: str = "w_1") -> DeliverWebhook:
    """Return the delivery of a wake with streams, each with its cursor and its tail."""
    snapshot = Snapshot(wake_id, tuple(SnapshotEntry(path, True, 1, 7, cursor, tail) for path, cursor, tail in entries))
    return DeliverWebhook("https://worker.example/", wake_id, 1, snapshot)


class ParsingTests(SynchronousTestCase):
    def test_a_valid_one_is_passed_on_unchanged(self) -> None:
        for value in (VALID, OTHER, f"00-{TRACE}-{PARENT}-03"):
            self.assertEqual(value, parse_traceparent(value.encode()))

    def test_malformed_and_doubled_ones_are_ignored(self) -> None:
        for value in (
            *("", "00", VALID[:-1], VALID + "0", VALID.upper(), " " + VALID, VALID + "\n", f"ff{VALID[2:]}"),
            *(f"{VALID}, {VALID}", f"{VALID}-x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"),
            *(f"00-{TRACE}{PARENT}-01", f"0g{VALID[2:]}", VALID.replace("-", "_"), f"01-{TRACE}-{PARENT}-011"),
        ):
            self.assertIsNone(parse_traceparent(value.encode()), value)

    def test_one_of_a_later_version_is_passed_on_as_version_00(self) -> None:
        for value in (f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-fd-what-the-future-will-be-like"):
            self.assertEqual(VALID, parse_traceparent(value.encode()), value)

    @given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"))
    def test_what_is_passed_on_is_always_valid(self, value: bytes) -> None:
        passed_on = parse_traceparent(value)
        if passed_on is not None:
            self.assertRegex(passed_on, r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]\Z")
            self.assertEqual(passed_on, parse_traceparent(passed_on.encode()))


class StateTests(SynchronousTestCase):
    def test_a_valid_one_is_passed_on_unchanged(self) -> None:
        for value in (
            *("a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1 , b=2", "a=1,,b=2,", "tenant@system=x y"),
            *("a= ~!", ",".join(f"k{number}=v" for number in range(32)), "a=" + "x" * 256),
        ):
            self.assertEqual(value, parse_tracestate(value.encode()))

    def test_a_malformed_or_too_long_one_is_dropped(self) -> None:
        for value in (
            *("a", "=1", "A=1", "a=1=2", "a=1\r\nb: 2", "a=\xe4", "a=1;b", "a@=1", "@b=1", "a@b@c=1", "a=" + "x" * 257),
            *(",".join(f"k{number}=v" for number in range(33)), ",".join(f"k{n}=" + "x" * 200 for n in range(3))),
        ):
            self.assertEqual("" if value != "a=1;b" else value, parse_tracestate(value.encode("latin-1")), value)

    @given(st.binary(max_size=600) | st.from_regex(rb"([a-z]{1,3}=[ -~]{1,9},){1,40}"))
    def test_what_is_passed_on_is_a_line_of_ascii(self, value: bytes) -> None:
        self.assertIn(parse_tracestate(value), ("", value.decode("latin-1")))
        self.assertRegex(parse_tracestate(value), r"\A[\t -~]{0,512}\Z")


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.traces = DeliveryTraces()

    def note(self, begin: int, end: int, value: str = VALID, name: str = "a", incarnation: int = 7) -> None:
        self.traces.note(name, incarnation, begin, end, value.encode())

    def traceparent(self, pending: DeliverWebhook) -> str:
        return self.traces.context(pending).traceparent

    def test_the_state_of_a_trace_goes_with_it_and_a_malformed_one_is_dropped(self) -> None:
        for end, state in ((5, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"), (9, ""), (12, "no state")):
            self.traces.note("a", 7, end - 1, end, VALID.encode(), state.encode())
            context = self.traces.context(delivery(("a", end - 1, end)))
            self.assertEqual((VALID, "" if " " in state else state), (context.traceparent, context.tracestate))
        self.assertEqual("", self.traces.context(delivery(("b", 0, 1))).tracestate)

    def test_the_only_pending_write_gives_its_trace_to_each_attempt(self) -> None:
        self.note(3, 5)
        self.note(5, 9, OTHER)
        for _ in range(2):
            self.assertEqual(VALID, self.traceparent(delivery(("a", 3, 5), ("b", 2, 2))))
        self.assertEqual(OTHER, self.traceparent(delivery(("a", 5, 9))))

    def test_several_writes_or_streams_begin_a_trace(self) -> None:
        self.note(3, 5)
        self.note(5, 9)
        self.note(0, 4, name="b")
        for pending in (delivery(("a", 3, 9)), delivery(("a", 3, 5), ("b", 0, 4)), delivery(("c", 3, 5))):
            traceparent = self.traceparent(pending)
            self.assertRegex(traceparent, OWN)
            self.assertNotIn(TRACE, traceparent)

    def test_a_write_to_an_earlier_stream_of_the_name_does_not_count(self) -> None:
        self.note(0, 5, incarnation=6)
        self.assertNotIn(TRACE, self.traceparent(delivery(("a", 0, 5))))

    def test_attempts_of_a_wake_share_the_trace_that_they_begin_and_differ_in_their_spans(self) -> None:
        first, second = (self.traceparent(delivery(("a", 0, 5))).split("-") for _ in range(2))
        other = DeliveryTraces().context(delivery(("a", 0, 5), wake_id="w_2")).traceparent.split("-")
        self.assertEqual(first[1], second[1])
        self.assertNotEqual(first[2], second[2])
        self.assertNotEqual(first[1], other[1])

    def test_a_malformed_traceparent_and_an_empty_write_are_not_remembered(self) -> None:
        self.note(3, 5, VALID[:-1])
        self.note(5, 5)
        self.assertEqual(0, len(self.traces))

    def test_a_bounded_number_of_writes_and_of_bytes_of_names_is_remembered(self) -> None:
        self.patch(tracing, "MAX_WRITES", 3)
        for end in range(1, 6):
            self.note(end - 1, end)
        self.assertEqual(3, len(self.traces))
        self.assertEqual(VALID, self.traceparent(delivery(("a", 4, 5))))
        self.assertNotIn(TRACE, self.traceparent(delivery(("a", 1, 2))))
        self.patch(tracing, "MAX_NAMES", 10)
        for end in range(1, 4):
            self.note(end - 1, end, name="12345")
        self.assertEqual(2, len(self.traces))
