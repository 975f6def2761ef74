"""What a measurement yields: figures, faults and remarks; and the tables that show them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Counts in a generator's result that ought to be 0.
FAULTS = ("errors", "lost", "out_of_order", "doubled", "damaged")

#: Above this share of its core, the generator measures itself.
TOO_BUSY = 0.9


@dataclass(frozen=True)
class Figure:
    """
    One thing measured.

    :param label: its name in the tables, with the unit.
    :param target: what is aimed at, in words; never asserted. A ratio is of ours to the reference's.
    :param decimals: how many digits are shown after the point.
    """

    label: str
    target: str = ""
    decimals: int = 0


#: The figures by key, in the order of the tables. Change the targets here.
FIGURES: Mapping[str, Figure] = {
    "appends": Figure("appends per second", "ratio >= 1.5, aim 2"),
    "append_p50": Figure("append latency p50, us"),
    "append_p99": Figure("append latency p99, us", "ratio <= 1"),
    "append_cpu": Figure("server CPU an append, us", "ratio <= 0.5", 1),
    "reads": Figure("reads per second", "ratio >= 1.5, aim 2"),
    "read_p50": Figure("read latency p50, us"),
    "read_p99": Figure("read latency p99, us", "ratio <= 1"),
    "read_cpu": Figure("server CPU a read, us", "ratio <= 0.5", 1),
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
}


@dataclass
class Outcome:
    """
    What one measurement of one peer yields.

    :param figures: values by the key of their :class:`Figure`.
    :param faults: what was lost, out of order or in error, in words.
    :param remarks: what a reader of the figures should know.
    """

    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, result: Mapping[str, float]) -> None:
        """
        Takes over the faults of a generator's result.

        :param result: the result.
        """
        counted = [f"{result[name]:g} {name}" for name in FAULTS if result.get(name)]
        if counted:
            self.faults.append(", ".join(counted))

    def note_speed(self, result: Mapping[str, float]) -> None:
        """
        Takes over the faults, and whether the generator was too busy for its speed to be the server's.

        :param result: the result.
        """
        self.note(result)
        if result["busy"] > TOO_BUSY:
            busy = format(result["busy"], ".0%")
            self.remarks.append(f"the generator used {busy} of its core: the server may be faster")

    def add(self, other: "Outcome") -> None:
        """
        Adds what another measurement yields.

        :param other: the other.
        """
        self.figures.update(other.figures)
        self.faults += other.faults
        self.remarks += other.remarks


#: The outcomes of each peer, by its name, in the order of the rounds.
Rounds = Mapping[str, Sequence[Outcome]]


def median(outcomes: Sequence[Outcome], key: str) -> float | None:
    """
    The median of a figure over the rounds that have it.

    :param outcomes: the rounds of one peer.
    :param key: the figure.
    :returns: the median, or None when no round has it.
    """
    values = [outcome.figures[key] for outcome in outcomes if key in outcome.figures]
    return statistics.median(values) if values else None


def ratio(rounds: Rounds, key: str, subject: str, reference: str) -> float | None:
    """
    The ratio of two peers' medians.

    :param rounds: the outcomes.
    :param key: the figure.
    :param subject: the name of the peer above the line.
    :param reference: the name of the peer below it.
    :returns: the ratio, or None where it would mean nothing.
    """
    above = median(rounds.get(subject, ()), key)
    below = median(rounds.get(reference, ()), key)
    return above / below if above is not None and below is not None and above > 0 and below > 0 else None


def table(rounds: Rounds, subject: str, reference: str) -> str:
    """
    Renders the figures of all rounds, their medians, and the ratios of subject to reference.

    :param rounds: the outcomes.
    :param subject: the name of the peer whose ratios are shown.
    :param reference: the name of the peer that it is compared with.
    :returns: lines of text.
    """
    count = max((len(outcomes) for outcomes in rounds.values()), default=0)
    numbers = [f"round {number + 1}" for number in range(count)]
    heading = ["figure", "peer", *numbers, "median", "ratio", "target"]
    rows = [heading]
    for key, figure in FIGURES.items():
        label = figure.label
        for name, outcomes in rounds.items():
            middle = median(outcomes, key)
            if middle is None:
                continue
            values = [outcome.figures.get(key) for outcome in outcomes]
            share = ratio(rounds, key, subject, reference) if name == subject != reference else None
            rows.append(
                [
                    label,
                    name,
                    *("-" if value is None else f"{value:,.{figure.decimals}f}" for value in values),
                    *[""] * (count - len(values)),
                    f"{middle:,.{figure.decimals}f}",
                    "" if share is None else f"{share:.2f}",
                    figure.target if name == subject else "",
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
