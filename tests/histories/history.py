"""What clients asked and what was answered, and the check of it against what all nodes serve at the end."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

#: How late a tail may receive what is committed, in seconds. Without any message of the other node it is a second; the
#: rest is for a busy machine, and less than a long-poll waits.
LATENESS: Final = 8.0

_TOKEN: Final = re.compile(rb"[a-z0-9.-]+\+*;")


class Outcome(Enum):
    """The outcome of a request: done, certainly not done, or not known, because no answer came."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Place:
    """A position in one incarnation of a stream: an offset."""

    incarnation: int
    position: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place of an offset."""
        incarnation, _, position = text.partition("_")
        return cls(int(incarnation), int(position))


@dataclass(frozen=True)
class Appending:
    """
    One append, which may have been sent several times if it has a writer.

    :ivar token: its bytes, unlike those of any other.
    :ivar place: the offset that was answered; None if there was none, or it was that of a duplicate: the tail.
    :ivar writer: the id of the idempotent writer and its sequence number, or None.
    :ivar sequence: Stream-Seq, or None.
    """

    stream: str
    token: bytes
    outcome: Outcome
    place: Place | None
    invoked: float
    completed: float
    writer: tuple[str, int] | None = None
    sequence: int | None = None


@dataclass(frozen=True)
class Ending:
    """A close or a deletion."""

    stream: str
    kind: str
    outcome: Outcome
    place: Place | None
    invoked: float
    completed: float


@dataclass(frozen=True)
class Reading:
    """A read of a whole stream. ``content`` is None if there was none."""

    stream: str
    incarnation: int
    content: bytes | None
    invoked: float
    completed: float


@dataclass(frozen=True)
class Arrival:
    """
    What a tail of a stream received.

    :ivar position: the position after the last byte that it has.
    :ivar closed: whether it was told that the stream is closed.
    """

    stream: str
    position: int
    closed: bool
    at: float


@dataclass(frozen=True)
class Forking:
    """A fork that was created."""

    stream: str
    source: str
    place: Place


@dataclass(frozen=True)
class Served:
    """What one node serves of a stream at the end; None for a stream that it does not have."""

    incarnation: int
    content: bytes
    closed: bool


@dataclass
class History:
    """All that the clients of one round know. Its methods may be called in any thread."""

    appends: list[Appending] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    forks: list[Forking] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, event: Appending | Ending | Reading | Forking | Arrival) -> None:
        """Record an event."""
        with self.lock:
            if isinstance(event, Appending):
                self.appends.append(event)
            elif isinstance(event, Ending):
                self.endings.append(event)
            elif isinstance(event, Reading):
                self.readings.append(event)
            elif isinstance(event, Arrival):
                self.arrivals.append(event)
            else:
                self.forks.append(event)


def problems_of(history: History, served: Iterable[Mapping[str, Served | None]], healed_at: float = 0.0) -> list[str]:
    """
    Return what is wrong: a sentence for each contradiction between the answers and what the nodes serve.

    :param served: for each node, all streams that were ever named.
    :param healed_at: when the last fault was over: from then on tails receive everything in time.
    """
    nodes = list(served)
    problems: list[str] = []
    for name in nodes[0]:
        versions = {node[name] for node in nodes}
        if len(versions) > 1:
            problems.append(f"{name}: the nodes serve different streams: {versions}")
            continue
        checker = _StreamCheck(history, name, nodes[0])
        checker.check()
        problems += [f"{name}: {problem}" for problem in checker.problems]
    return problems + [problem for _, problem in late_arrivals(history, healed_at)][:5]


def late_arrivals(history: History, healed_at: float) -> Iterator[tuple[bool, str]]:
    """
    Yield what tails have received too late, or not at all: whether they have received it, and a sentence.

    :param healed_at: when the last fault was over: from then on tails receive everything in time.
    """
    for name in {arrival.stream for arrival in history.arrivals}:
        arrivals = sorted((each for each in history.arrivals if each.stream == name), key=lambda each: each.at)
        positions = [arrival.position for arrival in arrivals]
        awaited = [
            (each.completed, bisect_left(positions, each.place.position), repr(each.token[:40]))
            for each in history.appends
            if each.stream == name and each.outcome is Outcome.DONE and each.place is not None
        ]
        closed = next((index for index, arrival in enumerate(arrivals) if arrival.closed), len(arrivals))
        awaited += [
            (each.completed, closed, "the close")
            for each in history.endings
            if each.stream == name and each.kind == "close" and each.outcome is Outcome.DONE
        ]
        for completed, index, what in awaited:
            if index == len(arrivals):
                yield False, f"{name}: a tail did not receive {what}"
            elif arrivals[index].at > max(completed, healed_at) + LATENESS:
                yield True, f"{name}: a tail received {what} {arrivals[index].at - completed:.1f} s late"


class _StreamCheck:
    """The check of one stream."""

    def __init__(self, history: History, name: str, served: Mapping[str, Served | None]) -> None:
        self.problems: list[str] = []
        self._served = served
        self._final = served[name]
        self._appends = [each for each in history.appends if each.stream == name]
        self._closes = [each for each in history.endings if each.stream == name and each.kind == "close"]
        self._deletes = [each for each in history.endings if each.stream == name and each.kind == "delete"]
        self._readings = [each for each in history.readings if each.stream == name]
        self._fork = next((each for each in history.forks if each.stream == name), None)

    def check(self) -> None:
        """Check all."""
        ends = self._tokens()
        self._check_acknowledged(ends)
        self._check_order(ends)
        self._check_writers(ends)
        self._check_sequences(ends)
        self._check_close()
        self._check_reads()

    def _say(self, problem: str) -> None:
        self.problems.append(problem)

    def _tokens(self) -> dict[bytes, int]:
        """Return where each token of the final content ends; check that there is nothing else, and no token twice."""
        final = self._final
        ends: dict[bytes, int] = {}
        if final is None:
            return ends
        position = 0
        if self._fork is not None:
            source = self._served[self._fork.source]
            position = self._fork.place.position
            if source is None or source.content[:position] != final.content[:position]:
                self._say(f"the bytes of its source up to {position} differ")
        attempted = {each.token: each for each in self._appends}
        while position < len(final.content):
            match = _TOKEN.match(final.content, position)
            if match is None:
                self._say(f"torn at {position}: {final.content[position : position + 40]!r}")
                break
            token, position = match[0], match.end()
            if token in ends:
                self._say(f"doubled: {token[:40]!r}")
            ends[token] = position
            append = attempted.get(token)
            if append is None:
                self._say(f"nobody appended {token[:40]!r}")
            elif append.outcome is Outcome.REFUSED:
                self._say(f"refused, and there: {token[:40]!r}")
        return ends

    def _check_acknowledged(self, ends: Mapping[bytes, int]) -> None:
        final = self._final
        for each in self._appends:
            if each.outcome is not Outcome.DONE:
                continue
            if each.place is None:
                if each.token not in ends:
                    self._say(f"lost: {each.token[:40]!r}, acknowledged as a duplicate")
            elif final is None or each.place.incarnation < final.incarnation:
                if not self._deletes:
                    self._say(f"lost with its stream: {each.token[:40]!r}")
            elif each.place.incarnation > final.incarnation:
                self._say(f"brought back: an earlier stream of the name serves instead of {each.place}")
            elif each.token not in ends:
                self._say(f"lost: {each.token[:40]!r}, acknowledged up to {each.place.position}")
            elif ends[each.token] != each.place.position:
                self._say(f"moved: {each.token[:40]!r} ends at {ends[each.token]}, answered {each.place.position}")
        for deletion in self._deletes:
            before = [
                each.place.incarnation
                for each in self._appends
                if each.outcome is Outcome.DONE and each.place is not None and each.completed < deletion.invoked
            ]
            brought_back = final is not None and final.incarnation <= max(before, default=0)
            if deletion.outcome is Outcome.DONE and brought_back:
                self._say("brought back after its deletion")

    def _check_order(self, ends: Mapping[bytes, int]) -> None:
        """Check that an append that was answered before another one was sent comes before it."""
        done = sorted((each for each in self._appends if each.token in ends), key=lambda each: each.invoked)
        finished = sorted((each for each in done if each.outcome is Outcome.DONE), key=lambda each: each.completed)
        highest, index = 0, 0
        for each in done:
            while index < len(finished) and finished[index].completed < each.invoked:
                highest = max(highest, ends[finished[index].token])
                index += 1
            if ends[each.token] <= highest and each.token != finished[index - 1].token:
                self._say(f"out of order: {each.token[:40]!r} before an append that was answered earlier")

    def _check_writers(self, ends: Mapping[bytes, int]) -> None:
        """Check that each writer's appends are there in order and without a gap."""
        writers: dict[str, dict[int, int]] = defaultdict(dict)
        for each in self._appends:
            if each.writer is not None and each.token in ends:
                writers[each.writer[0]][each.writer[1]] = ends[each.token]
        for writer, found in writers.items():
            numbers = sorted(found)
            if numbers != list(range(len(numbers))):
                self._say(f"the writer {writer} has gaps: {numbers}")
            if sorted(found.values()) != [found[number] for number in numbers]:
                self._say(f"the appends of the writer {writer} are out of order")

    def _check_sequences(self, ends: Mapping[bytes, int]) -> None:
        found = [(ends[each.token], each.sequence) for each in self._appends if each.sequence and each.token in ends]
        sequences = [sequence for _, sequence in sorted(found)]
        if sequences != sorted(set(sequences)):
            self._say(f"Stream-Seq does not ascend: {sequences}")

    def _check_close(self) -> None:
        final = self._final
        done = [each for each in self._closes if each.outcome is Outcome.DONE]
        if done and (final is None or not final.closed):
            self._say("it was closed, and is open")
        if final is not None and final.closed and all(each.outcome is Outcome.REFUSED for each in self._closes):
            self._say("nobody has closed it, and it is closed")
        for close in done:
            if final is not None and close.place is not None and close.place.position != len(final.content):
                self._say(f"it was closed at {close.place.position}, and ends at {len(final.content)}")
            if any(each.outcome is Outcome.DONE and each.invoked > close.completed for each in self._appends):
                self._say("an append after the close was acknowledged")

    def _check_reads(self) -> None:
        """Check that each read was a beginning of the stream, with all that was acknowledged before it."""
        final = self._final
        for reading in self._readings:
            if reading.content is None:
                if not self._deletes:
                    self._say("a reader did not find it")
                continue
            is_same = final is not None and reading.incarnation == final.incarnation
            if final is not None and is_same and not final.content.startswith(reading.content):
                self._say(f"a reader got bytes that are not there: {len(reading.content)}")
            known = max(
                (
                    each.place.position
                    for each in self._appends
                    if each.place is not None
                    and each.outcome is Outcome.DONE
                    and each.place.incarnation == reading.incarnation
                    and each.completed < reading.invoked
                ),
                default=0,
            )
            if len(reading.content) < known:
                self._say(f"a reader got {len(reading.content)} bytes after {known} were acknowledged")
