"""CRC-32 of whichever library computes it."""

from __future__ import annotations

import importlib
import sys
import zlib
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage import checksums


class ChecksumTests(SynchronousTestCase):
    @given(data=st.binary(max_size=70_000), split=st.integers(0, 70_000))
    def test_a_checksum_is_that_of_zlib(self, data: bytes, split: int) -> None:
        self.assertEqual(checksums.crc32(data), zlib.crc32(data))
        with memoryview(data) as view:
            continued = checksums.crc32(view[split:], checksums.crc32(view[:split]))
        self.assertEqual(continued, zlib.crc32(data))

    def test_zlib_computes_it_where_isal_is_not_installed(self) -> None:
        self.addCleanup(importlib.reload, checksums)
        with patch.dict(sys.modules, {"isal": None, "isal.isal_zlib": None}):
            importlib.reload(checksums)
        self.assertIs(checksums.crc32, zlib.crc32)
