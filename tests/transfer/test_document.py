from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.transfer.document import (
    EntryFigures,
    StreamEntry,
    document_end,
    document_start,
    message,
    stream_end,
    stream_start,
)
from durable_streams.server.transfer.timestamps import render_time
from tests.protocol.samples import examples
from tests.support.transfers import RECORDED, document_object, pretty, stream_object

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_times = st.integers(0, 2**31).map(float)
_entries = st.builds(
    StreamEntry,
    _texts,
    _texts,
    st.none() | st.integers(0, 2**53 - 1),
    st.none() | _times,
    st.booleans(),
    st.booleans(),
)
_streams = st.lists(
    st.tuples(_entries, _times, st.none() | _times, st.lists(st.binary(max_size=40), max_size=4)), max_size=3
)


def _written(streams: list[tuple[StreamEntry, float, float | None, list[bytes]]]) -> bytes:
    parts = [document_start(1_796_040_796.5, "0.3.0")]
    for number, (entry, created_at, updated_at, messages) in enumerate(streams):
        size = sum(map(len, messages))
        parts.append(stream_start(entry, EntryFigures(created_at, updated_at, size, len(messages)), first=not number))
        start = 0
        for index, data in enumerate(messages):
            parts.append(message(index, start, data))
            start += len(data)
        parts.append(stream_end(len(messages)))
    parts.append(document_end(len(streams)))
    return b"".join(parts)


def _time(value: float | None) -> str | None:
    return None if value is None else render_time(value)


def _expected(streams: list[tuple[StreamEntry, float, float | None, list[bytes]]]) -> dict[str, Any]:
    return document_object(
        *(
            stream_object(
                entry.name,
                entry.content_type,
                *messages,
                config={
                    "ttl_seconds": entry.ttl,
                    "expires_at": _time(entry.expires_at),
                    "created_closed": entry.created_closed,
                },
                closed=entry.closed,
                created_at=_time(created_at),
                updated_at=_time(updated_at),
            )
            for entry, created_at, updated_at, messages in streams
        ),
        exported_at="2026-11-30T12:13:16.500Z",
    )


class DocumentTextTests(SynchronousTestCase):
    def test_the_recorded_document_is_what_the_pretty_printer_of_the_tests_writes(self) -> None:
        recorded = RECORDED.read_bytes()
        self.assertEqual(recorded, pretty(json.loads(recorded)))

    def test_a_document_without_streams_has_an_empty_array(self) -> None:
        self.assertEqual(pretty(_expected([])), _written([]))

    @examples(100)
    @given(_streams)
    def test_a_document_is_what_the_pretty_printer_writes(
        self, streams: list[tuple[StreamEntry, float, float | None, list[bytes]]]
    ) -> None:
        self.assertEqual(pretty(_expected(streams)).decode(), _written(streams).decode())
