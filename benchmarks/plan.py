"""The benchmarks: their measurements, peers and parameters."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from benchmarks import memory, nodes, speed
from benchmarks.durable import CONTENT_TYPE, durable, durable_writers
from benchmarks.figures import Outcome
from benchmarks.generator import Generator
from benchmarks.memory import KIBIBYTE, Crowd
from benchmarks.overload import FLOODS, Throng, overload
from benchmarks.peers import MEBIBYTE
from benchmarks.replay import History, replay
from benchmarks.scale import OPEN_FILES, scale, steps
from benchmarks.secure import http2, secure
from benchmarks.servers import Server
from benchmarks.speed import Load
from benchmarks.sweep import Mortals, sweep

#: A measurement of a server that was started for it.
Measurement = Callable[[Server, Generator], Outcome]


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark.

    :param peers: who is measured, unless the command line says otherwise.
    :param measurements: what is measured, given the command line's options; each with a fresh server.
    :param open_files: how many descriptors the server may have, or None for as many as the benchmarks.
    """

    peers: tuple[str, ...]
    measurements: Callable[[argparse.Namespace], list[Measurement]]
    open_files: int | None = None


def _load(options: argparse.Namespace) -> Load:
    return Load(
        seconds=options.seconds,
        warmup=options.warmup,
        connections=options.connections,
        streams=options.streams,
        size=options.bytes,
        sizes=(12, 200),
        headers="browser",
        content_type=options.content_type,
        tails=options.tails,
        fanout_tails=options.fanout_tails,
        rate=options.rate,
    )


def _storage_load(options: argparse.Namespace) -> Load:
    return replace(
        _load(options),
        connections=options.storage_connections,
        streams=options.storage_streams,
        size=options.storage_bytes,
        sizes=(12, 512),
        headers="client",
        content_type=CONTENT_TYPE,
    )


def _speed(name: str, options: argparse.Namespace) -> list[Measurement]:
    return [partial(getattr(speed, name), load=_load(options))]


def _observed(options: argparse.Namespace) -> list[Measurement]:
    return [partial(speed.appends, load=_load(options)), partial(speed.repeats, load=_load(options))]


def _memory(options: argparse.Namespace) -> list[Measurement]:
    crowd = Crowd(
        idle_tails=options.idle_tails,
        empty_streams=options.empty_streams,
        stalled_tails=options.stalled_tails,
        stalled_data=options.stalled_mib * MEBIBYTE,
    )
    load = _load(options)
    return [
        partial(memory.idle_tails, load=load, crowd=crowd),
        partial(memory.empty_streams, load=load, crowd=crowd),
        *(partial(memory.stalled_tails, load=load, crowd=crowd, figure=figure) for figure in memory.STALL_SIZES),
    ]


def _durable(options: argparse.Namespace) -> list[Measurement]:
    return [partial(durable, load=_storage_load(options))]


def _durable_writers(options: argparse.Namespace) -> list[Measurement]:
    return [partial(durable_writers, load=_storage_load(options))]


def _replay(options: argparse.Namespace) -> list[Measurement]:
    history = History(
        size=options.replay_mib * MEBIBYTE,
        piece=64 * KIBIBYTE,
        connections=(1, options.replay_connections),
        written=options.data != "kept",
        kept=options.data != "written",
    )
    return [partial(replay, load=_storage_load(options), history=history)]


def _nodes(options: argparse.Namespace) -> list[Measurement]:
    return [partial(nodes.delivery, load=_load(options)), partial(nodes.throughput, load=_storage_load(options))]


def _scale(options: argparse.Namespace) -> list[Measurement]:
    return [partial(scale, load=_storage_load(options), count=count) for count in steps(options.scale_to)]


def _tls(options: argparse.Namespace) -> list[Measurement]:
    return [partial(secure, load=_load(options))]


def _http2(options: argparse.Namespace) -> list[Measurement]:
    return [partial(http2, load=_load(options))]


def _sweep(options: argparse.Namespace) -> list[Measurement]:
    mortals = Mortals(
        streams=options.sweep_streams,
        lifetime=options.sweep_ttl,
        removal=options.sweep_seconds,
    )
    return [partial(sweep, load=_storage_load(options), mortals=mortals)]


def _overload(options: argparse.Namespace) -> list[Measurement]:
    throng = Throng(
        idle=options.idle_connections,
        waiting=options.waiting_connections,
        readers=options.flood_readers,
    )
    load = _storage_load(options)
    return [partial(overload, load=load, throng=throng, flood=flood) for flood in FLOODS]


_BESIDE_NODE = ("ours", "node")
_BESIDE_ALL = ("ours", "node", "ported-memory", "electric-memory")

#: The benchmarks by name.
BENCHMARKS: Mapping[str, Benchmark] = {
    "writers": Benchmark(_BESIDE_ALL, partial(_speed, "writers")),
    "durable-writers": Benchmark(("file-durable", "acid", "postgres", "ported", "electric"), _durable_writers),
    "reads": Benchmark(_BESIDE_ALL, partial(_speed, "reads")),
    **{name: Benchmark(_BESIDE_NODE, partial(_speed, name)) for name in ("tails", "fanout", "appends", "repeats")},
    "observed": Benchmark(("observed", "silent"), _observed),
    "memory": Benchmark(_BESIDE_NODE, _memory),
    "durable": Benchmark(("file-durable", "file-fast", "acid", "postgres", "ported", "electric"), _durable),
    "replay": Benchmark(("file-durable", "acid", "postgres", "memory", "node", "ported", "electric"), _replay),
    "nodes": Benchmark(("postgres",), _nodes),
    "scale": Benchmark(("file-durable", "acid", "ported", "electric"), _scale, OPEN_FILES),
    "http2": Benchmark(("tls", "ported-tls"), _http2),
    "tls": Benchmark(("plain", "tls"), _tls),
    "sweep": Benchmark(("file-durable", "acid", "memory"), _sweep),
    "overload": Benchmark(("memory", "file-durable"), _overload),
}
