"""What the database as a whole suffers from: old snapshots, waits for locks and standbys, a queue of NOTIFY that fills.

An old snapshot (a report, pg_dump, an idle transaction, a replication slot) keeps PostgreSQL from reusing the space of
earlier versions of rows. Appends to busy streams become several times slower within seconds, for all nodes.
"""

from __future__ import annotations

from typing import Final

from psycopg.pq.abc import PGresult
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...clocks import clock_of
from ...errors import StreamsError
from ..repeated_logs import RepeatedLogs
from .packing import to_float, to_int
from .queries import ConnectionLost, Query, QueryFailed, Statement, value_of
from .repeating import RepeatedTask

#: The time between two looks, in seconds.
INTERVAL: Final = 10.0

#: How old a snapshot may be before a warning is logged, in seconds.
MAX_AGE: Final = 60.0

#: How full the queue of NOTIFY may be before a warning is logged, from 0 to 1. A NOTIFY fails when it is full.
_MAX_QUEUE: Final = 0.5

# Whoever may connect sees backend_xmin and datid of all sessions. Sessions of other databases hold nothing back here,
# except those that send to a standby; and a vacuum does not either, though it has a snapshot. Of waits for a standby
# (SyncRep), a role sees its own.
_LOOK: Final = Statement(
    "vitals",
    """
SELECT pg_notification_queue_usage()::float8, (SELECT count(*) FROM pg_locks WHERE NOT granted),
    h.age, h.xmin, h.holder,
    (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND clock_timestamp() - state_change > '5 s')
FROM (SELECT 1) AS one LEFT JOIN (
    SELECT age(x.xmin)::bigint AS age, x.xmin::text AS xmin, x.holder FROM (
        SELECT backend_xmin AS xmin, 'the process ' || pid AS holder FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
            AND backend_type IS DISTINCT FROM 'autovacuum worker'
            AND (datid IS NULL OR datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
        UNION ALL SELECT xmin, 'the replication slot ' || slot_name FROM pg_replication_slots WHERE xmin IS NOT NULL
        UNION ALL SELECT transaction, 'the prepared transaction ' || gid FROM pg_prepared_xacts
            WHERE database = current_database()
    ) AS x ORDER BY age(x.xmin) DESC LIMIT 1
) AS h ON true
""",
)

_log = Logger()


class DatabaseVitals:
    """
    Looks at the database every :data:`INTERVAL` seconds.

    :param query: runs a statement that only reads.
    :ivar notify_queue: how full the queue of NOTIFY is, from 0 to 1.
    :ivar lock_waits: the number of locks that sessions wait for.
    :ivar oldest_xmin: the number of transactions that began since the oldest snapshot.
    """

    def __init__(self, query: Query, clock: IReactorTime) -> None:
        self._query = query
        self._clock = clock_of(clock)
        self._looking = RepeatedTask(self._look, INTERVAL, "Looking at the database failed.", clock)
        self._xmin = b""
        self._xmin_since = self._clock.seconds()
        self._logs = RepeatedLogs(clock)
        self.notify_queue = 0.0
        self.lock_waits = 0
        self.oldest_xmin = 0

    @property
    def oldest_xmin_seconds(self) -> float:
        """For how long the same snapshot has been the oldest one while other transactions began, in seconds."""
        return self._clock.seconds() - self._xmin_since if self.oldest_xmin > 0 else 0.0

    def start(self) -> None:
        """Look now, and regularly from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Look no more."""
        self._looking.cancel()

    async def _look(self) -> None:
        try:
            result = await self._query(_LOOK, ())
        except (QueryFailed, ConnectionLost, StreamsError):
            # Whoever reads or writes streams reports it.
            return
        if not self._looking.stopped:
            self._note(result)

    def _note(self, result: PGresult) -> None:
        age, xmin, holder = (result.get_value(0, column) for column in range(2, 5))
        self.notify_queue, self.lock_waits = to_float(value_of(result, 0, 0)), to_int(value_of(result, 0, 1))
        self.oldest_xmin = 0 if age is None else to_int(age)
        # While nothing is written, each snapshot has the same xmin, and the age is 0.
        if (xmin or b"") != self._xmin or not self.oldest_xmin:
            self._xmin = xmin or b""
            self._xmin_since = self._clock.seconds()
        if self.oldest_xmin_seconds >= MAX_AGE and self._logs.is_due("xmin"):
            _log.warn(
                "The database: a snapshot of {holder} is held for at least {seconds:.0f} s, so appends to busy streams "
                "become slower. End it: see pg_stat_activity, and docs/postgres.rst.",
                holder=(holder or b"").decode(),
                seconds=self.oldest_xmin_seconds,
            )
        if to_int(value_of(result, 0, 5)) and self._logs.is_due("standby"):
            _log.warn(
                "The database: commits have waited for a synchronous standby for more than 5 s. Start one of those in "
                "synchronous_standby_names, or change that setting: see docs/postgres.rst."
            )
        if self.notify_queue >= _MAX_QUEUE and self._logs.is_due("queue"):
            _log.warn(
                "The database: the queue of NOTIFY is {percent:.0f} % full. End the session that has sent LISTEN and "
                "does not read: see pg_stat_activity.",
                percent=100 * self.notify_queue,
            )
