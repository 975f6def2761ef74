"""A random walk of the file storage over a disk that loses power, kills, fails and fills up.

Everything hangs on one number, the seed: what is asked for, in which order workers get on, when it stops and what the
disk makes of it. What was told before must hold afterwards; what was not, is there whole or not at all.

``python -m tests.storage.file.crashes --seeds 5000`` walks many; ``--seed 17 -v`` walks one, and says what it does.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from random import Random
from time import monotonic
from traceback import format_exc
from typing import Any, Literal
from unittest.mock import patch
from zlib import crc32

from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from durable_streams.server.errors import (
    DataDamaged,
    InsufficientStorage,
    InvalidRequest,
    StreamGone,
    StreamNotFound,
    StreamsError,
    Unavailable,
)
from durable_streams.server.interfaces import ICommitListener
from durable_streams.server.model import (
    FOREVER,
    START,
    Append,
    Chunk,
    Created,
    Fork,
    ForkPoint,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamRestoration,
    StreamStatus,
    Writer,
    WriterState,
)
from durable_streams.server.protocol.forks import LongSearch
from durable_streams.server.storage.file import FileSettings, FileStorage, checkpointer, journal
from durable_streams.server.storage.file.checking import check_files
from durable_streams.server.storage.file.places import (
    data_path,
    index_path,
    is_piece,
    pack_path,
    read_index,
    read_piece,
)
from durable_streams.server.storage.file.stream import FileStream
from durable_streams.server.storage.findings import Finding
from durable_streams.server.storage.logged.commit_queue import NotYet

from ...support.simulated_disk import PowerFailure, SimulatedDisk
from ...support.simulated_workers import Schedule
from .ledger import (
    JSON,
    WRITERS,
    Account,
    AppendEvent,
    CreateEvent,
    Event,
    InstallEvent,
    Ledger,
    RemoveEvent,
    Request,
    ValuesEvent,
)

T0 = 1_800_000_000.0
ALL = 1 << 40
NAMES = "abcdefgh"
KEYS = [f"{folder}/{number}" for folder in ("links", "subscriptions", "wakes") for number in range(4)]
STAGED = ("__ds/1", "__ds/2", "__ds/3")
LIMITS = StorageLimits(total_bytes=ALL, stream_bytes=ALL, writers=WRITERS)

#: The errors that a storage gets over by itself.
PASSING = frozenset([errno.ENOSPC, errno.EMFILE])

Ending = Literal["power", "kill", "close", "close, then power"]
DiskOf = Callable[[str], SimulatedDisk]


class WrongError(Exception):
    """The storage has violated its contract."""


class Observed(FileStorage):
    """The file storage, with a record of the order of its decisions."""

    walk: Walk

    def start(self, request: Request) -> Any:
        if request.kind == "create":
            self.walk.asked[id(request.config)] = request
            return self._start_create(request)
        if request.kind == "append":
            assert request.append is not None
            self.walk.asked[id(request.append)] = request
            return self.append(request.name, request.append, request.now)
        if request.restoration is not None:
            self.walk.asked[id(request.restoration)] = request
            return self.install(request.staged, request.name, request.restoration, request.replace, request.now)
        if request.kind == "values":
            self.walk.asked[id(request.puts)] = request
            return self.write_values(request.puts, request.wanted)
        return self._attempt(self._step, request.name, request)

    def _start_create(self, request: Request, point: ForkPoint | None = None) -> Any:
        """Create a stream; if the position of the fork takes a long search, finish it and create the stream then."""
        try:
            outcome: Any = self.create(request.name, request.config, request.body, request.now, point)
        except LongSearch as search:
            return self._start_create(request, finish_search(request.config, search))
        if isinstance(outcome, Deferred):
            return outcome.addErrback(self._searched, request)
        return outcome

    def _searched(self, failure: Failure, request: Request) -> Any:
        search = failure.value
        return (
            self._start_create(request, finish_search(request.config, search))
            if isinstance(search, LongSearch)
            else failure
        )

    def _create(self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None) -> Any:
        step = super()._create
        return self.walk.saw(self.walk.asked[id(config)], lambda: step(name, config, body, now, point))

    def _append(self, name: str, append: Append, now: float) -> Any:
        step = super()._append
        return self.walk.saw(self.walk.asked[id(append)], lambda: step(name, append, now))

    def _install(self, name: str, staged: str, restoration: StreamRestoration, replace: bool, now: float) -> Any:
        step = super()._install
        request = self.walk.asked[id(restoration)]
        return self.walk.saw(request, lambda: step(name, staged, restoration, replace, now))

    def _write_values(self, name: str, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> Any:
        step = super()._write_values
        return self.walk.saw(self.walk.asked[id(puts)], lambda: step(name, puts, expected))

    def _step(self, name: str, request: Request) -> Any:
        if request.kind == "delete":
            return self.walk.saw(request, lambda: self._delete(name, request.now))
        return self.walk.saw(request, lambda: self._sweep_committed("", request.now, 1000))

    def _removed(self, stream: FileStream, gone: list[FileStream]) -> None:
        super()._removed(stream, gone)
        self.walk.saw_removal(stream)

    @property
    def lsn(self) -> int:
        return self._queue.lsn

    @property
    def streams(self) -> dict[str, FileStream]:
        return self._catalogue.streams

    @property
    def size(self) -> int:
        return self._catalogue._bytes


def finish_search(config: StreamConfig, search: LongSearch) -> ForkPoint:
    """Finish the search for the position of a fork."""
    assert config.fork is not None
    try:
        while True:
            next(search.steps)
    except StopIteration as stop:
        return ForkPoint(config.fork, search.source_id, stop.value)
    except InvalidRequest as refusal:
        return ForkPoint(config.fork, search.source_id, str(refusal))


@implementer(ICommitListener)
class Ears:
    """A listener that sometimes reads the announced stream."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def committed(self, name: str) -> None:
        if not self._walk.over and self._walk.random.random() < 0.2:
            self._walk.read(name)


class Walk:
    """
    One walk.

    :param storage_type: what is walked over.
    :param disk_of: makes the disk, given its seed.
    :param often: what comes more often than it would: errors, lost writes, shortages, kills, clocks that are set; or
        bits that flip in the files of streams (rot), which come only then.
    :ivar floor: the number of the last change that somebody was told of.
    :ivar synced: the number of the last change that is on the disk for sure.
    """

    def __init__(
        self,
        seed: int,
        trace: Callable[[str], None] | None = None,
        storage_type: type[Observed] = Observed,
        disk_of: DiskOf = SimulatedDisk,
        often: str = "",
    ) -> None:
        self.random = random = Random(seed)
        self.trace: Callable[[str], None] = trace or (lambda _: None)
        self.disk = disk_of(f"disk of {seed}")
        self.disk.on_call = lambda call: self.trace(f"        {call}")
        self._storage_type = storage_type
        self.settings = FileSettings(
            durable=random.random() < 0.7,
            checkpoint_bytes=random.choice(
                {"errors": [1], "lost writes": [1 << 20], "shortages": [1, 12_000]}.get(
                    often, [1, 1, 12_000, 40_000, 1 << 20]
                )
            ),
            segment_sizes=random.choice([(1 << 16,), (1 << 18, 1 << 16), (1 << 15,)]),
            slice_streams=random.choice([1, 2, 2, 5]),
            slice_bytes=(1, 400, 1 << 19)[seed % 3],
            open_files=random.choice([1, 128]),
            reclaim_bytes=1 << 20 if often else (1, 10_000, 1 << 20)[seed % 3],
        )
        self.own_file = random.choice([60, 400, 3000, 65_536])
        self.move_bytes = (50, 2000, 4 << 20)[seed // 3 % 3]
        self.reserve = random.choice([8192, 8192, 128 << 10])
        self.large = random.random() < 0.15
        self._often = often
        self.with_errors = often in ("errors", "lost writes", "shortages") or random.random() < 0.35
        self.now = T0
        self.ledger = Ledger()
        self._base = Ledger()
        self._events: list[Event] = []
        self._known: dict[int, Account] = {}
        self._versions: dict[int, list[tuple[int, int, bool]]] = {}
        self._told_ids: dict[int, str] = {}
        self._shown: dict[int, int] = {}
        self.floor = self.synced = 0
        self._requests = 0
        self._open: dict[int, Request] = {}
        self.asked: dict[int, Request] = {}
        self._retries: list[Request] = []
        self.over = False
        self._wrong: str | None = None
        self._removing: Request | None = None
        # The stream that the present installation has installed and deleted.
        self._deleted: FileStream | None = None
        self._faulty = self._closing = False
        self._errors: set[int] = set()
        # Whether a bit was flipped. Reads may be refused then; what they show must hold all the same.
        self._rotten = False
        self._opened_at = T0
        self.storage: Observed
        self.schedule: Schedule

    # The walk

    def run(self) -> None:
        """
        Walk.

        :raises WrongError: the storage did what it must not do.
        """
        self.trace(f"{self.settings} own_file={self.own_file} reserve={self.reserve}")
        with (
            patch.object(checkpointer, "OWN_FILE", self.own_file),
            patch.object(checkpointer, "_SLICE_BYTES", self.move_bytes),
            patch.object(journal, "RESERVE", self.reserve),
        ):
            generations = self.random.randint(2, 6)
            try:
                for generation in range(generations):
                    self.trace(f"== generation {generation}, {self.now:.2f}")
                    self._generation(last=generation == generations - 1)
            except Exception:
                self.over = True
                self.disk.stop()
                self._wind_down()
                raise

    def wrong(self, what: str) -> None:
        """Record the first violation, since the caller may ignore exceptions."""
        if self._wrong is None and not self.over and not self.disk.dead:
            self._wrong = what
            self.trace(f"!! {what}")

    def _check(self) -> None:
        if self._wrong is not None:
            raise WrongError(self._wrong)

    def _generation(self, last: bool) -> None:
        if not self._reopen():
            return
        endings: list[Ending] = ["power", "power", "power", "power", "kill", "kill", "close", "close, then power"]
        if self._often in ("kills", "lost writes"):
            endings = ["power", "kill"]
        ending: Ending = "close" if last else self.random.choice(endings)
        if ending in ("power", "kill") and self.random.random() < 0.7:
            self.disk.stop_at(self.random.randrange(self.random.choice([20, 100, 300])))
        if self.with_errors and self.random.random() < 0.6 and not last:
            self._make_faulty()
        for _ in range(self.random.choice([10, 40, 80])):
            self._one_step()
            self._check()
            if self.disk.dead:
                break
        self._end(ending)

    def _make_faulty(self) -> None:
        self._faulty = True
        kinds = {"errors": ["EIO", "ENOSPC"], "lost writes": ["EIO"], "shortages": ["EMFILE"]}.get(
            self._often, ["EIO", "ENOSPC", "full", "full"]
        )
        kind = self.random.choice(kinds)
        self.trace(f"   to be faulty: {kind}")
        if kind == "full":
            self.disk.capacity = self.disk.used + self.random.choice([0, 5000, 70_000, 150_000])
        elif kind == "EMFILE":
            self.disk.run_short(self.random.randrange(8), self.random.choice([1, 3, 20]))
        else:
            self.disk.fail_at(self.random.randrange(self.random.choice([10, 60])), getattr(errno, kind))

    def _one_step(self) -> None:
        if self._often == "rot" and self.random.random() < 0.03:
            where = self.disk.rot(self.random.choice(["packs", "streams"]))
            if where is not None:
                self._rotten = True
                self.trace(f"   a bit flips: {where}")
        if self.random.random() < 0.55:
            for _ in range(self.random.randint(1, 6)):
                if not self.disk.dead and not self.schedule.turn():
                    break
            return
        if self.random.random() < 0.06:
            self._later(self.random.choice([0.01, 0.2, 0.6, 6, 61]))
            return
        if (self.disk.capacity is not None or self.disk.is_short) and self.random.random() < 0.1:
            self._make_room()
            return
        kind = self.random.choice(
            ["create"] * 3
            + ["fork"] * 2
            + ["append"] * 12
            + ["delete", "delete", "sweep", "retry"]
            + ["read"] * 4
            + ["stage", "install"]
            + ["values", "values", "page"]
        )
        if kind == "read":
            self.read(self.random.choice(NAMES))
        elif kind == "page":
            self._read_values()
        elif kind == "retry":
            self._retry()
        else:
            self._ask(getattr(self, f"_new_{kind}")())

    def _later(self, seconds: float) -> None:
        self.now += seconds
        self.trace(f"   {seconds} s later")
        self.schedule.clock.advance(seconds)

    def _make_room(self) -> None:
        """Writes go on when a disk is not full any more, and when there are descriptors again."""
        self.trace("   there is room again")
        self.disk.stop_failing()
        self.schedule.run()
        self._later(0.6)
        self.schedule.run()
        if self.disk.dead or self.storage.obstacle() is not None:
            if not self.disk.dead and self.disk_was_only_full:
                self.wrong("A full disk, or a shortage of descriptors, has stopped the storage for good.")
            return
        self._faulty = False
        self._ask(self._new_append())

    @property
    def disk_was_only_full(self) -> bool:
        return not self.disk.failed_with - PASSING

    # What clients ask for

    def _number(self) -> int:
        self._requests += 1
        return self._requests

    def _content(self, json: bool) -> tuple[bytes, tuple[int, ...]]:
        size = self.random.choice([1, 5, 30, 30, 60, 300, 2000, 30_000 if self.large else 100])
        if not json:
            text = b"<%d>" % self._requests
            return (text * (size // len(text) + 1))[: max(size, len(text))], ()
        data = b""
        ends = []
        for number in range(self.random.randint(1, 4)):
            data += b'"%d.%d%s",' % (self._requests, number, b"-" * (size // 3))
            ends.append(len(data))
        return data, tuple(ends)

    def _new_create(self) -> Request:
        random = self.random
        number = self._number()
        name = random.choice(NAMES)
        content_type = random.choice([None, JSON])
        data, ends = self._content(content_type == JSON) if random.random() < 0.6 else (b"", ())
        lifetime = random.choice([FOREVER] * 6 + [Lifetime(ttl=60), Lifetime(expires_at=T0 + 200)])
        config = StreamConfig(content_type, lifetime, random.random() < 0.08)
        account = self.ledger.accounts.get(name)
        if account is not None and random.random() < 0.5:
            # Perhaps it finds the stream that is there.
            config = StreamConfig(
                account.config.content_type, account.config.lifetime, account.closed, account.config.fork
            )
            if config.fork is not None:
                data, ends = b"", ()
        body = b"[" + data[:-1] + b"]" if content_type == JSON and data else data
        if config.content_type != content_type:
            body, data, ends = b"", b"", ()
        return Request(number, "create", name, self.now, config, body, data, ends)

    def _new_fork(self) -> Request:
        random = self.random
        number = self._number()
        name = random.choice(NAMES)
        source = random.choice(NAMES)
        account = self.ledger.accounts.get(source)
        offset = None
        sub_offset = random.choice([0, 0, 1, 2])
        if account is None:
            fork = Fork(source)
        else:
            if random.random() < 0.7:
                place = random.choice([0, *account.ends, *account.marks, random.randint(0, account.tail + 2)])
                offset = Offset(account.facts.incarnation, place)
            fork = Fork(source, offset, sub_offset if offset is not None else 0)
        data: bytes = b""
        ends: tuple[int, ...] = ()
        json = account is not None and account.facts.json
        if random.random() < 0.4:
            data, ends = self._content(json)
        lifetime = random.choice([FOREVER] * 6 + [Lifetime(ttl=60)])
        body = b"[" + data[:-1] + b"]" if json and data else data
        return Request(number, "create", name, self.now, StreamConfig(None, lifetime, False, fork), body, data, ends)

    def _new_stage(self) -> Request:
        """Create a stream that is to be installed."""
        random = self.random
        if random.random() < 0.3:
            request = self._new_fork()
        else:
            json = random.random() < 0.5
            number = self._number()
            data, ends = self._content(json)
            body = b"[" + data[:-1] + b"]" if json else data
            config = StreamConfig(JSON if json else None)
            request = Request(number, "create", "", self.now, config, body, data, ends)
        request.name = random.choice(STAGED)
        request.config = replace(request.config, lifetime=Lifetime(ttl=3600))
        return request

    def _new_install(self) -> Request:
        random = self.random
        number = self._number()
        staged = [account for account in self.ledger.visible if account.facts.name in STAGED]
        account = random.choice(staged) if staged else None
        writers = {
            key: WriterState(random.randint(0, 2), random.randint(0, 5), T0 - number - age)
            for age, key in enumerate(random.sample("uvw", random.randint(0, 3)))
        }
        lifetime = random.choice([FOREVER] * 4 + [Lifetime(ttl=60), Lifetime(expires_at=T0 + 200)])
        restoration = StreamRestoration(
            StreamConfig(JSON if account is not None and account.facts.json else None, lifetime),
            lifetime,
            random.random() < 0.1,
            random.choice([None, b"%06d" % number]),
            writers,
            random.choice([None, T0 - random.randint(1, 500)]),
            random.choice([None, T0 - random.randint(1, 500)]),
            None,
            # One of the past, or one of the future, which later streams must not get. A power failure may take it back
            # in file-fast, as it may with the ids of a clock that was set back.
            random.choice([None, None, number, int(T0 * 1_000_000) + 10**10 * number if self.settings.durable else 1]),
            number % (12 if account is None or not self.ledger.forks(account) else 2) == 0,
        )
        return Request(
            number,
            "install",
            random.choice(NAMES),
            self.now,
            staged=STAGED[0] if account is None else account.facts.name,
            restoration=restoration,
            replace=random.random() < 0.7,
        )

    def _new_append(self) -> Request:
        random = self.random
        number = self._number()
        visible = self.ledger.visible
        name = random.choice(visible).facts.name if visible and random.random() < 0.9 else random.choice(NAMES)
        account = self.ledger.accounts.get(name)
        media = "application/octet-stream" if account is None else account.facts.media_type
        close = random.random() < 0.05
        data, ends = self._content(media == JSON)
        if close and random.random() < 0.5:
            data, ends = b"", ()
        writer = sequence = None
        if random.random() < 0.5:
            writer = self._writer(account, random.choice("uvw"))
        if random.random() < 0.2:
            sequence = b"%06d" % (number + random.choice([0, 0, 0, -20]))
        append = Append(media if data else None, data, close, sequence, writer)
        return Request(number, "append", name, self.now, data=data, ends=ends, append=append)

    def _writer(self, account: Account | None, writer_id: str) -> Writer:
        epoch, seq, _ = (0, -1, 0.0) if account is None else account.writers.get(writer_id, (0, -1, 0.0))
        kind = self.random.choice(["next"] * 8 + ["retry", "gap", "fenced", "new epoch"])
        if kind == "next":
            return Writer(writer_id, epoch, seq + 1)
        if kind == "retry":
            return Writer(writer_id, epoch, max(seq, 0))
        if kind == "gap":
            return Writer(writer_id, epoch, seq + 2)
        return Writer(writer_id, max(epoch - 1, 0) if kind == "fenced" else epoch + 1, 0)

    def _new_values(self) -> Request:
        random = self.random
        number = self._number()
        puts: dict[str, bytes | None] = {}
        for key in random.sample(KEYS, random.randint(1, 4)):
            size = random.choice([0, 10, 10, 100, 2000])
            puts[key] = None if random.random() < 0.3 else b"%d" % number + b"." * size
        wanted: dict[str, bytes | None] = {}
        if random.random() < 0.6:
            wanted = {key: self.ledger.values.get(key) for key in random.sample(KEYS, 2)}
        if random.random() < 0.15:
            wanted[random.choice(KEYS)] = b"another"
        return Request(number, "values", "", self.now, puts=puts, wanted=wanted)

    def _new_delete(self) -> Request:
        return Request(self._number(), "delete", self.random.choice(NAMES), self.now)

    def _new_sweep(self) -> Request:
        return Request(self._number(), "sweep", "", self.now)

    def _retry(self) -> None:
        """Repeat an operation whose outcome is unknown, or one that was acknowledged."""
        if self._retries:
            self._ask(self._retries.pop(self.random.randrange(len(self._retries))).again(self._number(), self.now))

    def _ask(self, request: Request) -> None:
        self.trace(f"   {request}")
        self._open[request.number] = request
        try:
            outcome = self.storage.start(request)
        except StreamsError:
            outcome = Failure()
        if isinstance(outcome, Deferred):
            outcome.addBoth(lambda told: self._told(request, told))
        else:
            self._told(request, outcome)

    # What the storage decides

    def saw(self, request: Request, step: Callable[[], Any]) -> Any:
        """Watch a decision being taken, and take the same in the ledger."""
        storage = self.storage
        before = self.ledger.lsn
        self._removing = request if request.kind in ("delete", "install") else None
        self._deleted = None
        try:
            outcome = step()
        except (NotYet, Unavailable, InsufficientStorage, DataDamaged):
            raise
        except StreamsError as error:
            self._judge_refusal(request, error)
            raise
        finally:
            self._removing = None
        if self.over:
            return outcome
        request.taken = True
        if request.kind in ("delete", "sweep"):
            request.lsn = self.ledger.lsn if self.ledger.lsn > before else 0
            return outcome
        expected: Any
        try:
            expected = self._expected(request)
        except StreamsError as error:
            self.wrong(f"{request} was accepted, where {error!r} was expected")
            return outcome
        request.expected = expected
        new = expected[2] if request.kind == "create" else request.kind == "install" or not expected[-1]
        if new and storage.obstacle() is not None:
            self.wrong(f"{request} was accepted, though {storage.obstacle()}")
        if new and request.kind == "create":
            self._saw_creation(request, storage.streams[request.name])
        elif request.kind == "install":
            self._saw_installation(request, self._deleted or storage.streams[request.name])
        elif request.kind == "values":
            if new:
                self._happened(ValuesEvent(storage.lsn, request))
            request.lsn = self.ledger.values_lsn
            return outcome
        elif new:
            self._happened(AppendEvent(storage.lsn, request))
            account = self.ledger.accounts[request.name]
            self._versions[account.facts.id].append((storage.lsn, account.tail, account.closed))
        request.lsn = self.ledger.touched.get(request.name, 0)
        return outcome

    def _judge_refusal(self, request: Request, error: StreamsError) -> None:
        if self.over:
            return
        self._judge(request, error)
        if request.kind == "values":
            request.lsn = self.ledger.values_lsn
            return
        names = [request.name]
        if request.config.fork is not None:
            names.append(request.config.fork.source)
        if request.staged:
            names.append(request.staged)
        request.lsn = max(self.ledger.touched.get(name, 0) for name in names)

    def _expected(self, request: Request) -> Any:
        """Return the result that a request must have; raise the error with which it must be refused."""
        if request.kind == "create":
            return self.ledger.judge_create(request)
        if request.kind == "append":
            return self.ledger.judge_append(request)
        if request.kind == "install":
            return self.ledger.judge_install(request)
        if request.kind == "values":
            return self.ledger.judge_values(request)
        return self.ledger.find(request.name)

    def _judge(self, request: Request, error: StreamsError) -> None:
        try:
            self._expected(request)
        except StreamsError as expected:
            if type(expected) is not type(error):
                self.wrong(f"{request} was refused with {error!r}, not {expected!r}")
            request.expected = error
        else:
            self.wrong(f"{request} was refused: {error!r}")

    def _saw_creation(self, request: Request, stream: FileStream) -> None:
        facts = stream.facts
        if facts.id in self._told_ids:
            self.wrong(f"The id {facts.id} is used twice: for {self._told_ids[facts.id]} and {facts.name}")
        for other in self.ledger.accounts.values():
            if facts.id <= max(other.facts.id, other.facts.incarnation):
                self.wrong(f"{facts} has not the greatest id: there is {other.facts}")
        self._happened(CreateEvent(self.storage.lsn, request, facts))
        account = self.ledger.accounts[facts.name]
        if stream.base != account.base or (account.source is None) != (stream.source is None):
            self.wrong(f"{request} begins at {stream.base}, not at {account.base}")
        if account.source is None and facts.incarnation in self._told_ids:
            self.wrong(f"The incarnation {facts.incarnation} is used twice")
        self._known[facts.id] = account
        self._versions[facts.id] = [(self.storage.lsn, account.tail, account.closed)]

    def _saw_installation(self, request: Request, stream: FileStream) -> None:
        account = self.ledger.accounts[request.staged]
        facts, old = stream.facts, account.facts
        assert request.restoration is not None
        if request.restoration.deleted != (self._deleted is not None):
            self.wrong(f"{request} was not deleted as it was to be")
        wanted = request.restoration.incarnation or old.incarnation
        if (facts.id, facts.name, facts.incarnation) != (old.id, request.name, wanted):
            self.wrong(f"{request} made {old} to {facts}")
        # A deleted stream takes two changes, of which a crash leaves both or none: they are one event.
        self._happened(InstallEvent(self.storage.lsn, request, facts))
        self._versions[facts.id] = [(self.storage.lsn, account.tail, account.closed)]

    def saw_removal(self, stream: FileStream) -> None:
        """Watch a stream being removed."""
        if self.over:
            return
        name = stream.facts.name
        asker = self._removing
        if asker is not None and asker.kind == "install":
            staged = self.ledger.accounts.get(asker.staged)
            if staged is not None and staged.facts.id == stream.facts.id and name == asker.name:
                self._deleted = stream
                return
        account = self.ledger.accounts.get(name)
        if account is None or account.facts.id != stream.facts.id or account.hidden:
            self.wrong(f"{name} was removed, and is not there")
            return
        asked = asker is not None and asker.kind == "delete" and asker.name == name
        lifetime = account.lifetime
        used = min(account.updated, self._opened_at)
        least = used + lifetime.ttl if lifetime.ttl is not None else lifetime.expires_at or float("inf")
        if not asked and self.now < least:
            self.wrong(f"{name} was removed, and nobody asked for it")
        self._happened(RemoveEvent(self.storage.lsn, name))

    def _happened(self, event: Event) -> None:
        self._events.append(event)
        self.ledger.apply(event)

    # What the storage tells

    def _told(self, request: Request, told: Any) -> None:
        if self.over:
            return
        del self._open[request.number]
        self.trace(f"   #{request.number}: {told.value if isinstance(told, Failure) else told!r}"[:200])
        if isinstance(told, Failure):
            self._told_refusal(request, told)
            return
        self.floor = max(self.floor, request.lsn)
        if request.kind == "create":
            self._told_created(request, told)
        elif request.kind == "install":
            if (told.tail, told.closed) != request.expected:
                self.wrong(f"{request} came to {told}, not to {request.expected}")
            self._told_ids[told.facts.incarnation] = request.name
            self._note_shown(told.facts.id, request.lsn)
        elif request.kind == "values":
            if told is not None:
                self.wrong(f"{request} came to {told}")
            if self.random.random() < 0.1:
                self._retries.append(request)
        elif request.kind == "append":
            writer = told.writer and (told.writer.epoch, told.writer.seq)
            said = (told.tail, told.closed, writer, told.duplicate)
            if said != request.expected:
                self.wrong(f"{request} came to {said}, not to {request.expected}")
            self._note_shown(told.facts.id, request.lsn)
            if request.append is not None and request.append.writer is not None and self.random.random() < 0.2:
                self._retries.append(request)

    def _told_created(self, request: Request, told: Created) -> None:
        said = (told.tail, told.closed, told.new)
        if said != request.expected:
            self.wrong(f"{request} came to {said}, not to {request.expected}")
        self._told_ids[told.facts.id] = request.name
        self._told_ids[told.facts.incarnation] = request.name
        self._note_shown(told.facts.id, request.lsn)

    def _told_refusal(self, request: Request, told: Failure) -> None:
        error = told.value
        if isinstance(error, DataDamaged) and self._rotten:
            return
        if isinstance(error, Unavailable | InsufficientStorage):
            self._retries.append(request)
            short = self._faulty and errno.EMFILE in self.disk.failed_with
            if isinstance(error, Unavailable) and not (self._closing or short) and self.storage.obstacle() is None:
                self.wrong(f"{request} was refused, and nothing stands in the way: {error!r}")
            if not self._faulty:
                self.wrong(f"{request} was refused, and nothing is wrong with the disk: {error!r}")
        elif request.expected is error:
            self.floor = max(self.floor, request.lsn)
        else:
            self.wrong(f"{request} has failed: {told.getTraceback()}")

    def _note_shown(self, stream_id: int, lsn: int) -> None:
        self._shown[stream_id] = max(self._shown.get(stream_id, 0), lsn)

    # Reading

    def read(self, name: str) -> None:
        """Read a part of a stream; data that was read once must not disappear."""
        random = self.random
        account = self.ledger.accounts.get(name)
        position, offset = 0, START
        if account is not None and random.random() < 0.6:
            position = random.choice([*account.ends[-4:], random.randint(0, account.tail + 3)])
            offset = Offset(account.facts.incarnation, position)
        limit = random.choice([ALL, ALL, 1, 40, 1000])
        whole = random.random() < 0.6
        began = (self.ledger.lsn, dict(self._shown))
        self.trace(f"   read {name} {offset} {limit} {whole}")
        try:
            outcome: Any = self.storage.read(name, offset, limit, self.now, whole, renew=random.random() < 0.3)
        except StreamsError:
            outcome = Failure()

        def told(chunk: Chunk | Failure) -> None:
            if self.over:
                return
            if isinstance(chunk, Failure):
                self._not_read(name, began[0], chunk)
            elif offset is START or (account is not None and chunk.facts.incarnation == account.facts.incarnation):
                self._check_shown(chunk, began[1])
                self._check_chunk(chunk, position, limit, whole)

        if isinstance(outcome, Deferred):
            outcome.addBoth(told)
        else:
            told(outcome)

    def _read_values(self) -> None:
        """Read a page of values; what was read once must not be taken back."""
        random = self.random
        prefix = random.choice(["", "", "links/", "wakes/"])
        after = random.choice(["", "", *KEYS])
        count = random.choice([1, 3, 100])
        lsn = self.ledger.values_lsn
        present = sorted(self.ledger.values.items())
        expected = [(key, value) for key, value in present if key.startswith(prefix) and key > after][:count]
        self.trace(f"   values {prefix} {after} {count}")

        def told(page: Any) -> None:
            if self.over:
                return
            if isinstance(page, Failure):
                if not (self._faulty and page.check(Unavailable, InsufficientStorage)):
                    self.wrong(f"values can't be read: {page.getTraceback()}")
                return
            self.floor = max(self.floor, lsn)
            if page != expected:
                self.wrong(f"values are {page}, not {expected}")

        outcome: Any = self.storage.values(prefix, after, count)
        if isinstance(outcome, Deferred):
            outcome.addBoth(told)
        else:
            told(outcome)

    def _not_read(self, name: str, began: int, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Unavailable | InsufficientStorage) and self._faulty:
            return
        if isinstance(error, DataDamaged) and self._rotten:
            return
        touched = self.ledger.touched.get(name, 0)
        if touched > began:
            if not isinstance(error, StreamsError):
                self.wrong(f"{name} can't be read: {failure.getTraceback()}")
            return
        account = self.ledger.accounts.get(name)
        expected: type[StreamsError] | None = (
            StreamNotFound if account is None else StreamGone if account.hidden else None
        )
        if expected is None or type(error) is not expected:
            self.wrong(f"{name} can't be read: {failure.getTraceback()}")
        else:
            self.floor = max(self.floor, touched)

    def _check_shown(self, shown: Chunk | StreamStatus, before: dict[int, int]) -> None:
        """Check that a read shows the stream at one moment, not before an earlier read."""
        stream_id = shown.facts.id
        for lsn, tail, closed in self._versions.get(stream_id, []):
            if (tail, closed) == (shown.tail, shown.closed):
                if lsn < before.get(stream_id, 0):
                    self.wrong(f"{shown.facts.name} goes back to {shown.tail}")
                self.floor = max(self.floor, lsn)
                self._note_shown(stream_id, lsn)
                self._told_ids[stream_id] = shown.facts.name
                return
        self.wrong(f"{shown.facts} was never at {shown.tail}, {shown.closed}: {self._versions.get(stream_id)}")

    def _check_chunk(self, chunk: Chunk, position: int, limit: int, whole: bool) -> None:
        account = self._known[chunk.facts.id]
        start = chunk.tail if position >= chunk.tail else account.start_of(position)
        end = chunk.start + len(chunk.data)
        if chunk.start != start:
            self.wrong(f"{chunk.facts.name} is read from {chunk.start}, not {start}, which {position} lies in")
        if chunk.data != account.data[chunk.start : end]:
            self.wrong(f"{chunk.facts.name} has other bytes from {chunk.start} to {end}")
        if end > chunk.tail or (end < chunk.tail and chunk.tail - start <= limit):
            self.wrong(f"{chunk.facts.name} is read from {start} to {end}, for {limit}, and is {chunk.tail} long")
        end += chunk.more
        if end < chunk.tail and whole and (end not in account.ends or end <= start):
            self.wrong(f"{chunk.facts.name} is read to {end}, in the middle of an append: {account.ends}")

    # The end of a generation

    def _end(self, ending: Ending) -> None:
        if not self.disk.dead and ending.startswith("close"):
            self._close()
        stopped = self.disk.dead
        self._check()
        self.over = True
        self._retries += [request for request in self._open.values() if request.kind != "sweep"]
        self._open.clear()
        failed = bool(self.disk.failed_with - PASSING)
        self._errors |= self.disk.failed_with
        how: Ending = "power" if stopped and ending.startswith("close") else ending
        disk = self.disk.crash() if how in ("power", "close, then power") else self.disk.killed()
        closed = how.startswith("close") and not stopped and not failed and self.storage.obstacle() is None
        lost_power = how == "power" or failed or (how == "close, then power" and not closed)
        self.trace(
            f"-- {how}{' after an error' if failed else ''}: "
            f"changes up to {self.floor} were told of, {self.ledger.lsn} accepted"
        )
        self._wind_down()
        self.disk = disk
        if not self.settings.durable and lost_power:
            self.floor = self.synced
        if closed:
            self.floor = self.ledger.lsn
        self.now += self.random.choice([1, 1, 30, 100])
        if self.settings.durable and self.random.random() < (0.7 if self._often == "clocks" else 0.1):
            # Clocks are set, too.
            self.now -= 150

    def _wind_down(self) -> None:
        """Run the remaining jobs of a stopped storage."""
        for _ in range(50):
            self.schedule.run()
            if not self.schedule.clock.getDelayedCalls():
                break
            self.schedule.clock.advance(10)

    def _close(self) -> None:
        self.trace("   close")
        self._closing = True
        if self.random.random() < 0.5:
            self.schedule.run()
        elif not self._faulty:
            self._faulty = True
        if self.disk.dead:
            return
        closed: list[Any] = []
        outcome: Any = self.storage.close()
        outcome.addBoth(closed.append)
        for _ in range(5):
            self.schedule.run()
            if closed or self.disk.dead:
                break
            self._later(1)
        if self.disk.dead:
            return
        if not closed:
            self.wrong("It is never closed.")
        elif isinstance(closed[0], Failure) and not self.disk.failed_with:
            self.wrong(f"It can't be closed: {closed[0].getTraceback()}")
        elif self._open and not self._faulty:
            self.wrong(f"It was closed, and nobody was told of {[str(request) for request in self._open.values()]}")

    # The beginning of one

    def _reopen(self) -> bool:
        """Open, and see that everything is there."""
        for _ in range(20):
            if self.random.random() < 0.15:
                self.disk.stop_at(self.random.randrange(40))
            elif self.with_errors and self.random.random() < 0.1:
                self.disk.fail_at(self.random.randrange(20), self.random.choice([errno.EIO, errno.ENOSPC]))
            if not self.disk.failed_with and self.random.random() < 0.1 and not self._rotten:
                self._look_from_outside()
            opened = self._try_to_open()
            self._check()
            if opened:
                break
        else:
            return False
        self.disk.stop_at(-1)
        self.disk.stop_failing()
        self._take_stock()
        self._check()
        return True

    def _look_from_outside(self) -> None:
        """Assert that a check of the directory reports no damage."""

        def found(finding: Finding) -> None:
            if finding.serious:
                self.over = False
                self.wrong(f"{finding.where}: {finding.what}")

        check_files(self.disk, found)

    def _try_to_open(self) -> bool:
        clock = Clock()
        clock.rightNow = self._opened_at = self.now
        self.schedule = Schedule(self.random, clock)
        storage = self._storage_type("data", clock, LIMITS, self.settings, self.disk, self.schedule.workers)
        storage.walk = self
        storage.listen(Ears(self))
        self.storage = storage
        self.over = True
        try:
            storage.open()
        except (PowerFailure, OSError) as error:
            self.over = crashed = False
            if self.disk.dead:
                crashed = self.random.random() < 0.6
                self.trace(f"   stopped while it was opened: {'power' if crashed else 'kill'}")
                disk = self.disk.crash() if crashed else self.disk.killed()
            else:
                self.trace(f"   not opened: {error!r}")
                if not self.disk.failed_with:
                    self.wrong(f"It can't be opened: {error!r}")
                disk = self.disk.killed()
        except Exception as error:
            self.over = False
            self.wrong(f"It can't be opened: {type(error).__name__}: {error}")
            return False
        else:
            self.over = False
            return True
        self._errors |= self.disk.failed_with
        if not self.settings.durable and (crashed or self.disk.failed_with):
            # What the one before has left with the operating system is lost with it.
            self.floor = self.synced
        self._wind_down()
        self.disk = disk
        self.now += 1
        return False

    def _take_stock(self) -> None:
        """Compare the loaded streams with the accepted operations."""
        lsn = self.storage.lsn
        self.trace(f"   opened: changes up to {lsn}, of {self.floor} told and {self.ledger.lsn} accepted")
        if not self.floor <= lsn <= self.ledger.lsn:
            self.wrong(f"Changes up to {lsn} are there; {self.floor} were told of, and {self.ledger.lsn} accepted")
        self._faulty = self._closing = False
        self._rewind(lsn)
        self.floor = self.synced = lsn
        self._compare()
        for account in self.ledger.visible:
            self._read_whole(account)
        if self.random.random() < 0.5:
            self.schedule.run()
        self._look_at_places()
        for path in self.disk.paths:
            # That a file could not be removed, or its folder not be synced, is not remembered for ever.
            if path.startswith("set-aside") and not self._errors & {errno.EIO, errno.EMFILE}:
                self.wrong(f"{path}: what a crash leaves can be explained")

    def _rewind(self, lsn: int) -> None:
        for event in self._events:
            if event.lsn <= lsn:
                self._base.apply(event)
        self._base.order_writers()
        self._events = []
        self._base.lsn = lsn
        self.ledger = deepcopy(self._base)
        self._known = {account.facts.id: account for account in self.ledger.accounts.values()}
        self._versions = {
            account.facts.id: [(self.ledger.touched[account.facts.name], account.tail, account.closed)]
            for account in self.ledger.accounts.values()
        }
        self._shown = {}

    def _compare(self) -> None:
        streams, accounts = self.storage.streams, self.ledger.accounts
        if sorted(streams) != sorted(accounts):
            self.wrong(f"There are {sorted(streams)}, and should be {sorted(accounts)}")
            return
        for name, account in accounts.items():
            stream = streams[name]
            writers = {key: (state.epoch, state.seq, state.seen) for key, state in (stream.writers or {}).items()}
            said = (
                stream.facts, stream.config, stream.lifetime, stream.base, stream.tail, stream.closed, stream.deleted,
                stream.sequence, writers, stream.created_at, stream.updated_at, stream.forks,
                None if stream.source is None else stream.source.facts.id,
            )  # fmt: skip
            expected = (
                account.facts, account.config, account.lifetime, account.base, account.tail, account.closed,
                account.hidden, account.sequence, account.writers, account.made, account.updated,
                self.ledger.forks(account), None if account.source is None else account.source.facts.id,
            )  # fmt: skip
            if said != expected:
                self.wrong(f"{name} is {said}, not {expected}")
            ttl = account.lifetime.ttl
            if ttl is not None and not account.hidden and stream.deadline < self.now + ttl:
                self.wrong(f"{name} is over at {stream.deadline}, though to be opened counts as use at {self.now}")
        listed = self.storage.statuses(self.now)
        present = [
            (account.facts, account.tail, account.closed, account.lifetime, account.made, account.updated)
            for account in self.ledger.visible
            if account.facts.name not in STAGED and self.now < streams[account.facts.name].deadline
        ]
        if isinstance(listed, Deferred):
            self.wrong("All is on the disk, and what there is can't be listed.")
        elif [
            (one.facts, one.tail, one.closed, one.lifetime, one.created_at, one.updated_at) for one in listed
        ] != present:
            self.wrong(f"{listed} are listed, not {present}")
        values: Any = self.storage.values()
        if values != sorted(self.ledger.values.items()):
            self.wrong(f"The values are {values}, not {sorted(self.ledger.values.items())}")
        size = sum(account.own for account in accounts.values())
        if self.storage.size != size:
            self.wrong(f"There are {self.storage.size} bytes, not {size}")

    def _read_whole(self, account: Account) -> None:
        name = account.facts.name
        stream = self.storage.streams[name]
        if self.now >= stream.deadline:
            return
        shown = dict(self._shown)
        for outcome in (
            maybeDeferred(self.storage.read, name, START, ALL, self.now, True, False),
            self.storage.status(name, self.now),
        ):
            told: list[Any] = []
            if isinstance(outcome, Deferred):
                outcome.addBoth(told.append)
                while not told and self.schedule.turn():
                    pass
            else:
                told.append(outcome)
            if self.disk.dead:
                return
            if self._rotten and told and isinstance(told[0], Failure) and told[0].check(DataDamaged):
                continue
            if not told or isinstance(told[0], Failure):
                self.wrong(f"{name} can't be read: {told and told[0].getTraceback()}")
                return
            if isinstance(told[0], Chunk):
                self._check_chunk(told[0], 0, ALL, whole=True)
            self._check_shown(told[0], shown)

    def _look_at_places(self) -> None:
        """Check the bytes, indexes and checksums in packs and own files."""
        if self._rotten:
            return
        for stream in self.storage.streams.values():
            account = self.ledger.accounts.get(stream.facts.name)
            if account is None or account.facts.id != stream.facts.id:
                continue
            ends = [end for end in account.ends if end > account.base]
            if stream.filed:
                data = self.disk.content(data_path(stream.facts.id))[: stream.filed]
                index = read_index(self.disk.content(index_path(stream.facts.id))[: 12 * stream.filed_appends])
                self._check_place(account, account.base, data, index, ends)
            for piece in stream.pieces:
                whole = self.disk.content(pack_path(piece.pack))[piece.position : piece.position + piece.frame]
                if not is_piece(whole, stream.facts.id, piece):
                    self.wrong(f"{stream.facts.name} is not in {piece}")
                    continue
                content = read_piece(whole, piece.appends, piece.start)
                index = list(zip(content.ends, content.checksums, strict=True))
                self._check_place(account, piece.start, content.data, index, ends)

    def _check_place(
        self, account: Account, start: int, data: bytes, index: list[tuple[int, int]], ends: list[int]
    ) -> None:
        stop = start + len(data)
        if [end for end, _ in index] != [end for end in ends if start < end <= stop]:
            self.wrong(f"{account.facts.name} has other appends from {start} to {stop}: {index}, not {ends}")
        edge = start
        for end, checksum in index:
            if crc32(data[edge - start : end - start]) != checksum:
                self.wrong(f"{account.facts.name} has other bytes from {edge} to {end} than it had")
            edge = end


def walk(seed: int, trace: Callable[[str], None] | None = None, **rest: Any) -> str | None:
    """Walk one seed; return the violation, or None."""
    try:
        Walk(seed, trace, **rest).run()
    except WrongError as wrong:
        return str(wrong)
    except Exception:
        return format_exc()
    return None


def first_failure(seeds: Iterable[int], **rest: Any) -> tuple[int, str] | None:
    """Walk seeds until there is a violation; return it with its seed."""
    for seed in seeds:
        wrong = walk(seed, **rest)
        if wrong is not None:
            return seed, wrong
    return None


def main() -> int:
    """Walk as many seeds as the command line says."""
    options = argparse.ArgumentParser(prog="python -m tests.storage.file.crashes", description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=1000, help="how many seeds to walk")
    options.add_argument("--first", type=int, default=0, help="the first of them")
    options.add_argument("--seed", type=int, help="walk this one only")
    options.add_argument(
        "--often", default="", help="what comes more often: errors, kills, clocks, lost writes, shortages, rot"
    )
    options.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    asked = options.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds) if asked.seed is None else [asked.seed]
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    began = monotonic()
    failures = 0
    for seed in seeds:
        wrong = walk(seed, print if asked.verbose else None, often=asked.often)
        if wrong is not None:
            failures += 1
            print(f"seed {seed}: {wrong}", flush=True)
    print(f"{len(seeds)} seeds, {failures} failures, {monotonic() - began:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
