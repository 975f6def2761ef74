"""Clients that append, close, delete, fork and read, each request at a random node, and record what was answered."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from .history import Appending, Arrival, Ending, Forking, History, Outcome, Place, Reading

#: How long a client waits for an answer, in seconds: longer than a node waits for its database.
_PATIENCE: Final = 12.0

#: The largest padding of an append, in bytes.
_PADDING: Final = 300

#: The answers after which nothing was changed.
_REFUSED: Final = range(400, 500)

_TEXT: Final = {"Content-Type": "text/plain"}

Answer = tuple[int, dict[str, str], bytes]

#: A connection of a client: the port, and 0, or the number of the request in a burst.
_Key = tuple[int, int]


class Client(threading.Thread):
    """
    A client, until it is told to stop.

    :param ports: those of the nodes.
    :param work: does one request or a few.
    """

    def __init__(self, ports: Sequence[int], history: History, seed: int, work: Callable[[Client], object]) -> None:
        super().__init__(daemon=True)
        self.history = history
        self.random = Random(seed)
        self.number = 0
        self.failure: BaseException | None = None
        self._ports = ports
        self._work = work
        self._stopping = threading.Event()
        self._connections: dict[_Key, http.client.HTTPConnection] = {}

    def run(self) -> None:
        """Work until the end."""
        try:
            while not self._stopping.is_set():
                self._work(self)
        except BaseException as error:
            self.failure = error
        for connection in self._connections.values():
            connection.close()

    def end(self) -> None:
        """Stop after the present request."""
        self._stopping.set()

    @property
    def is_ending(self) -> bool:
        """Whether it is to stop."""
        return self._stopping.is_set()

    def ask(self, method: str, name: str, body: bytes | None = None, **headers: str) -> Answer | None:
        """Send a request to a random node; return None if no answer came."""
        key = (self.random.choice(self._ports), 0)
        fields = {field.replace("_", "-"): value for field, value in headers.items()}
        answer = self._receive(key) if self._send(key, method, name, body, fields) else None
        if answer is None:
            # A node that was killed refuses connections: do not spin.
            time.sleep(0.02)
        return answer

    def _send(self, key: _Key, method: str, name: str, body: bytes | None, fields: dict[str, str]) -> bool:
        """Send a request on the connection of a key. Return whether it was sent."""
        connection = self._connections.get(key) or http.client.HTTPConnection("127.0.0.1", key[0], timeout=_PATIENCE)
        self._connections[key] = connection
        try:
            connection.request(method, f"/v1/stream/{name}", body, fields)
        except (OSError, http.client.HTTPException):
            self._connections.pop(key).close()
            return False
        return True

    def _receive(self, key: _Key) -> Answer | None:
        """Return the answer to a request that was sent; None if it did not come."""
        try:
            response = self._connections[key].getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        except (OSError, http.client.HTTPException):
            self._connections.pop(key).close()
            return None

    def token(self, name: str) -> bytes:
        """Return bytes that no other append has."""
        self.number += 1
        padding = "+" * (self.random.randrange(_PADDING) if self.random.random() < 0.3 else 0)
        return f"{name}.{self.name.lower()}.{self.number}{padding};".encode()

    def append(self, name: str, **headers: str) -> Appending:
        """Append once, and record it."""
        token = self.token(name)
        sequence = headers.get("Stream_Seq")
        invoked = time.monotonic()
        outcome, place = self._outcome(self.ask("POST", name, token, **_TEXT, **headers))
        appended = Appending(
            name, token, outcome, place, invoked, time.monotonic(), None, None if sequence is None else int(sequence)
        )
        self.history.add(appended)
        return appended

    def burst(self, names: Sequence[str]) -> None:
        """Append to many streams of one node at the same time, in a random order."""
        port = self.random.choice(self._ports)
        sent: list[tuple[_Key, str, bytes, float, bool]] = []
        for number, name in enumerate(self.random.sample(names, len(names)), 1):
            token, invoked = self.token(name), time.monotonic()
            key = (port, number)
            sent.append((key, name, token, invoked, self._send(key, "POST", name, token, _TEXT)))
        for key, name, token, invoked, was_sent in sent:
            outcome, where = self._outcome(self._receive(key) if was_sent else None)
            self.history.add(Appending(name, token, outcome, where, invoked, time.monotonic()))

    def append_as_writer(self, name: str, writer: str, seq: int) -> None:
        """Append as an idempotent writer: again and again, until it is acknowledged or the client is to stop."""
        token = self.token(name)
        invoked = time.monotonic()
        outcome, place = Outcome.UNKNOWN, None
        while outcome is not Outcome.DONE and not (self.is_ending and self.random.random() < 0.2):
            headers = {"Producer_Id": writer, "Producer_Epoch": "0", "Producer_Seq": str(seq)}
            answer = self.ask("POST", name, token, **_TEXT, **headers)
            outcome, place = self._outcome(answer)
            assert outcome is not Outcome.REFUSED, f"the writer's append was refused: {answer}"
            if answer is not None and answer[0] == 204:
                # The answer to a duplicate has the stream's tail, not the place of the append.
                place = None
        self.history.add(Appending(name, token, outcome, place, invoked, time.monotonic(), (writer, seq)))

    def end_stream(self, name: str, kind: str) -> Outcome:
        """Close or delete a stream, and record it."""
        invoked = time.monotonic()
        is_close = kind == "close"
        answer = self.ask("POST", name, b"", Stream_Closed="true") if is_close else self.ask("DELETE", name)
        outcome, place = self._outcome(answer)
        self.history.add(Ending(name, kind, outcome, place, invoked, time.monotonic()))
        return outcome

    def create(self, name: str, **headers: str) -> Answer | None:
        """Create a stream."""
        return self.ask("PUT", name, None, **_TEXT, **headers)

    def fork(self, name: str, source: str, place: Place) -> None:
        """Fork a stream at a place that was answered, until it is acknowledged; then append to it."""
        offset = f"{place.incarnation:016d}_{place.position:016d}"
        while not self.is_ending:
            answer = self.ask("PUT", name, Stream_Forked_From=f"/v1/stream/{source}", Stream_Fork_Offset=offset)
            if answer is not None and answer[0] in (200, 201):
                self.history.add(Forking(name, source, place))
                return
            assert answer is None or answer[0] >= 500, f"the fork was refused: {answer}"

    def read(self, name: str) -> None:
        """Read a whole stream, and record it."""
        invoked = time.monotonic()
        answer = self.ask("GET", f"{name}?offset=-1")
        if answer is None or answer[0] >= 500:
            return
        if answer[0] == 404:
            self.history.add(Reading(name, 0, None, invoked, time.monotonic()))
            return
        assert answer[0] == 200, answer
        place = Place.parse(answer[1]["stream-next-offset"])
        assert place.position == len(answer[2]), f"{name}: {place} after {len(answer[2])} bytes"
        self.history.add(Reading(name, place.incarnation, answer[2], invoked, time.monotonic()))

    def follow(self, name: str) -> None:
        """Follow a stream by long-polls until it is closed or the client is to stop, and record what arrives."""
        offset, live, closed = "-1", "", False
        while not closed and not self.is_ending:
            answer = self.ask("GET", f"{name}?offset={offset}{live}")
            if answer is None or answer[0] >= 500:
                continue
            assert answer[0] in (200, 204), answer
            offset, live = answer[1]["stream-next-offset"], "&live=long-poll"
            closed = answer[1].get("stream-closed") == "true"
            self.history.add(Arrival(name, Place.parse(offset).position, closed, time.monotonic()))
        while not self.is_ending:
            time.sleep(0.05)

    @staticmethod
    def _outcome(answer: Answer | None) -> tuple[Outcome, Place | None]:
        if answer is None or answer[0] >= 500:
            return Outcome.UNKNOWN, None
        if answer[0] in _REFUSED:
            return Outcome.REFUSED, None
        offset = answer[1].get("stream-next-offset")
        return Outcome.DONE, None if offset is None else Place.parse(offset)
