"""Tests of PostgreSQL's binary format, beside a decoder of arrays."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres import packing

INT8S = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


def elements(array: bytes, oid: int) -> list[bytes | None]:
    """Return the elements of an array of one dimension, or of none."""
    dimensions, nulls, element = struct.unpack_from("!3i", array)
    assert element == oid
    if not dimensions:
        assert len(array) == 12
        return []
    assert dimensions == 1
    count, lower = struct.unpack_from("!2i", array, 12)
    assert lower == 1
    found: list[bytes | None] = []
    place = 20
    for _ in range(count):
        (size,) = struct.unpack_from("!i", array, place)
        place += 4
        if size < 0:
            assert nulls == 1
            found.append(None)
        else:
            found.append(array[place : place + size])
            place += size
    assert place == len(array)
    return found


class ArrayTests(SynchronousTestCase):
    @given(INT8S)
    def test_an_array_of_int8_has_its_elements(self, values: list[int]) -> None:
        self.assertEqual(
            [packing.to_int(element or b"") for element in elements(packing.int8s(values), packing.INT8)], values
        )

    @given(st.lists(st.floats(allow_nan=False), max_size=20))
    def test_an_array_of_float8_has_its_elements(self, values: list[float]) -> None:
        self.assertEqual(
            [packing.to_float(element or b"") for element in elements(packing.float8s(values), packing.FLOAT8)], values
        )

    @given(st.lists(st.booleans(), max_size=20))
    def test_an_array_of_bool_has_its_elements(self, values: list[bool]) -> None:
        self.assertEqual(
            [packing.to_bool(element or b"") for element in elements(packing.bools(values), packing.BOOL)], values
        )

    @given(st.lists(st.none() | st.binary(max_size=50), max_size=20))
    def test_an_array_of_bytea_has_its_elements_and_nulls(self, values: list[bytes | None]) -> None:
        self.assertEqual(elements(packing.byteas(values), packing.BYTEA), values)

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=20))
    def test_an_array_of_text_has_its_elements_as_utf_8(self, values: list[str]) -> None:
        self.assertEqual(elements(packing.texts(values), packing.TEXT), [value.encode() for value in values])


class ScalarTests(SynchronousTestCase):
    def test_integers_have_the_size_of_their_type(self) -> None:
        self.assertEqual((packing.int8(-2), packing.int4(2)), (b"\xff" * 7 + b"\xfe", b"\0\0\0\2"))
        self.assertEqual((packing.to_int(packing.int8(-2)), packing.to_int(packing.int4(2))), (-2, 2))

    def test_booleans_are_one_byte(self) -> None:
        self.assertEqual((packing.boolean(True), packing.boolean(False)), (b"\x01", b"\0"))

    @given(st.floats(allow_nan=False))
    def test_floats_are_restored(self, value: float) -> None:
        self.assertEqual(packing.to_float(packing.float8(value)), value)
