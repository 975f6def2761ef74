"""Estimate what a server needs: ``python3 sizing.py --help``. ``docs/sizing.rst`` explains each line.

The constants are those of ``docs/storage.rst`` and ``benchmarks/README.rst``, for ``file-durable``, rounded up.
"""

from __future__ import annotations

import argparse

#: Bytes of memory: for the process itself, a stream, a following reader, and the recent bytes of the journal.
PROCESS = 64 << 20
STREAM = 2048
READER = 4096
RECENT = 2 * (64 << 20)

#: Bytes on disk: for each append, for each stream in a checkpoint (two of them while one is written), and the journal.
APPEND = 12
CHECKPOINT = 2 * 200
JOURNAL = 512 << 20
#: Streams of up to this size are in packs, which may take twice their bytes.
SMALL = 64 << 10

#: Microseconds of one core: for a synced append, and for one event to one reader.
APPEND_TIME = 60
EVENT_TIME = 10
#: The part of the core that should stay free for peaks, catch-up reads and checkpoints.
FREE = 0.5

#: Bytes of metadata: a content type, and an idempotent producer with its id.
TYPE = 32
PRODUCER = 300


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Estimate what a server needs.")
    parser.add_argument("--streams", type=int, required=True, help="streams that exist at the same time")
    parser.add_argument("--appends", type=int, required=True, help="appends to a stream, in its whole life")
    parser.add_argument("--bytes", type=int, required=True, help="bytes of an append")
    parser.add_argument("--rate", type=int, required=True, help="appends a second, to all streams, at the peak")
    parser.add_argument("--readers", type=int, required=True, help="readers that follow at the same time")
    parser.add_argument("--fan-out", type=float, default=1.0, help="readers of a stream that is written, on average")
    parser.add_argument("--name-bytes", type=int, default=64, help="bytes of a name")
    return parser.parse_args()


def shown(size: float) -> str:
    """Write a size."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"


def main() -> None:
    """Print the estimate."""
    needs = arguments()
    stream = needs.appends * needs.bytes
    data = needs.streams * stream
    metadata = needs.streams * (needs.name_bytes + TYPE + PRODUCER)
    memory = PROCESS + RECENT + needs.streams * STREAM + metadata + needs.readers * READER
    packed = 2 if stream <= SMALL else 1
    disk = packed * data + needs.streams * (needs.appends * APPEND + CHECKPOINT) + 2 * metadata + JOURNAL
    busy = needs.rate * (APPEND_TIME + needs.fan_out * EVENT_TIME) / 1e6
    print(f"one core is busy for   {busy:.0%} of the time" + ("" if busy <= FREE else ": too much"))
    print(f"memory                 {shown(memory)}")
    print(f"disk                   {shown(disk)}")
    print(f"open files             {needs.readers + 500}")
    print(f"limits.max_total_bytes       = {round(data * 1.25)}")
    print(f"limits.max_stream_bytes      = {max(10_485_760, 2 * stream)}")
    print(f"limits.max_streams           = {round(needs.streams * 1.25)}")
    print(f"limits.max_metadata_bytes    = {max(268_435_456, 2 * metadata)}")
    print(f"limits.max_connections       = {round(needs.readers * 1.25) + 250}")


if __name__ == "__main__":
    main()
