"""Results of measurements (figures, faults and remarks) and the tables that show them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Counts in a generator's result that must be 0.
FAULTS = ("errors", "lost", "out_of_order", "doubled", "damaged")

#: Above this share of its core, the generator is the bottleneck.
TOO_BUSY = 0.9


@dataclass(frozen=True)
class Figure:
    """
    A measured quantity, as a row of the tables.

    :param label: its name in the tables, with the unit. A ``{}`` in it stands for the number in the figure's key.
    :param target: what is aimed at, in words; never asserted. A ratio is of ours to the reference's.
    :param decimals: how many digits are shown after the point.
    :param targets: the same as the target, of one peer, by its name.
    """

    label: str
    target: str = ""
    decimals: int = 0
    targets: Mapping[str, str] = field(default_factory=dict)


#: The figures by key, in the order of the tables. Change the targets here. A figure measured for several numbers, of
#: streams for example, has the number after its key: ``scale_appends:1000``.
FIGURES: Mapping[str, Figure] = {
    "writers": Figure("writers: appends per second", ">= 1.2 to ported, 2.3 to node, 0.5 to electric, aim 0.6"),
    "writer_p50": Figure("writers: append latency p50, us"),
    "writer_p99": Figure("writers: append latency p99, us"),
    "writer_cpu": Figure("writers: server CPU an append, us", "", 1),
    "durable_writers": Figure("durable writers: appends per second", ">= 4 to ported, 0.5 to electric, aim 0.7"),
    "durable_writer_p50": Figure("durable writers: append latency p50, us"),
    "durable_writer_p99": Figure("durable writers: append latency p99, us"),
    "durable_writer_cpu": Figure("durable writers: server CPU an append, us", "", 1),
    "appends": Figure("appends per second", "ratio >= 1.5, aim 2", targets={"observed": "ratio >= 0.9, aim 0.97"}),
    "append_p50": Figure("append latency p50, us"),
    "append_p99": Figure("append latency p99, us", "ratio <= 1"),
    "append_cpu": Figure("server CPU an append, us", "ratio <= 0.5", 1, {"observed": "ratio <= 1.1, aim 1.03"}),
    "reads": Figure("reads per second", ">= 1.5 to node, 1 to electric"),
    "read_p50": Figure("read latency p50, us"),
    "read_p99": Figure("read latency p99, us", "ratio <= 1"),
    "read_cpu": Figure("server CPU a read, us", "ratio <= 0.5", 1),
    "repeats": Figure("same reads per second", "ratio >= 1.5, aim 2", targets={"observed": "ratio >= 0.9, aim 0.97"}),
    "repeat_p50": Figure("same reads: latency p50, us"),
    "repeat_p99": Figure("same reads: latency p99, us", "ratio <= 1"),
    "repeat_cpu": Figure(
        "same reads: server CPU a read, us", "ratio <= 0.5", 1, {"observed": "ratio <= 1.1, aim 1.03"}
    ),
    "tail_p50": Figure("append to tail p50, us", "ratio <= 1"),
    "tail_p99": Figure("append to tail p99, us", "ratio <= 0.33"),
    "tail_max": Figure("append to tail max, us"),
    "deliveries": Figure("fan-out: deliveries per second", "ratio >= 6, aim 20"),
    "fanout_appends": Figure("fan-out: appends per second"),
    "fanout_p99": Figure("fan-out: append to tail p99, us"),
    "baseline": Figure("resident when started, MiB", "", 1),
    "idle_tail": Figure("resident for an idle tail, KiB", "<= 10", 2),
    "empty_stream": Figure("resident for an empty stream, bytes", "<= 2048"),
    "stall_small": Figure("stalled readers, small appends: MiB over data", "<= 64", 1),
    "stall_small_end": Figure("  the same, until they have caught up", "<= 64", 1),
    "stall_large": Figure("stalled readers, large appends: MiB over data", "<= 64", 1),
    "stall_large_end": Figure("  the same, until they have caught up", "<= 64", 1),
    "durables": Figure(
        "durable appends per second",
        targets={
            "file-durable": ">= 5 to ported; >= 0.7 to electric, aim 1",
            "acid": ">= 2 to ported",
            "postgres": ">= 8,000; >= 0.4 to file-durable",
        },
    ),
    "durable_p50": Figure("durable append latency p50, us"),
    "durable_p99": Figure("durable append latency p99, us", targets={"postgres": "<= 15,000"}),
    "durable_cpu": Figure("server CPU a durable append, us", "", 1),
    "database_cpu": Figure("database CPU an append, us", "", 1),
    **{
        f"{name}_tail_{quantile}": Figure(f"{label} {quantile}, us", target)
        for name, label in (("node", "append to tail of the same node"), ("cross", "append to tail of another node"))
        for quantile, target in (("p50", "<= 8,000" if name == "cross" else ""), ("p99", ""), ("max", ""))
    },
    **{
        f"{name}_{streams}{suffix}": Figure(f"{{}} {name}, {words}: {label}", "", decimals)
        for name in ("nodes", "workers")
        for streams, words in (("own", "streams of one writer each"), ("shared", "all streams by all"))
        for suffix, label, decimals in (
            ("", "appends per second", 0),
            ("_p50", "latency p50, us", 0),
            ("_p99", "latency p99, us", 0),
            ("_cpu", "CPU of the nodes an append, us", 1),
            ("_database_cpu", "CPU of the database an append, us", 1),
        )
    },
    "secure_http1": Figure("appends per second, HTTP/1.1", "aim 0.4"),
    "secure_http1_cpu": Figure("  server CPU an append, us", "", 1),
    "secure_http2": Figure("appends per second, HTTP/2"),
    "secure_http2_cpu": Figure("  server CPU an append, us", "", 1),
    "http2_appends": Figure("HTTP/2: appends per second", ">= 0.35 to ported"),
    "http2_appends_cpu": Figure("  server CPU an append, us", "", 1),
    "http2_reads": Figure("HTTP/2: reads of the tail per second", ">= 0.35 to ported"),
    "http2_reads_cpu": Figure("  server CPU a read, us", "", 1),
    "replay": Figure("replay just written, MiB/s, connections: {}"),
    "replay_cpu": Figure("  server CPU a MiB, us, connections: {}"),
    "replay_kept": Figure("replay after a restart, MiB/s, connections: {}"),
    "replay_kept_cpu": Figure("  server CPU a MiB, us, connections: {}"),
    "scale_creates": Figure("{} streams: creates per second"),
    "scale_fills": Figure("{} streams: first appends per second"),
    "scale_resident": Figure("{} streams: resident for one, bytes"),
    "scale_reads": Figure("{} streams: reads per second"),
    "scale_appends": Figure("{} streams: appends per second"),
    "scale_p99": Figure("{} streams: append latency p99, us"),
    "scale_restart": Figure("{} streams: ready again after a kill, s", "", 2),
    "sweep_before_p50": Figure("append latency before, p50, us"),
    "sweep_before_p99": Figure("append latency before, p99, us"),
    "sweep_before_max": Figure("append latency before, max, us"),
    "sweep_create_p50": Figure("append latency beside creates, p50, us"),
    "sweep_create_p99": Figure("append latency beside creates, p99, us"),
    "sweep_create_max": Figure("append latency beside creates, max, us"),
    "sweep_expire_p50": Figure("append latency beside the sweep, p50, us"),
    "sweep_expire_p99": Figure("append latency beside the sweep, p99, us"),
    "sweep_expire_max": Figure("append latency beside the sweep, max, us"),
    **{
        f"overload_{flood}_{name}": Figure(f"{words}: {label}", target, decimals)
        for flood, words in (("small", "flood of small reads"), ("replay", "flood of catch-up reads"))
        for name, label, target, decimals in (
            ("alone", "appends per second before", "", 0),
            ("flooded", "appends per second", "", 0),
            ("share", "share of appends that is left", ">= 0.33, aim 0.5", 2),
            ("alone_p99", "append latency p99 before, us", "", 0),
            ("flooded_p99", "append latency p99, us", "", 0),
            ("flooded_max", "append latency max, us", "", 0),
            ("reads", "reads per second", "", 0),
            ("memory", "peak over resident before, MiB", "", 1),
        )
    },
}


def _order(key: str) -> tuple[int, int]:
    """Return the sort key of a figure in a table, with or without a number."""
    name, _, number = key.partition(":")
    return list(FIGURES).index(name), int(number or 0)


@dataclass
class Outcome:
    """
    The result of one measurement of one peer.

    :param figures: values by the key of their :class:`Figure`.
    :param faults: what was lost, out of order or in error, in words.
    :param remarks: what a reader of the figures should know.
    """

    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, result: Mapping[str, float]) -> None:
        """
        Add the faults of a generator's result.

        :param result: the result.
        """
        counted = [f"{result[name]:g} {name}" for name in FAULTS if result.get(name)]
        if counted:
            self.faults.append(", ".join(counted))

    def note_speed(self, result: Mapping[str, float]) -> None:
        """
        Add the faults of a generator's result, and a remark if the generator was the bottleneck.

        :param result: the result.
        """
        self.note(result)
        if result["busy"] > TOO_BUSY:
            busy = format(result["busy"], ".0%")
            self.remarks.append(f"the generator used {busy} of its core: the server may be faster")

    def add(self, other: "Outcome") -> None:
        """
        Add the result of another measurement.

        :param other: the other.
        """
        self.figures.update(other.figures)
        self.faults += other.faults
        self.remarks += other.remarks


#: The outcomes of each peer, by its name, in the order of the rounds.
Rounds = Mapping[str, Sequence[Outcome]]


def median(outcomes: Sequence[Outcome], key: str) -> float | None:
    """
    Return the median of a figure over the rounds that have it.

    :param outcomes: the rounds of one peer.
    :param key: the figure.
    :returns: the median, or None when no round has it.
    """
    values = [outcome.figures[key] for outcome in outcomes if key in outcome.figures]
    return statistics.median(values) if values else None


def ratio(rounds: Rounds, key: str, subject: str, reference: str) -> float | None:
    """
    Return the ratio of two peers' medians.

    :param rounds: the outcomes.
    :param key: the figure.
    :param subject: the name of the peer above the line.
    :param reference: the name of the peer below it.
    :returns: the ratio, or None where it would mean nothing.
    """
    above = median(rounds.get(subject, ()), key)
    below = median(rounds.get(reference, ()), key)
    return above / below if above is not None and below is not None and above > 0 and below > 0 else None


def table(rounds: Rounds, subjects: Sequence[str], references: Sequence[str]) -> str:
    """
    Render the figures of all rounds, their medians, and the ratios of each subject to each reference.

    :param rounds: the outcomes.
    :param subjects: the names of the peers whose ratios are shown.
    :param references: the names of the peers that they are compared with; those that were not measured are left out.
    :returns: lines of text.
    """
    count = max((len(outcomes) for outcomes in rounds.values()), default=0)
    numbers = [f"round {number + 1}" for number in range(count)]
    references = [name for name in references if name in rounds]
    heading = ["figure", "peer", *numbers, "median", *(f"to {name}" for name in references), "target"]
    rows = [heading]
    keys = {key for outcomes in rounds.values() for outcome in outcomes for key in outcome.figures}
    for key in sorted(keys, key=_order):
        name, _, number = key.partition(":")
        figure = FIGURES[name]
        label = figure.label.format(f"{int(number or 0):,}")
        for peer, outcomes in rounds.items():
            middle = median(outcomes, key)
            if middle is None:
                continue
            values = [outcome.figures.get(key) for outcome in outcomes]
            shares = [
                ratio(rounds, key, peer, reference) if peer in subjects and peer != reference else None
                for reference in references
            ]
            rows.append(
                [
                    label,
                    peer,
                    *("-" if value is None else f"{value:,.{figure.decimals}f}" for value in values),
                    *[""] * (count - len(values)),
                    f"{middle:,.{figure.decimals}f}",
                    *("" if share is None else f"{share:.2f}" for share in shares),
                    figure.targets.get(peer, figure.target) if peer in subjects else "",
                ]
            )
            label = ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
    texts = {0, 1, len(heading) - 1}
    lines = [
        "  ".join(
            cell.ljust(width) if column in texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
