"""
Benchmark of transfers between two data directories, with the peak memory of each process.

``export | import`` transfers a JSON document, ``backup | restore`` an archive.

It is a program of its own, since it compares no servers::

    python -m benchmarks.transfer --mib 1024 --mode file-durable --what archive
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from durable_streams.server import AcidStorage, FileSettings, FileStorage, IStorage, StreamService
from durable_streams.server.model import StorageLimits
from durable_streams.server.transfer import backup_streams, export_streams, import_streams, restore_streams

MEBIBYTE = 1024 * 1024

#: A limit that is not reached.
_PLENTY = StorageLimits(total_bytes=1 << 40, stream_bytes=1 << 40)

#: Bytes in one stream, and of one append when the streams are made.
_STREAM = 64 * MEBIBYTE
_APPEND = 65_536

#: A JSON message has about so many bytes; so has an append of a byte stream.
_MESSAGE = 1000


def _storage(mode: str, directory: str, reactor: Any, checkpoint: int) -> IStorage:
    if mode == "acid":
        return AcidStorage(directory, reactor, _PLENTY)
    settings = FileSettings(durable=mode == "file-durable", checkpoint_bytes=checkpoint * MEBIBYTE)
    return FileStorage(directory, reactor, _PLENTY, settings)


def _memory(field: str) -> float:
    """Return a field of ``/proc/self/status`` in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


async def _fill(service: StreamService, size: int, json_mode: bool) -> None:
    """Make streams of so many bytes together: of JSON messages, or of appends of bytes, of about 1 kB each."""
    rng = random.Random(1)
    words = [rng.randbytes(5).hex() for _ in range(1000)]
    for number in range(-(-size // _STREAM)):
        name = f"stream/{number:04}"
        await service.create(name, "application/json" if json_mode else "application/octet-stream")
        rest = min(_STREAM, size - number * _STREAM)
        waiting: list[Deferred[Any]] = []
        while rest > 0:
            if json_mode:
                text = " ".join(rng.choices(words, k=80))
                data = (
                    b"[" + b",".join([json.dumps({"id": rest, "text": text}).encode()] * (_APPEND // _MESSAGE)) + b"]"
                )
            else:
                data = rng.randbytes(_MESSAGE)
            waiting.append(service.append(name, data))
            rest -= len(data)
            if len(waiting) >= 128:
                for each in waiting:
                    await each
                waiting.clear()
        for each in waiting:
            await each


async def _role(reactor: Any, options: argparse.Namespace) -> None:
    """Do one part with a data directory, and print what it took on stderr."""
    service = StreamService(_storage(options.mode, options.directory, reactor, options.checkpoint_mib))
    service.startService()
    await service.when_open()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start, started, processor = _memory("VmRSS"), time.monotonic(), time.process_time()
    figures: dict[str, Any] = {}
    if options.role == "fill":
        await _fill(service, options.mib * MEBIBYTE, options.kind == "json")
    elif options.role == "export":
        exported = await export_streams(service, sys.stdout.buffer, directory=options.spool)
        figures = {"streams": exported.streams_exported, "messages": exported.messages_exported}
    elif options.role == "backup":
        totals = await backup_streams(service, sys.stdout.buffer)
        figures = {"streams": totals.streams, "messages": totals.appends}
    elif options.role == "restore":
        restored = await restore_streams(service, sys.stdin.buffer, on_conflict="fail", directory=options.spool)
        figures = {"streams": restored.streams_restored, "messages": restored.appends_restored}
    else:
        imported = await import_streams(service, sys.stdin.buffer, "fail", directory=options.spool)
        figures = {"streams": imported.streams_imported, "messages": imported.messages_imported}
    figures["seconds"] = time.monotonic() - started
    figures["processor"] = time.process_time() - processor
    figures["over_start"] = _memory("VmHWM") - start
    await service.stopService()
    print(json.dumps(figures), file=sys.stderr)


def _command(options: argparse.Namespace, role: str, directory: Path) -> list[str]:
    numbers = ["--mib", str(options.mib), "--checkpoint-mib", str(options.checkpoint_mib)]
    words = ["--mode", options.mode, "--kind", options.kind, "--spool", str(directory.parent)]
    return [
        sys.executable,
        "-m",
        "benchmarks.transfer",
        *numbers,
        *words,
        "--role",
        role,
        "--directory",
        str(directory),
    ]


def _figures(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    assert process.stderr is not None
    said = process.stderr.read().decode()
    if process.wait():
        raise SystemExit(f"a process failed:\n{said}")
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    return figures


def _measure(options: argparse.Namespace) -> None:
    first, second = ("backup", "restore") if options.what == "archive" else ("export", "import")
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        source, target = Path(work, "source"), Path(work, "target")
        subprocess.run(_command(options, "fill", source), check=True, stderr=subprocess.DEVNULL)
        started = time.monotonic()
        pipe = subprocess.PIPE
        with (
            subprocess.Popen(_command(options, first, source), stdout=pipe, stderr=pipe) as exporting,
            subprocess.Popen(_command(options, second, target), stdin=exporting.stdout, stderr=pipe) as importing,
        ):
            assert exporting.stdout is not None
            exporting.stdout.close()
            results = {first: _figures(exporting), second: _figures(importing)}
        whole = time.monotonic() - started
        shutil.rmtree(source)
    what = f"{options.what}, {options.mib} MiB, {options.kind}, {options.mode}"
    print(f"{what}: {whole:.1f} s, {options.mib / whole:.1f} MiB/s")
    unit = "appends" if options.what == "archive" else "messages"
    for name, figures in results.items():
        print(
            f"  {name}: {figures['streams']} streams, {figures['messages']} {unit}, {figures['seconds']:.1f} s, "
            f"{figures['processor']:.1f} s of processor time, peak {figures['over_start']:.1f} MiB over its start"
        )


def main() -> None:
    """Run the benchmark, or one of its processes."""
    parser = argparse.ArgumentParser(prog="benchmarks.transfer", description="transfers between two directories")
    parser.add_argument("--what", default="document", choices=("document", "archive"), help="what is transferred")
    parser.add_argument("--mib", type=int, default=1024, help="bytes of data, in MiB")
    parser.add_argument("--mode", default="file-durable", choices=("file-durable", "file-fast", "acid"))
    parser.add_argument("--kind", default="json", choices=("json", "bytes"), help="JSON messages, or appends of bytes")
    parser.add_argument("--checkpoint-mib", type=int, default=8, help="how much a file storage keeps in memory")
    parser.add_argument("--work", default=None, help="for the data directories and temporary files")
    for name in ("--role", "--directory", "--spool"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        react(lambda reactor: Deferred.fromCoroutine(_role(reactor, options)))
    else:
        _measure(options)


if __name__ == "__main__":
    main()
