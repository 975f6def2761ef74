"""Splitting of JSON arrays."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.client import arrays
from durable_streams.server.client.arrays import ArraySplitter, split_array
from durable_streams.server.client.errors import InvalidAnswer

_TEXT = st.text(st.sampled_from('ab,"\\[]{}\n é\ud800'), max_size=8)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=10,
)


def split(text: bytes, size: int, limit: int = 1000) -> list[bytes]:
    """Split an array that arrives in pieces of ``size`` bytes."""
    splitter = ArraySplitter(limit)
    elements: list[bytes] = []
    for start in range(0, len(text), size):
        elements += splitter.feed(text[start : start + size])
    return elements + splitter.finish()


class ArraySplitterTests(SynchronousTestCase):
    @given(st.lists(_VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 20), st.integers(1, 40))
    def test_elements_are_found_wherever_the_text_is_cut(
        self, values: list[Any], indent: int | None, size: int, step: int
    ) -> None:
        text = json.dumps(values, indent=indent).encode()
        with mock.patch.object(arrays, "_STEP", step):
            self.assertEqual(values, [json.loads(element) for element in split(text, size, limit=10**6)])

    def test_elements_keep_their_bytes(self) -> None:
        self.assertEqual(
            [b'{"a" :  1.0}', b'"\\u0041"', b"1e5", b"[ ]"], split_array(b' [{"a" :  1.0},"\\u0041", 1e5,[ ]] ')
        )

    def test_an_empty_array_has_no_elements(self) -> None:
        self.assertEqual([], split_array(b"[]"))
        self.assertEqual([], split_array(b" [\n] "))

    def test_what_is_no_complete_array_is_refused(self) -> None:
        for text in (b"", b" ", b"{}", b"1", b"[1", b'["]', b"[1,]", b"[,1]", b"[1]]", b"[1}", b"<html>", b'[{"a":1]'):
            for size in (1, 100):
                with mock.patch.object(arrays, "_STEP", 1), self.assertRaises(InvalidAnswer, msg=text):
                    split(text, size)

    def test_an_element_over_the_limit_is_refused_before_its_end(self) -> None:
        splitter = ArraySplitter(1000)
        with mock.patch.object(arrays, "_STEP", 100), self.assertRaises(InvalidAnswer) as caught:
            splitter.feed(b'["')
            for _ in range(10**6):
                splitter.feed(b"x" * 100)
        self.assertIn("1000 bytes", str(caught.exception))
