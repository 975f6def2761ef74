"""The work of ``append``: one append after the other, each acknowledged before the next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from ..blocking_calls import BlockingCalls
from ..client import AppendResult, ClientError, IdempotentWriter, RefusedEpoch, RefusedGap, StreamClient
from ..client.values import media_type
from .append_input import Cut, appends_of
from .append_state import RunState, clock_epoch
from .errors import CommandError
from .output import note
from .stream_requests import first_head, sentence


class Appending(Struct, frozen=True, kw_only=True):
    """
    What to append, and how.

    :ivar url: the stream.
    :ivar arguments: each is one append.
    :ivar files: paths; ``-`` is the standard input.
    :ivar cut: how files become appends.
    :ivar content_type: the stream's content type; None to ask for it.
    :ivar close: whether to close the stream at the end.
    :ivar producer_id: the name of an idempotent producer; None for plain appends.
    :ivar epoch: its epoch; None for one by the clock.
    :ivar state: the file of ``--state``.
    :ivar retry_for: how long an append of a producer is repeated, in seconds.
    :ivar retry_first_for: how long the first request is repeated.
    """

    url: str
    arguments: Sequence[str]
    files: Sequence[str]
    cut: Cut
    content_type: str | None
    close: bool
    producer_id: str | None
    epoch: int | None
    state: Path | None
    retry_for: float
    retry_first_for: float


class Appended(Struct):
    """
    The outcome, as ``--json`` prints it.

    :ivar appends: how many appends the input had.
    :ivar duplicates: how many of them an earlier run had stored.
    :ivar bytes: their size.
    :ivar next_offset: the tail after the last one; None if there was none.
    :ivar closed: whether the stream was closed.
    :ivar epoch: the producer's epoch; None for plain appends.
    """

    url: str
    appends: int = 0
    duplicates: int = 0
    bytes: int = 0
    next_offset: str | None = None
    closed: bool = False
    epoch: int | None = None


class _Sender(Protocol):
    """Sends appends in order."""

    async def send(self, number: int, data: bytes, close: bool) -> AppendResult | None:
        """Append; return None if an earlier run has stored it, and nothing was sent."""

    def end(self, count: int) -> None:
        """Note that everything was appended."""

    def fail(self) -> None:
        """Note that the run ends early."""


class _PlainSender:
    """Sends each append once."""

    def __init__(self, client: StreamClient, url: str, content_type: str) -> None:
        self._client = client
        self._url = url
        self._content_type = content_type

    async def send(self, number: int, data: bytes, close: bool) -> AppendResult:
        return await self._client.append(self._url, data, self._content_type, close=close)

    def end(self, count: int) -> None:
        pass

    def fail(self) -> None:
        pass


class _ProducerSender:
    """Sends appends as an idempotent producer; the number of an append is its sequence number."""

    def __init__(self, writer: IdempotentWriter, state: RunState | None) -> None:
        self._writer = writer
        self._state = state
        #: The last sequence number that the stream had before this run, as far as an answer has told.
        self._stored = -1

    async def send(self, number: int, data: bytes, close: bool) -> AppendResult | None:
        if number <= self._stored or (self._state is not None and self._state.skip(number, data)):
            if number <= self._stored and self._state is not None:
                self._state.acknowledged(number, data)
            self._writer.next_seq = number + 1
            return None
        retries = self._retries
        result = await self._writer.append(data, close)
        if result.duplicate and self._retries == retries and result.last_seq is not None:
            # An earlier run has stored this append, and all others up to the last one that the stream knows.
            self._stored = result.last_seq
        elif result.duplicate:
            # This run has stored it, by an attempt whose answer was lost.
            result = AppendResult(result.next_offset, result.closed, False, result.last_seq)
        if self._state is not None:
            self._state.acknowledged(number, data)
        return result

    _retries = 0

    def retried(self, error: ClientError) -> None:
        """Note that an append is sent again; print the second error in a row."""
        self._retries += 1
        if error.temporary and self._retries % 10 == 2:
            note(f"{error} Trying again.")

    def end(self, count: int) -> None:
        if self._state is not None:
            self._state.finish(count)

    def fail(self) -> None:
        if self._state is not None:
            self._state.save()


async def append_all(client: StreamClient, wanted: Appending) -> Appended:
    """
    Append the whole input.

    :raises CommandError: an append failed; the message has the number of those that are stored.
    """
    content_type = wanted.content_type
    if content_type is None:
        content_type = (await first_head(client, wanted.url, wanted.retry_first_for)).content_type
    is_json = media_type(content_type) == "application/json"
    if wanted.cut.json_lines and not is_json:
        raise CommandError(f"--json-lines needs a JSON stream; this one is {content_type}. Use --lines.")
    if wanted.cut.lines and is_json:
        raise CommandError("--lines is for streams without JSON messages. Use --json-lines.")
    done = Appended(wanted.url)
    sender = await _sender(client, wanted, content_type, done)
    calls = BlockingCalls(client.http.reactor)
    try:
        async with aclosing(appends_of(calls, wanted.arguments, wanted.files, wanted.cut, is_json)) as bodies:
            async for data in bodies:
                if data:
                    await _append(sender, data, done)
        if wanted.close:
            await _close(sender, done)
        elif not done.appends:
            raise CommandError("There is nothing to append: the input is empty.")
        sender.end(done.appends + wanted.close)
    except BaseException:
        sender.fail()
        raise
    finally:
        calls.close()
    return done


async def _append(sender: _Sender, data: bytes, done: Appended) -> None:
    result = await _send(sender, data, False, done)
    done.appends += 1
    done.bytes += len(data)
    done.duplicates += result is None or result.duplicate


async def _close(sender: _Sender, done: Appended) -> None:
    await _send(sender, b"", True, done)
    done.closed = True


async def _send(sender: _Sender, data: bytes, close: bool, done: Appended) -> AppendResult | None:
    try:
        result = await sender.send(done.appends, data, close)
    except ClientError as error:
        if not done.appends and not isinstance(error, RefusedEpoch | RefusedGap):
            raise
        raise CommandError(_failure(error, done.appends)) from None
    if result is not None:
        done.next_offset = result.next_offset or done.next_offset
        done.closed = result.closed
    return result


def _failure(error: ClientError, stored: int) -> str:
    """Return the error of an append, with the number of those before it."""
    text = sentence(error)
    if isinstance(error, RefusedEpoch):
        text = (
            f"The stream knows the epoch {error.epoch} of this producer, which is newer. Another program uses the "
            f"producer's id; to take it over, give --epoch {error.epoch + 1} or higher."
        )
    elif isinstance(error, RefusedGap):
        text = (
            f"The stream expects append {error.expected} of this producer and epoch, so it has forgotten the earlier "
            "ones. Begin a new epoch, with the input that is not stored."
        )
    if stored:
        text += f" {stored} append{'s are' if stored > 1 else ' is'} stored."
    return text


async def _sender(client: StreamClient, wanted: Appending, content_type: str, done: Appended) -> _Sender:
    """Return what sends the appends; note the epoch of a producer."""
    if wanted.producer_id is None:
        return _PlainSender(client, wanted.url, content_type)
    state = None if wanted.state is None else RunState(wanted.state, wanted.url, wanted.producer_id)
    epoch = state.epoch if state is not None else clock_epoch() if wanted.epoch is None else wanted.epoch
    done.epoch = epoch
    senders: list[_ProducerSender] = []
    writer = await client.writer(
        wanted.url,
        wanted.producer_id,
        epoch,
        content_type=content_type,
        give_up_after=wanted.retry_for,
        notice=lambda error: senders[0].retried(error),  # noqa: PLW0108 (there is none yet)
    )
    senders.append(_ProducerSender(writer, state))
    return senders[0]
