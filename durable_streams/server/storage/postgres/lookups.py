"""Look-ups of heads by name and by id, in batches, and the cache of what they have returned.

A look-up that began after a request came is the base of each refusal, and of each answer about a stream. All look-ups
that are asked for while earlier ones run are one statement: 64 heads take 0.34 ms, one takes 0.2 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...errors import Unavailable
from ...model import WriterState
from .answering import Answers
from .folding import MAX_WANTED, Wanted
from .heads import COLUMNS, WIDTH, Head, decode_head
from .known import KnownStream
from .packing import INT8S, TEXT, TEXTS, int8s, texts, to_float, to_int
from .queries import Query, Statement, value_of
from .stream_cache import StreamCache

#: The maximum number of heads and writers in one statement, and how many statements run at the same time.
_MAX_ROWS: Final = 256
_MAX_RUNNING: Final = 2

_NOTHING: Final = Wanted()

# Each stream and writer is found by an index: without OFFSET, a plan that was made while a table was small would read
# all of it each time.
_BY_NAME: Final = f"""
SELECT u.number, {COLUMNS}, u.writer, w.epoch, w.seq, w.seen
FROM unnest($1, $2) WITH ORDINALITY AS u (name, writer, number)
CROSS JOIN LATERAL (SELECT * FROM {{schema}}.streams AS x WHERE x.name = u.name OFFSET 0) AS s
LEFT JOIN LATERAL (
    SELECT * FROM {{schema}}.writers AS x WHERE x.stream_id = s.id AND x.writer = u.writer OFFSET 0
) AS w ON true
"""

_BY_ID: Final = f"""
SELECT u.number, {COLUMNS}
FROM unnest($1) WITH ORDINALITY AS u (id, number)
CROSS JOIN LATERAL (SELECT * FROM {{schema}}.streams AS x WHERE x.id = u.id OFFSET 0) AS s
"""

# The wanted writers, then the least recently seen ones.
_WITH_OLDEST: Final = f"""
SELECT w.kind, {COLUMNS}, w.writer, w.epoch, w.seq, w.seen
FROM {{schema}}.streams AS s
LEFT JOIN LATERAL (
    SELECT 1::bigint AS kind, u.writer, x.epoch, x.seq, x.seen
    FROM unnest($2) AS u (writer)
    LEFT JOIN LATERAL (
        SELECT * FROM {{schema}}.writers AS x WHERE x.stream_id = s.id AND x.writer = u.writer OFFSET 0
    ) AS x ON true
    UNION ALL (
        SELECT 2, x.writer, x.epoch, x.seq, x.seen
        FROM {{schema}}.writers AS x
        WHERE x.stream_id = s.id ORDER BY x.seen, x.writer LIMIT {MAX_WANTED}
    )
) AS w ON true
WHERE s.name = $1
ORDER BY w.kind, w.seen, w.writer
"""


class _Request:
    """
    Look-ups of one stream that wait for the same statement.

    :ivar moment: that of :class:`LookUps` when the first of them came.
    """

    __slots__ = ("callers", "moment", "oldest", "writers")

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.callers: list[Deferred[Any]] = []
        self.writers: dict[str, None] = {}
        self.oldest = False


class LookUps(StreamCache):
    """
    Reads heads from the database, and caches them.

    :param execute: runs a statement.
    :param max_streams: the maximum number of cached heads.
    :param max_bytes: the maximum memory of the cache, about.
    :ivar moment: counts look-ups and writes, see :meth:`tick`.
    :ivar answers: gives the answers.
    :ivar seen: is called with the name and the head of each stream that was looked up by its name.
    """

    def __init__(
        self,
        execute: Query,
        schema: str,
        clock: IReactorTime,
        max_streams: int = 10_000,
        max_bytes: int = 16 << 20,
    ) -> None:
        super().__init__(max_streams, max_bytes)
        self._execute = execute
        self._clock = clock
        self._names: dict[str, _Request] = {}
        self._ids: dict[int, _Request] = {}
        self.answers = Answers(clock)
        self._running = 0
        self._scheduled = False
        self.moment = 0
        self.seen: Callable[[str, Head | None], None] = lambda _name, _head: None
        self._by_name = Statement("heads_by_name", _BY_NAME.format(schema=schema), (TEXTS, TEXTS))
        self._by_id = Statement("heads_by_id", _BY_ID.format(schema=schema), (INT8S,))
        self._with_oldest = Statement("head_with_oldest_writers", _WITH_OLDEST.format(schema=schema), (TEXT, TEXTS))

    # Looking up

    def tick(self) -> int:
        """
        Return a new moment, for a statement that is sent now.

        What it returns or writes was true after every request that came when :attr:`moment` was less.
        """
        self.moment += 1
        return self.moment

    async def fresh(self, name: str) -> Head | None:
        """
        Return a stream's head, from a look-up that begins after this call; None if there is no stream of this name.

        A stream that has expired or is kept for its forks only is returned too: see :func:`.known.check_present`.
        """
        known = await self.look_up(name)
        return None if known is None else known.head

    def look_up(self, name: str, wanted: Wanted = _NOTHING) -> Deferred[KnownStream | None]:
        """
        Read a stream's head, and the states of writers, from a look-up that begins after this call.

        :returns: None if there is no stream of this name.
        """
        request = self._names.get(name)
        if request is None:
            request = self._names[name] = _Request(self.moment)
        caller: Deferred[KnownStream | None] = Deferred()
        request.callers.append(caller)
        for writer_id in wanted.writers:
            request.writers[writer_id] = None
        request.oldest = request.oldest or wanted.oldest
        self._schedule()
        return caller

    def fresh_id(self, stream_id: int) -> Deferred[Head | None]:
        """Return a stream's head by its id, from a look-up that begins after this call; None if there is none."""
        caller: Deferred[Head | None] = Deferred()
        request = self._ids.get(stream_id)
        if request is None:
            request = self._ids[stream_id] = _Request(self.moment)
        request.callers.append(caller)
        self._schedule()
        return caller

    def _schedule(self) -> None:
        if not self._scheduled and self._running < _MAX_RUNNING:
            self._scheduled = True
            self._clock.callLater(0, self._send)

    def _send(self) -> None:
        self._scheduled = False
        if self._names:
            self._send_names()
        if self._ids and self._running < _MAX_RUNNING:
            self._send_ids()
        if self._names or self._ids:
            self._schedule()

    def _send_names(self) -> None:
        rows = 0
        batch: dict[str, _Request] = {}
        for name, request in self._names.items():
            size = max(1, len(request.writers))
            if batch and rows + size > _MAX_ROWS:
                break
            batch[name] = request
            rows += size
        for name in batch:
            del self._names[name]
        with_oldest = {name: request for name, request in batch.items() if request.oldest}
        for name, request in with_oldest.items():
            del batch[name]
            self._send_one(name, request)
        if batch:
            self._send_batch(batch)

    def _send_batch(self, batch: dict[str, _Request]) -> None:
        names: list[str] = []
        writers: list[str | None] = []
        for name, request in batch.items():
            wanted: Iterable[str | None] = request.writers or (None,)
            for writer_id in wanted:
                names.append(name)
                writers.append(writer_id)
        moment = self.tick()
        sent = self._start(moment, self._by_name, (texts(names), texts(writers)))

        def answered(result: PGresult) -> None:
            found: dict[str, KnownStream] = {}
            for number in range(result.ntuples):
                name = names[to_int(value_of(result, number, 0)) - 1]
                known = found.get(name)
                if known is None:
                    head = decode_head(result, number, 1, self.cached(name))
                    known = found[name] = KnownStream(head, confirmed=moment)
                self._add_writer(known, result, number)
            self._answer({name: (request, found.get(name)) for name, request in batch.items()})

        sent.addCallbacks(answered, lambda failure: self._fail(batch.values(), failure))

    def _send_one(self, name: str, request: _Request) -> None:
        """Read one stream, and its writers that were seen least recently."""
        moment = self.tick()
        sent = self._start(moment, self._with_oldest, (name.encode(), texts(list(request.writers))))
        sent.addCallbacks(
            lambda result: self._answer({name: (request, self._decode_one(result, name, moment))}),
            lambda failure: self._fail([request], failure),
        )

    async def read(self, execute: Query, name: str, wanted: Wanted) -> KnownStream | None:
        """Read one stream and its writers in a transaction; the cache is not changed."""
        moment = self.tick()
        result = await execute(self._with_oldest, (name.encode(), texts(list(wanted.writers))))
        return self._decode_one(result, name, moment)

    def _decode_one(self, result: PGresult, name: str, moment: int) -> KnownStream | None:
        if not result.ntuples:
            return None
        known = KnownStream(decode_head(result, 0, 1, self.cached(name)), confirmed=moment)
        known.oldest = []
        for number in range(result.ntuples):
            self._add_writer(known, result, number)
            kind = result.get_value(number, 0)
            if kind is not None and to_int(kind) == 2:
                known.oldest.append(value_of(result, number, WIDTH + 1).decode())
        known.complete = len(known.oldest) < MAX_WANTED
        return known

    @staticmethod
    def _add_writer(known: KnownStream, result: PGresult, number: int) -> None:
        writer_id = result.get_value(number, WIDTH + 1)
        if writer_id is None:
            return
        epoch = result.get_value(number, WIDTH + 2)
        state = None
        if epoch is not None:
            seq, seen = value_of(result, number, WIDTH + 3), value_of(result, number, WIDTH + 4)
            state = WriterState(to_int(epoch), to_int(seq), to_float(seen))
        known.remember({writer_id.decode(): state})

    def _answer(self, found: Mapping[str, tuple[_Request, KnownStream | None]]) -> None:
        answers: list[tuple[_Request, KnownStream | None]] = []
        for name, (request, known) in found.items():
            if known is None:
                self.forget(name)
            kept = None if known is None else self.keep(known)
            answers.append((request, kept))
            self.seen(name, None if kept is None else kept.head)
        self.answers.give(_callbacks(answers))

    def _send_ids(self) -> None:
        ids = list(self._ids)[:_MAX_ROWS]
        requests = [self._ids.pop(stream_id) for stream_id in ids]
        moment = self.tick()
        sent = self._start(moment, self._by_id, (int8s(ids),))

        def answered(result: PGresult) -> None:
            found: dict[int, Head] = {}
            for number in range(result.ntuples):
                head = decode_head(result, number, 1)
                found[head.facts.id] = head
                self.keep(KnownStream(head, confirmed=moment))
            self.answers.give(_callbacks(list(zip(requests, map(found.get, ids), strict=True))))

        sent.addCallbacks(answered, lambda failure: self._fail(requests, failure))

    def _start(self, moment: int, statement: Statement, parameters: Sequence[bytes | None]) -> Deferred[PGresult]:
        """Run a statement; when it has ended, send what waits."""
        self._running += 1

        def ended(result: PGresult | Failure) -> PGresult | Failure:
            self._running -= 1
            if isinstance(result, Failure) and result.check(Unavailable):
                self._refuse_older(moment, result)
            if self._names or self._ids:
                self._schedule()
            return result

        return self._execute(statement, parameters).addBoth(ended)

    def _refuse_older(self, moment: int, failure: Failure) -> None:
        """
        Refuse the look-ups that have waited as long as a statement that was not executed.

        Statements wait for the database one after the other, so the last of many look-ups would wait for minutes.
        """
        names = [name for name, request in self._names.items() if request.moment < moment]
        ids = [stream_id for stream_id, request in self._ids.items() if request.moment < moment]
        self._fail([self._names.pop(name) for name in names] + [self._ids.pop(each) for each in ids], failure)

    def _fail(self, requests: Iterable[_Request], failure: Failure) -> None:
        self.answers.give(_errbacks(requests, failure))


def _callbacks(answers: Iterable[tuple[_Request, object]]) -> Generator[None, None, None]:
    for request, result in answers:
        for caller in request.callers:
            caller.callback(result)
            yield


def _errbacks(requests: Iterable[_Request], failure: Failure) -> Generator[None, None, None]:
    for request in requests:
        for caller in request.callers:
            caller.errback(failure)
            yield
