"""A model of one subscription as plain dicts: what the state machine is compared with, rule by rule."""

from __future__ import annotations

from typing import Any

from durable_streams.server.subscriptions.model import SubscriptionConfig

#: The seconds after the n-th failure, or the n-th of the fruitless wakes that are spaced.
DELAYS = (1, 2, 4, 8, 16, 32, 60)

#: The paths of the tests that the pattern ``events/*`` matches.
MATCHING = ("events/a", "events/b")


def delay(count: int) -> float:
    """Return the seconds after the n-th failure in a row."""
    return DELAYS[min(count, len(DELAYS)) - 1]


class Refused(Exception):
    """The model refuses a request; the argument is the code."""


class Model:
    """
    One subscription.

    :ivar streams: the streams that exist: path -> ``{"id", "tail"}``.
    :ivar links: path -> ``{"explicit", "id", "at"}``: ``at`` is a position in the stream ``id``.
    :ivar wake: None, or ``{"id", "generation", "holder", "until", "given", "failures", "due", "progress"}``, with
        ``delivered`` and ``trying``; ``given`` maps the paths that were sent to a worker to the ids and tails of their
        streams.
    """

    def __init__(self, config: SubscriptionConfig, now: float) -> None:
        self.webhook = config.type == "webhook"
        self.ttl = config.lease_ttl_ms / 1000
        self.streams: dict[str, dict[str, int]] = {}
        self.links: dict[str, dict[str, Any]] = {path: self.absent() for path in config.streams}
        self.wake: dict[str, Any] | None = None
        self.generation = 0
        self.fruitless = 0
        self.scheduled: float | None = None

    @staticmethod
    def absent() -> dict[str, Any]:
        """Return an explicit link of a stream that does not exist."""
        return {"explicit": True, "id": None, "at": 0}

    def at(self, path: str) -> int:
        """Return the cursor of a link in the stream that exists now."""
        link, stream = self.links[path], self.streams.get(path)
        return link["at"] if stream is not None and stream["id"] == link["id"] else 0

    def pending(self) -> list[str]:
        """Return the paths with work, sorted."""
        return sorted(p for p in self.links if p in self.streams and self.streams[p]["tail"] > self.at(p))

    def taken(self) -> bool:
        """Return whether a worker has the wake."""
        assert self.wake is not None
        return bool(self.wake["delivered"]) if self.webhook else self.wake["holder"] is not None

    def given(self) -> dict[str, tuple[int | None, int]]:
        """Return what a snapshot has."""
        empty: dict[str, Any] = {"id": None, "tail": 0}
        return {p: (self.streams.get(p, empty)["id"], self.streams.get(p, empty)["tail"]) for p in self.links}

    def seen(self, path: str) -> None:
        """Adapt the link of a path to its stream."""
        stream, link = self.streams.get(path), self.links.get(path)
        if stream is None:
            if link is not None:
                if link["explicit"]:
                    self.links[path] = self.absent()
                else:
                    del self.links[path]
        elif link is None:
            if path in MATCHING:
                self.links[path] = {"explicit": False, "id": stream["id"], "at": 0}
        elif link["id"] != stream["id"]:
            link.update(id=stream["id"], at=0)

    def end(self, now: float) -> None:
        """End the wake."""
        assert self.wake is not None
        self.fruitless = 0 if self.wake["progress"] else self.fruitless + 1
        self.scheduled = now + delay(self.fruitless - 2) if self.fruitless >= 3 else None
        self.wake = None

    def issue(self, wake_id: str, now: float) -> None:
        """Begin a wake."""
        self.generation += 1
        self.scheduled = None
        self.wake = {
            "id": wake_id,
            "generation": self.generation,
            "holder": None,
            "until": None,
            "given": self.given() if self.webhook else {},
            "failures": 0,
            "trying": True,
            "due": now + 6,
            "progress": False,
            "delivered": False,
        }

    def expired(self, now: float) -> bool:
        """Return whether a worker has let its lease run out."""
        return self.wake is not None and self.taken() and now >= self.wake["until"]

    def rest(self, wake_id: str, now: float) -> None:
        """Do what happens by itself."""
        if self.expired(now):
            self.end(now)
        if self.wake is not None and not self.taken() and not self.pending():
            self.wake = None
        if self.wake is None:
            if not self.pending():
                self.fruitless, self.scheduled = 0, None
            elif self.scheduled is None or self.scheduled <= now:
                self.issue(wake_id, now)

    def take(self, now: float) -> None:
        """Give the wake to a worker, or extend its lease."""
        assert self.wake is not None
        self.wake.update(until=now + self.ttl, delivered=True, failures=0, due=None)

    def claim(self, worker: str, wake_id: str, now: float) -> None:
        """Claim."""
        if self.wake is not None and self.wake["holder"] is not None:
            if not self.expired(now):
                raise Refused("ALREADY_CLAIMED")
            self.end(now)
        if not self.pending():
            self.wake, self.fruitless, self.scheduled = None, 0, None
            raise Refused("NO_PENDING_WORK")
        if self.wake is None:
            self.issue(wake_id, now)
        assert self.wake is not None
        self.scheduled = None
        self.take(now)
        self.wake.update(holder=worker, given=self.given())

    def check(self, token: tuple[str, int], now: float) -> dict[str, Any]:
        """Return the wake if the token is its own."""
        wake = self.wake
        if wake is None or (wake["id"], wake["generation"]) != token or self.expired(now):
            raise Refused("FENCED")
        return wake

    def ack(
        self, token: tuple[str, int], acks: list[tuple[str, int, int]], done: bool, wake_id: str, now: float
    ) -> bool:
        """Acknowledge ``(path, stream id, position)``, and return next_wake."""
        wake = self.check(token, now)
        moves: dict[str, int] = {}
        for path, stream_id, position in acks:
            stream, given = self.streams.get(path), wake["given"].get(path)
            if path not in self.links or stream is None:
                if given is None:
                    raise Refused("INVALID_OFFSET")
            elif stream_id == stream["id"]:
                if not moves.get(path, self.at(path)) <= position <= stream["tail"]:
                    raise Refused("INVALID_OFFSET")
                moves[path] = position
            elif given is None or given[0] != stream_id:
                raise Refused("INVALID_OFFSET")
        for path, position in moves.items():
            wake["progress"] = wake["progress"] or position > self.at(path)
            self.links[path].update(id=self.streams[path]["id"], at=position)
        if not done:
            self.take(now)
            return False
        self.end(now)
        self.rest(wake_id, now)
        return bool(self.pending())

    def sends(self, of: str, now: float) -> bool:
        """Return whether a delivery of a wake may begin."""
        wake = self.wake
        if wake is None or wake["id"] != of or wake["due"] is None:
            return False
        return bool(wake["trying"]) or wake["due"] <= now

    def outcome(self, of: str, outcome: str, wake_id: str, now: float) -> None:
        """Record the outcome of a delivery."""
        wake = self.wake
        if wake is None or wake["id"] != of or wake["holder"] is not None:
            return
        if outcome == "failed":
            failures = wake["failures"] + 1
            wake.update(failures=failures, trying=False, due=now + delay(failures), delivered=False)
        elif not self.webhook:
            wake.update(failures=0, due=None, delivered=True)
        elif outcome == "accepted":
            self.take(now)
        else:
            for path, (stream_id, tail) in wake["given"].items():
                stream = self.streams.get(path)
                if path in self.links and stream is not None and stream["id"] == stream_id and tail > self.at(path):
                    self.links[path].update(id=stream_id, at=tail)
                    wake["progress"] = True
            self.end(now)
        self.rest(wake_id, now)
