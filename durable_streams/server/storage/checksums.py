"""CRC-32 as zlib computes it, by ISA-L where that is installed.

ISA-L takes a third of zlib's time for 256 bytes and a ninth for 64 KiB (67 GB/s against 7 on one core), so that to
verify what is read costs less than to copy it.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:  # pragma: no cover - there are no wheels for this machine
    from zlib import crc32

__all__ = ["crc32"]
