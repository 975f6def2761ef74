"""Counting what is in a document that passes by."""

from __future__ import annotations

import json
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.transfers import DocumentCounter

_DATA = st.lists(st.tuples(st.text(max_size=10), st.lists(st.binary(max_size=9), max_size=4)), max_size=4)


def document(streams: list[tuple[str, list[bytes]]]) -> bytes:
    """Return a document as both servers write it."""
    entries = [
        {
            "name": name,
            "closed": False,
            "total_bytes": sum(map(len, messages)),
            "message_count": len(messages),
            "next_offset": "0_0",
            "messages": [{"offset": "0_0", "data_base64": b64encode(data).decode()} for data in messages],
        }
        for name, messages in streams
    ]
    return json.dumps({"format_version": 1, "streams": entries}, indent=2, ensure_ascii=False).encode()


class CounterTests(SynchronousTestCase):
    @given(_DATA, st.integers(1, 300))
    def test_the_numbers_do_not_depend_on_where_the_document_is_cut(
        self, streams: list[tuple[str, list[bytes]]], size: int
    ) -> None:
        text = document(streams)
        counter = DocumentCounter()
        for start in range(0, len(text), size):
            counter.feed(text[start : start + size])
        self.assertEqual(len(streams), counter.streams)
        self.assertEqual(sum(len(messages) for _, messages in streams), counter.messages)
        self.assertEqual(sum(len(data) for _, messages in streams for data in messages), counter.bytes)

    def test_names_that_look_like_keys_are_not_counted(self) -> None:
        counter = DocumentCounter()
        counter.feed(document([('\n      "next_offset": ', [b"x"])]))
        self.assertEqual((1, 1, 1), (counter.streams, counter.messages, counter.bytes))
