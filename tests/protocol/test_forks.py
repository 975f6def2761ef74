from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidRequest
from durable_streams.server.protocol.forks import divergence
from durable_streams.server.protocol.messages import wire_form

from .samples import examples, json_arrays
from .splitting import split_messages


class BytesTests(SynchronousTestCase):
    def test_without_a_sub_offset_the_fork_diverges_at_its_offset(self) -> None:
        self.assertEqual(7, divergence(7, 0, (7, b"abc"), False))
        self.assertEqual(9, divergence(9, 0, (7, b"abc"), False))

    def test_a_sub_offset_counts_bytes_up_to_the_end_of_the_append(self) -> None:
        self.assertEqual(9, divergence(7, 2, (7, b"abc"), False))
        self.assertEqual(10, divergence(7, 3, (7, b"abc"), False))
        error = self.assertRaises(InvalidRequest, divergence, 7, 4, (7, b"abc"), False)
        self.assertIn("Stream-Fork-Sub-Offset", str(error))

    @examples(200)
    @given(st.integers(0, 1000), st.binary(min_size=1, max_size=20), st.data())
    def test_the_fork_diverges_inside_the_append_or_is_rejected(
        self, start: int, data: bytes, drawn: st.DataObject
    ) -> None:
        anchor = start + drawn.draw(st.integers(0, len(data) - 1))
        sub_offset = drawn.draw(st.one_of(st.integers(0, 30), st.just(2**53 - 1)))
        left = len(data) - (anchor - start)
        if sub_offset <= left:
            self.assertEqual(anchor + sub_offset, divergence(anchor, sub_offset, (start, data), False))
        else:
            self.assertRaises(InvalidRequest, divergence, anchor, sub_offset, (start, data), False)


class TailTests(SynchronousTestCase):
    def test_at_the_tail_only_sub_offset_0_is_accepted(self) -> None:
        for json in (False, True):
            self.assertEqual(5, divergence(5, 0, None, json))
            error = self.assertRaises(InvalidRequest, divergence, 5, 1, None, json)
            self.assertIn("tail", str(error))


class JsonTests(SynchronousTestCase):
    def test_a_sub_offset_counts_messages(self) -> None:
        append = (100, b'{"a":1}, 2 ,[3],')
        for count, place in ((0, 100), (1, 108), (2, 112), (3, 116)):
            self.assertEqual(place, divergence(100, count, append, True))
        error = self.assertRaises(InvalidRequest, divergence, 100, 4, append, True)
        self.assertIn("Stream-Fork-Sub-Offset", str(error))

    def test_a_sub_offset_counts_from_a_fork_offset_between_messages(self) -> None:
        append = (100, b'{"a":1}, 2 ,[3],')
        self.assertEqual(108, divergence(108, 0, append, True))
        self.assertEqual(116, divergence(108, 2, append, True))
        self.assertRaises(InvalidRequest, divergence, 108, 3, append, True)

    def test_a_fork_offset_inside_a_message_is_rejected(self) -> None:
        for anchor in (101, 107, 109, 115):
            error = self.assertRaises(InvalidRequest, divergence, anchor, 0, (100, b'{"a":1}, 2 ,[3],'), True)
            self.assertIn("Stream-Fork-Offset", str(error))

    @examples(60)
    @given(st.integers(0, 1000), json_arrays(), st.data())
    def test_the_divergence_equals_that_of_a_simple_count(
        self, start: int, case: tuple[bytes, list[bytes]], drawn: st.DataObject
    ) -> None:
        wire = wire_form(case[0])
        messages = split_messages(wire)
        anchor = start + drawn.draw(st.integers(0, len(wire) - 1))
        count = drawn.draw(st.one_of(st.integers(0, len(messages) + 1), st.just(2**53 - 1)))
        edges = [start + len(b"".join(messages[:index])) for index in range(len(messages) + 1)]
        wanted = edges.index(anchor) + count if anchor in edges else None
        if wanted is not None and wanted < len(edges):
            self.assertEqual(edges[wanted], divergence(anchor, count, (start, wire), True))
        else:
            self.assertRaises(InvalidRequest, divergence, anchor, count, (start, wire), True)
