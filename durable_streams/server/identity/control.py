"""Access control: the authentication and the rules in force, whose files are read again when they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..blocking_calls import BlockingCalls
from ..clocks import clock_of
from ..interfaces import NowOrLater
from ..regular_files import file_signature
from .authentication import Authentication
from .policy import Policy

#: The time between two checks whether files have changed, in seconds.
CHECK_INTERVAL: Final = 1.0

#: A file that has changed less than this before it is first read may have changed afterwards, in seconds.
_SETTLED: Final = 2.0

#: The state of the files of a source.
_Signatures = list[tuple[int, ...] | None]

_log = Logger()


class Source(Protocol):
    """A source of tokens, keys or rules: files, or a URL, whose content may change while the server runs."""

    @property
    def files(self) -> Sequence[str]:
        """The absolute paths of the files. A change of one of them asks for :meth:`reload`."""

    def start(self) -> None:
        """Start work in the background, such as fetching keys."""

    def stop(self) -> None:
        """Stop it, and leave no delayed call."""

    def reload(self) -> NowOrLater[object]:
        """
        Read the files again. If they cannot be used, log the reason and keep what was read before.

        :returns: when that is done. False if it failed, and may succeed without a change of the files.
        """

    def on_change(self, call: Callable[[], None], /) -> None:
        """Register a call for each change of what was read, after which earlier results must be checked again."""


@runtime_checkable
class FileSource(Protocol):
    """
    A source that is a file.

    :ivar setting: the name of the setting that has its path.
    """

    setting: str

    @property
    def stale(self) -> bool:
        """Whether the file could not be used when it was read last, so that what is in force is older."""


@runtime_checkable
class ListedSource(Protocol):
    """
    A source whose parts can be listed, for the audit log.

    :ivar content: what they are: ``tokens`` or ``keys``.
    """

    content: str

    @property
    def listed(self) -> Mapping[str, object]:
        """The id of each part -> what differs after a change, without secrets."""


class AccessControl:
    """
    The authentication of requests and the rules about them that are in force.

    While it is started, the files of its sources are checked once a second, in a thread. A source whose files have
    changed is read again; so are all of them by :meth:`reload`.

    :param authentication: makes principals of requests.
    :param policy: the rules.
    :param reactor: the time, and the thread for files.
    :param sources: the tokens and keys of the authentication. A change of one empties its caches.
    :ivar authentication: the authentication.
    :ivar policy: the present rules.
    :ivar generation: the number of changes so far.
    :ivar running: whether files are checked.
    """

    def __init__(
        self, authentication: Authentication, policy: Policy, reactor: Any, sources: Sequence[Source] = ()
    ) -> None:
        self.authentication = authentication
        self.policy = policy
        self.generation = 0
        self.running = False
        self._clock = clock_of(reactor)
        self._sources = list(sources)
        self._listeners: list[Callable[[], None]] = []
        self._files = BlockingCalls(reactor)
        self._seen = self._first_signatures()
        self._next: IDelayedCall | None = None
        for source in sources:
            source.on_change(self.changed)

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change of tokens, keys or rules. It is made in the reactor's thread."""
        self._listeners.append(call)

    @property
    def sources(self) -> Sequence[Source]:
        """The sources of tokens, keys and rules."""
        return self._sources

    def add_source(self, source: Source) -> None:
        """Add a source whose changes do not concern the authentication, such as a file of rules."""
        self._sources.append(source)
        self._seen = self._first_signatures()

    def stale_files(self) -> dict[str, bool]:
        """Return whether each file could not be used when it was read last, by the name of its setting."""
        return {source.setting: source.stale for source in self._sources if isinstance(source, FileSource)}

    def set_policy(self, policy: Policy) -> None:
        """Replace the rules, and notify of the change."""
        self.policy = policy
        self._notify()

    def changed(self) -> None:
        """Empty the caches of the authentication, and notify of the change: credentials may have been revoked."""
        self.authentication.forget()
        self._notify()

    def _notify(self) -> None:
        self.generation += 1
        for call in self._listeners:
            try:
                call()
            except Exception:
                # The others must be called, or they would go on by the old rules.
                _log.failure("Applying changed tokens, keys or rules failed.")

    # Files

    def start(self) -> None:
        """Start the work of the sources and the checks of files. If that was done, nothing happens."""
        if self.running:
            return
        self.running = True
        for source in self._sources:
            source.start()
        self._schedule()

    def stop(self) -> None:
        """Stop both, and empty the caches of the authentication."""
        if not self.running:
            return
        self.running = False
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._files.close()
        for source in self._sources:
            source.stop()
        self.authentication.close()

    def reload(self) -> Deferred[None]:
        """
        Read all sources again. Errors are logged.

        :returns: fires when that is done.
        """
        done = [self._reload(source) for source in self._sources]
        return DeferredList(done).addCallback(lambda _: None)

    def _reload(self, source: Source) -> Deferred[None]:
        def record(outcome: object) -> None:
            if outcome is False:
                # No state of the files is equal to this one, so that the next check reads them again.
                self._seen[self._sources.index(source)] = []

        return maybeDeferred(source.reload).addCallback(record).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        _log.failure("Reading tokens, keys or rules again failed. They stay as they were.", failure=failure)

    def _first_signatures(self) -> list[_Signatures]:
        """Return the state of the files that were just read; nothing for those that may have changed meanwhile."""
        now = self._clock.wall()
        return [
            [] if any(each is not None and abs(each[1] / 1e9 - now) < _SETTLED for each in signatures) else signatures
            for signatures in self._signatures()
        ]

    def _signatures(self) -> list[_Signatures]:
        return [[file_signature(path) for path in source.files] for source in self._sources]

    def _schedule(self) -> None:
        # A check that ends after a restart finds the next one scheduled.
        if self.running and self._next is None:
            self._next = self._clock.callLater(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        self._next = None
        checked = self._files.do(self._signatures).addCallback(self._compare).addErrback(self._log_failure)
        checked.addCallback(lambda _: self._schedule())

    def _compare(self, found: list[_Signatures]) -> Deferred[Any] | None:
        """Read the sources again whose files have changed."""
        if not self.running:
            return None
        changed = [source for source, now, seen in zip(self._sources, found, self._seen, strict=True) if now != seen]
        self._seen = found
        return DeferredList([self._reload(source) for source in changed]) if changed else None
