"""Parsing of event streams."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.client.errors import InvalidAnswer
from durable_streams.server.client.events import Event, EventParser
from durable_streams.server.protocol.sse import control_event, data_event

_LIMIT = 10_000


def parse(*pieces: bytes, limit: int = _LIMIT) -> list[Event]:
    """Return the events in pieces of a stream."""
    parser = EventParser(limit)
    return [event for piece in pieces for event in parser.feed(piece)]


def pieces_of(text: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a text at positions, which may be beyond its end."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


class EventParserTests(SynchronousTestCase):
    def test_an_event_has_its_name_and_the_lines_of_its_data(self) -> None:
        self.assertEqual(
            [Event("data", b"one\n two"), Event("message", b"")],
            parse(b"event: data\ndata:one\ndata:  two\nid: 7\n\ndata\n\n"),
        )

    def test_lines_end_with_cr_lf_or_both(self) -> None:
        expected = [Event("data", b"one\ntwo"), Event("control", b"{}")]
        for end in (b"\r", b"\n", b"\r\n"):
            text = end.join([b"event:data", b"data:one", b"data:two", b"", b"event:control", b"data:{}", b"", b""])
            self.assertEqual(expected, parse(text))
            self.assertEqual(expected, parse(*(bytes([byte]) for byte in text)))

    def test_comments_unknown_fields_and_events_without_data_are_ignored(self) -> None:
        self.assertEqual([Event("message", b"x")], parse(b":\n\n: hello\nretry: 1\nother\nevent: lost\n\ndata: x\n\n"))

    def test_a_byte_order_mark_is_ignored_at_the_beginning_only(self) -> None:
        mark = b"\xef\xbb\xbf"
        self.assertEqual([Event("message", b"x")], parse(mark[:1], mark[1:] + b"data:x\n\n" + mark + b"data:y\n\n"))

    def test_an_incomplete_event_is_not_reported(self) -> None:
        self.assertEqual([], parse(b"event: data\ndata: x\n"))

    def test_a_line_over_the_limit_is_refused(self) -> None:
        endless = EventParser(_LIMIT)
        with self.assertRaises(InvalidAnswer) as caught:
            for _ in range(_LIMIT):
                list(endless.feed(b"data:" + b"x" * 100))
        self.assertIn("10000 bytes", str(caught.exception))

    def test_many_lines_over_the_limit_are_refused(self) -> None:
        with self.assertRaises(InvalidAnswer):
            parse(*[b"data: x\n"] * _LIMIT)

    def test_many_small_events_are_not_refused(self) -> None:
        self.assertEqual(_LIMIT, len(parse(*[b"data: x\n\n"] * _LIMIT, limit=10)))

    @given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.integers(0, 1000), max_size=10))
    def test_what_the_server_encodes_is_parsed_wherever_it_is_cut(self, texts: list[str], cuts: list[int]) -> None:
        stream = b""
        expected = []
        for text in texts:
            data = text.encode()
            stream += data_event(data, False, True, "1_1") + control_event("1_1", 5, True, False)
            expected.append(Event("data", data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")))
            expected.append(Event("control", b'{"streamNextOffset":"1_1","streamCursor":"5","upToDate":true}'))
        self.assertEqual(expected, parse(*pieces_of(stream, cuts)))
