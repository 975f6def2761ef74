"""Tests of the checker of histories: it accepts what may happen, and names each contradiction."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .history import (
    LATENESS,
    Appending,
    Arrival,
    Ending,
    Forking,
    History,
    Outcome,
    Place,
    Reading,
    Served,
    problems_of,
)

DONE, REFUSED, UNKNOWN = Outcome.DONE, Outcome.REFUSED, Outcome.UNKNOWN


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.history = History()
        self.now = 100.0

    def append(
        self,
        token: bytes,
        position: int | None = None,
        outcome: Outcome = DONE,
        incarnation: int = 1,
        writer: tuple[str, int] | None = None,
        sequence: int | None = None,
        stream: str = "s",
    ) -> None:
        """Record an append that was answered before the next one is sent."""
        place = None if position is None else Place(incarnation, position)
        self.now += 2
        self.history.add(Appending(stream, token, outcome, place, self.now, self.now + 1, writer, sequence))

    def end(self, kind: str, outcome: Outcome = DONE, position: int | None = None) -> None:
        self.now += 2
        place = None if position is None else Place(1, position)
        self.history.add(Ending("s", kind, outcome, place, self.now, self.now + 1))

    def found(self, content: bytes | None, closed: bool = False, incarnation: int = 1) -> list[str]:
        served = None if content is None else Served(incarnation, content, closed)
        return problems_of(self.history, [{"s": served}, {"s": served}])

    def assert_found(self, what: str, problems: list[str]) -> None:
        self.assertTrue(any(what in problem for problem in problems), problems)

    def test_acknowledged_appends_in_order_are_right(self) -> None:
        self.append(b"a;", 2)
        self.append(b"b+;", outcome=UNKNOWN)
        self.append(b"c;", 4)
        self.append(b"d;", outcome=REFUSED)
        self.assertEqual(self.found(b"a;c;"), [])
        self.append(b"e;", 9)
        self.assertEqual(self.found(b"a;c;b+;e;"), [])

    def test_nodes_that_serve_different_streams_are_found(self) -> None:
        self.append(b"a;", 2)
        problems = problems_of(self.history, [{"s": Served(1, b"a;", False)}, {"s": Served(1, b"", False)}])
        self.assert_found("the nodes serve different streams", problems)

    def test_lost_torn_doubled_moved_and_invented_appends_are_found(self) -> None:
        self.append(b"a;", 2)
        self.append(b"b;", 4)
        self.assert_found("lost: b'b;'", self.found(b"a;"))
        self.assert_found("torn at 2", self.found(b"a;b"))
        self.assert_found("doubled: b'a;'", self.found(b"a;b;a;"))
        self.assert_found("moved: b'b;' ends at 6", self.found(b"a;x;b;"))
        self.assert_found("nobody appended b'x;'", self.found(b"a;b;x;"))
        self.assert_found("lost with its stream", self.found(None))

    def test_a_refused_append_that_is_there_is_found(self) -> None:
        self.append(b"a;", outcome=REFUSED)
        self.assert_found("refused, and there: b'a;'", self.found(b"a;"))

    def test_appends_out_of_order_are_found(self) -> None:
        self.append(b"a;", 4)
        self.append(b"b;", outcome=UNKNOWN)
        self.assert_found("out of order: b'b;'", self.found(b"b;a;"))

    def test_gaps_and_the_order_of_a_writer_are_found(self) -> None:
        for seq, token in enumerate([b"a;", b"b;", b"c;"]):
            self.append(token, outcome=DONE if seq < 2 else UNKNOWN, writer=("w", seq))
        self.assertEqual(self.found(b"a;b;c;"), [])
        self.assert_found("lost: b'b;', acknowledged as a duplicate", self.found(b"a;c;"))
        self.assert_found("the writer w has gaps", self.found(b"a;c;"))
        self.assert_found("out of order", self.found(b"b;a;"))

    def test_a_stream_seq_that_does_not_ascend_is_found(self) -> None:
        self.append(b"a;", outcome=UNKNOWN, sequence=1)
        self.append(b"b;", outcome=UNKNOWN, sequence=2)
        self.assert_found("Stream-Seq does not ascend", self.found(b"b;a;"))

    def test_a_close_that_was_lost_or_overtaken_is_found(self) -> None:
        self.append(b"a;", 2)
        self.end("close", position=2)
        self.assertEqual(self.found(b"a;", True), [])
        self.assert_found("it was closed, and is open", self.found(b"a;"))
        self.append(b"b;", 4)
        self.assert_found("an append after the close was acknowledged", self.found(b"a;b;", True))
        self.assert_found("it was closed at 2, and ends at 4", self.found(b"a;b;", True))

    def test_a_stream_that_nobody_closed_is_found(self) -> None:
        self.append(b"a;", 2)
        self.assert_found("nobody has closed it", self.found(b"a;", True))

    def test_a_stream_that_is_brought_back_is_found(self) -> None:
        self.append(b"a;", 2)
        self.end("delete")
        self.assertEqual(self.found(None), [])
        self.assertEqual(self.found(b"", incarnation=2), [])
        self.assert_found("brought back after its deletion", self.found(b"a;"))
        self.append(b"b;", 2, incarnation=2)
        self.assert_found("brought back: an earlier stream", self.found(b"a;"))

    def test_stale_and_wrong_reads_are_found(self) -> None:
        self.append(b"a;", 2)
        self.append(b"b;", 4)
        self.history.add(Reading("s", 1, b"a;b;", self.now + 2, self.now + 3))
        self.assertEqual(self.found(b"a;b;"), [])
        self.history.add(Reading("s", 1, b"a;", self.now + 2, self.now + 3))
        self.assert_found("a reader got 2 bytes after 4 were acknowledged", self.found(b"a;b;"))
        self.history.add(Reading("s", 1, b"a;c;", self.now + 2, self.now + 3))
        self.assert_found("bytes that are not there", self.found(b"a;b;"))
        self.history.add(Reading("s", 0, None, self.now + 2, self.now + 3))
        self.assert_found("a reader did not find it", self.found(b"a;b;"))

    def test_a_fork_that_differs_from_its_source_is_found(self) -> None:
        self.append(b"a;", 2)
        self.append(b"b;", 4)
        self.history.add(Forking("f", "s", Place(1, 2)))
        self.append(b"c;", 4, stream="f")
        source = Served(1, b"a;b;", False)
        self.assertEqual(problems_of(self.history, [{"s": source, "f": Served(1, b"a;c;", False)}]), [])
        problems = problems_of(self.history, [{"s": source, "f": Served(1, b"b;c;", False)}])
        self.assert_found("f: the bytes of its source up to 2 differ", problems)

    def test_late_and_missing_arrivals_are_found(self) -> None:
        self.append(b"a;", 2)
        done = self.now + 1
        self.history.add(Arrival("s", 0, False, done - 5))
        self.assert_found("a tail did not receive b'a;'", self.found(b"a;"))
        self.history.add(Arrival("s", 2, False, done + LATENESS + 1))
        self.assert_found("a tail received b'a;' 9.0 s late", self.found(b"a;"))
        served = [{"s": Served(1, b"a;", False)}]
        self.assertEqual(problems_of(self.history, served, healed_at=done + 5), [])
        self.end("close", position=2)
        self.assert_found("a tail did not receive the close", self.found(b"a;", True))
