"""The accepted operations of a storage, in order, and the streams after each of them.

It is written without a look at how the storage does it, and kept small: what refuses an operation, and what one leaves.
"""

from __future__ import annotations

from bisect import bisect_right
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

from durable_streams.server.errors import (
    ContentTypeMismatch,
    ForkFromDeleted,
    InvalidJson,
    InvalidRequest,
    PathBlocked,
    ReplacementHasForks,
    SequenceConflict,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
    ValuesChanged,
    WriterFenced,
    WriterGap,
)
from durable_streams.server.model import (
    FOREVER,
    Append,
    Fork,
    Lifetime,
    StreamConfig,
    StreamFacts,
    StreamRestoration,
    Writer,
)

JSON = "application/json"

#: How many writers a stream remembers.
WRITERS = 2


@dataclass(eq=False)
class Request:
    """
    Something that a client asks for, once.

    :ivar ends: of a write to a JSON stream, where its messages end.
    :ivar puts: the values to be written by key, and in ``wanted`` those that must be there.
    :ivar staged: the stream that is installed under the name.
    :ivar lsn: after it is told, the number of the last change that it rests on.
    """

    number: int
    kind: Literal["create", "append", "delete", "sweep", "install", "values"]
    name: str
    now: float
    config: StreamConfig = field(default_factory=StreamConfig)
    body: bytes = b""
    data: bytes = b""
    ends: tuple[int, ...] = ()
    append: Append | None = None
    staged: str = ""
    restoration: StreamRestoration | None = None
    replace: bool = False
    puts: dict[str, bytes | None] = field(default_factory=dict)
    wanted: dict[str, bytes | None] = field(default_factory=dict)
    expected: object = None
    lsn: int = 0
    taken: bool = False

    def first(self, json: bool) -> tuple[bytes, tuple[int, ...]]:
        """
        Return the initial bytes of a creation for the content type that the stream has.

        :raises InvalidJson: it is JSON now.
        """
        if bool(self.ends) == json or not self.body:
            return self.data, self.ends
        if json:
            raise InvalidJson
        return self.body, ()

    def again(self, number: int, now: float) -> Request:
        """Make the same request another time."""
        other = copy(self)
        other.config, other.append, other.restoration = copy(self.config), copy(self.append), copy(self.restoration)
        other.puts = copy(self.puts)
        other.number, other.now, other.expected, other.lsn, other.taken = number, now, None, 0, False
        return other

    def __str__(self) -> str:
        what: object = ""
        if self.kind == "create":
            what = f"{self.config} {len(self.data)} bytes"
        elif self.kind == "install":
            what = f"from {self.staged} {self.restoration} {'replace' if self.replace else ''}"
        elif self.kind == "values":
            puts = {key: value and len(value) for key, value in self.puts.items()}
            what = f"{puts} of {self.number}, if {list(self.wanted)}"
        elif self.append is not None:
            one = self.append
            what = (
                f"{len(one.data)} bytes{' close' if one.close else ''} {(one.sequence or b'').decode()} "
                f"{'' if one.writer is None else (one.writer.id, one.writer.epoch, one.writer.seq)}"
            )
        return f"#{self.number} {self.kind} {self.name} {what}"


@dataclass(eq=False)
class Account:
    """
    One stream.

    :ivar ends: where its appends end, those that it has from its source too.
    :ivar marks: where its messages end, if it is JSON.
    :ivar lsn: of the last change.
    """

    facts: StreamFacts
    config: StreamConfig
    lifetime: Lifetime
    source: Account | None
    base: int
    data: bytes
    ends: list[int]
    marks: list[int]
    made: float
    updated: float
    lsn: int
    closed: bool
    hidden: bool = False
    sequence: bytes | None = None
    writers: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        return len(self.data)

    @property
    def own(self) -> int:
        return self.tail - self.base

    def extend(self, data: bytes, ends: tuple[int, ...]) -> None:
        if data:
            self.marks += [self.tail + end for end in ends]
            self.data += data
            self.ends.append(self.tail)

    def start_of(self, position: int) -> int:
        """Return the start of the append that contains a position; the position itself if it is an end."""
        if position >= self.tail:
            return self.tail
        index = bisect_right(self.ends, position)
        return self.ends[index - 1] if index else 0

    def fork_point(self, fork: Fork) -> int:
        """Return the position at which a fork diverges from this stream."""
        anchor = self.tail
        if fork.offset is not None:
            if fork.offset.incarnation != self.facts.incarnation:
                raise InvalidRequest
            anchor = fork.offset.position
        if anchor > self.tail or (anchor == self.tail and fork.sub_offset):
            raise InvalidRequest
        if anchor == self.tail:
            return anchor
        start = self.start_of(anchor)
        end = self.ends[bisect_right(self.ends, anchor)]
        if not self.facts.json:
            if anchor + fork.sub_offset > end:
                raise InvalidRequest
            return anchor + fork.sub_offset
        edges = [start, *(mark for mark in self.marks if start < mark <= end)]
        if anchor not in edges or edges.index(anchor) + fork.sub_offset >= len(edges):
            raise InvalidRequest
        return edges[edges.index(anchor) + fork.sub_offset]


@dataclass
class CreateEvent:
    """The creation of a stream."""

    lsn: int
    request: Request
    facts: StreamFacts


@dataclass
class AppendEvent:
    """An append to a stream, or a close."""

    lsn: int
    request: Request


@dataclass
class InstallEvent:
    """The installation of a staged stream; it has these facts from then on."""

    lsn: int
    request: Request
    facts: StreamFacts


@dataclass
class ValuesEvent:
    """A write of values."""

    lsn: int
    request: Request


@dataclass
class RemoveEvent:
    """The deletion or expiry of a stream."""

    lsn: int
    name: str


Event = CreateEvent | AppendEvent | InstallEvent | ValuesEvent | RemoveEvent


class Ledger:
    """
    All streams after some events.

    :ivar touched: the number of the last change that a name had.
    :ivar values: the values by key, and in ``values_lsn`` the number of their last change.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.touched: dict[str, int] = {}
        self.values: dict[str, bytes] = {}
        self.values_lsn = 0
        self.lsn = 0

    def find(self, name: str) -> Account:
        account = self.accounts.get(name)
        if account is None:
            raise StreamNotFound(name)
        if account.hidden:
            raise StreamGone(name)
        return account

    @property
    def visible(self) -> list[Account]:
        return [account for _, account in sorted(self.accounts.items()) if not account.hidden]

    def forks(self, of: Account) -> int:
        return sum(account.source is of for account in self.accounts.values())

    # Judging

    def judge_create(self, request: Request) -> tuple[int, bool, bool]:
        """Return the expected result of a creation: tail, closure, and whether it is new."""
        account = self.accounts.get(request.name)
        config = request.config
        if account is not None:
            if account.hidden:
                raise PathBlocked(request.name)
            if not self._same(config, account):
                raise StreamExists(request.name, "")
            return account.tail, account.closed, False
        if config.fork is None:
            return len(request.data), config.closed, True
        source, base = self._source(request.name, config)
        return base + len(request.first(source.facts.json)[0]), config.closed, True

    def _source(self, name: str, config: StreamConfig) -> tuple[Account, int]:
        assert config.fork is not None
        try:
            source = self.find(config.fork.source)
        except StreamGone:
            raise ForkFromDeleted(config.fork.source) from None
        if config.content_type not in (None, source.facts.media_type):
            raise ContentTypeMismatch(name, source.facts.media_type, str(config.content_type))
        return source, source.fork_point(config.fork)

    def _same(self, asked: StreamConfig, account: Account) -> bool:
        made_with = account.config.fork
        same_place = asked.fork == made_with
        if not same_place and asked.fork and made_with and account.source and asked.fork.source == made_with.source:
            try:
                same_place = account.source.fork_point(asked.fork) == account.base
            except InvalidRequest:
                return False
        default = account.facts.media_type if asked.fork else "application/octet-stream"
        return (
            same_place
            and asked.closed == account.closed
            and asked.lifetime in (account.config.lifetime, account.lifetime)
            and (asked.content_type or default) == account.facts.media_type
        )

    def judge_append(self, request: Request) -> tuple[int, bool, tuple[int, int] | None, bool]:
        """Return the expected result of an append: tail, closure, writer state, and whether it is a duplicate."""
        account = self.find(request.name)
        append = request.append
        assert append is not None
        writer = append.writer
        state = None if writer is None else account.writers.get(writer.id)
        if self._done(account, append, state):
            return account.tail, account.closed, state and state[:2], True
        if account.closed:
            raise StreamClosed(request.name, 0, 0)
        if append.data and append.media_type != account.facts.media_type:
            raise ContentTypeMismatch(request.name, "", "")
        if writer is not None:
            self._check_order(request.name, writer, state)
        if append.sequence is not None and account.sequence is not None and append.sequence <= account.sequence:
            raise SequenceConflict(request.name, 0, account.tail)
        place = None if writer is None else (writer.epoch, writer.seq)
        return account.tail + len(append.data), append.close, place, False

    def _done(self, account: Account, append: Append, state: tuple[int, int, float] | None) -> bool:
        writer = append.writer
        if writer is None:
            return account.closed and append.close and not append.data
        if state is not None and writer.epoch < state[0]:
            raise WriterFenced(account.facts.name, state[0])
        return state is not None and writer.epoch == state[0] and writer.seq <= state[1]

    def _check_order(self, name: str, writer: Writer, state: tuple[int, int, float] | None) -> None:
        if state is not None and writer.epoch > state[0]:
            if writer.seq:
                raise InvalidRequest
            return
        expected = 0 if state is None else state[1] + 1
        if writer.seq != expected:
            raise WriterGap(name, expected, writer.seq)

    def judge_install(self, request: Request) -> tuple[int, bool]:
        """Return the expected result of an installation: tail and closure."""
        account = self.find(request.staged)
        existing = self.accounts.get(request.name)
        assert request.restoration is not None
        if request.restoration.config.content_type not in (None, account.facts.media_type):
            raise ContentTypeMismatch(request.staged, "", "")
        if existing is not None:
            if existing.hidden:
                raise PathBlocked(request.name)
            if not request.replace:
                raise StreamExists(request.name, "")
            if self.forks(existing):
                raise ReplacementHasForks(request.name)
        return account.tail, request.restoration.closed

    def judge_values(self, request: Request) -> tuple[bool]:
        """Return the expected result of a write of values: whether it changes nothing."""
        for key, value in request.wanted.items():
            if self.values.get(key) != value:
                raise ValuesChanged(key)
        return (all(self.values.get(key) == value for key, value in request.puts.items()),)

    # Changing

    def apply(self, event: Event) -> None:
        """Apply an event."""
        self.lsn = event.lsn
        if isinstance(event, CreateEvent):
            self._make(event)
        elif isinstance(event, AppendEvent):
            self._write(event)
        elif isinstance(event, InstallEvent):
            self._install(event)
        elif isinstance(event, ValuesEvent):
            self._write_values(event)
        else:
            self._remove(event)

    def _make(self, event: CreateEvent) -> None:
        request, facts, config = event.request, event.facts, event.request.config
        source, base, data, ends, marks, lifetime = None, 0, b"", [], [], config.lifetime
        if config.fork is not None:
            source, base = self._source(request.name, config)
            data = source.data[:base]
            ends = [end for end in source.ends if end < base] + [base][: base > 0]
            marks = [mark for mark in source.marks if mark <= base]
            lifetime = source.lifetime if config.lifetime == FOREVER else config.lifetime
        account = Account(
            facts, config, lifetime, source, base, data, ends, marks, request.now, request.now, event.lsn, config.closed
        )
        account.extend(*request.first(facts.json))
        self.accounts[facts.name] = account
        self.touched[facts.name] = event.lsn

    def _write(self, event: AppendEvent) -> None:
        request, append = event.request, event.request.append
        assert append is not None
        account = self.accounts[request.name]
        account.extend(append.data, request.ends)
        writer = append.writer
        if writer is not None:
            if account.writers.pop(writer.id, None) is None and len(account.writers) == WRITERS:
                account.writers.pop(next(iter(account.writers)))
            account.writers[writer.id] = (writer.epoch, writer.seq, request.now)
        account.sequence = account.sequence if append.sequence is None else append.sequence
        account.closed = account.closed or append.close
        account.updated = request.now
        account.lsn = self.touched[request.name] = event.lsn

    def _install(self, event: InstallEvent) -> None:
        request, wanted = event.request, event.request.restoration
        assert wanted is not None
        existing = self.accounts.get(request.name)
        if existing is not None:
            self._take_out(existing, event.lsn)
        account = self.accounts.pop(request.staged)
        account.facts = event.facts
        account.config, account.lifetime, account.closed = wanted.config, wanted.lifetime, wanted.closed
        account.sequence = wanted.sequence
        last = sorted(wanted.writers.items(), key=lambda item: item[1].seen)[-WRITERS:]
        account.writers = {key: (state.epoch, state.seq, state.seen) for key, state in last}
        account.made = wanted.created_at or account.made
        account.updated = wanted.updated_at or account.updated
        self.accounts[request.name] = account
        account.lsn = self.touched[request.name] = self.touched[request.staged] = event.lsn
        if wanted.deleted:
            self._take_out(account, event.lsn)

    def _write_values(self, event: ValuesEvent) -> None:
        merged = {**self.values, **event.request.puts}
        self.values = {key: value for key, value in merged.items() if value is not None}
        self.values_lsn = event.lsn

    def order_writers(self) -> None:
        """Bring writers into the order in which they were seen last, as opening does."""
        for account in self.accounts.values():
            account.writers = dict(sorted(account.writers.items(), key=lambda item: item[1][2]))

    def _remove(self, event: RemoveEvent) -> None:
        self._take_out(self.accounts[event.name], event.lsn)

    def _take_out(self, account: Account, lsn: int) -> None:
        """Remove or hide a stream, and remove each hidden source whose last fork goes with it."""
        account.hidden = True
        account.lsn = self.touched[account.facts.name] = lsn
        gone: Account | None = account
        while gone is not None and gone.hidden and not self.forks(gone):
            del self.accounts[gone.facts.name]
            self.touched[gone.facts.name] = lsn
            gone = gone.source
