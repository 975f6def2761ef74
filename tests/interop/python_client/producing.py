"""Scenarios about idempotent producers: retries, duplicates, gaps, epochs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.interop.python_client.checks import expect, expect_error, expect_rising, expect_true
from tests.interop.python_client.drivers import HTTP_SECONDS, Driver, client, httpx
from tests.interop.python_client.writing import JSON, TEXT


@dataclass
class Numbering:
    """The producer headers of a handle; the client asks for them anew at each request."""

    producer: str = "interop"
    epoch: int = 0
    sequence: int = 0

    def headers(self) -> dict[str, Any]:
        return {
            "Producer-Id": self.producer,
            "Producer-Epoch": lambda: str(self.epoch),
            "Producer-Seq": lambda: str(self.sequence),
        }


async def repeated_batches_count_once(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    numbering = Numbering()
    handle = api.handle(url, TEXT, headers=numbering.headers())
    offsets: list[str] = []
    for numbering.sequence, piece in enumerate(["a", "b", "c"]):
        first, *repeated = await api.append(handle, piece, piece, piece)
        expect(repeated, [first, first], f"the offsets of the repeated {piece!r}")
        offsets.append(first)
    expect_rising(offsets, "offsets after each batch")
    expect(await api.read_text(url), "abc", "the text")


async def retries_after_lost_answers_count_once(api: Driver, url: str) -> None:
    await api.create(url, JSON)
    lost: list[Any] = []

    def lose_every_other_answer(response: Any) -> None:
        lost.append(response)
        if len(lost) % 2:
            raise httpx.ReadError("the answer was lost on its way", request=response.request)

    http = api.http_client(lambda request: None, lose_every_other_answer)
    numbering = Numbering()
    try:
        handle = api.handle(url, JSON, headers=numbering.headers(), client=http)
        for numbering.sequence in range(5):
            message = {"n": numbering.sequence}
            try:
                await api.append(handle, message)
            except httpx.ReadError:
                await api.append(handle, message)
    finally:
        await api.close_http(http)
    expect([response.status_code for response in lost], [200, 204] * 5, "the statuses")
    expect(await api.read_json(url), [{"n": number} for number in range(5)], "the messages")


async def gaps_are_refused(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    numbering = Numbering()
    handle = api.handle(url, TEXT, headers=numbering.headers())
    await api.append(handle, "a")
    numbering.sequence = 2
    await expect_error(lambda: api.append(handle, "never"), client.SeqConflictError, 409, "a gap")
    numbering.sequence = 1
    await api.append(handle, "b")
    expect(await api.read_text(url), "ab", "the text")


async def claiming_an_epoch_fences_the_one_before(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    old, new = Numbering(epoch=0), Numbering(epoch=1)
    zombie = api.handle(url, TEXT, headers=old.headers())
    successor = api.handle(url, TEXT, headers=new.headers())
    await api.append(zombie, "old ")
    await api.append(successor, "new ")
    old.sequence = 1
    await expect_error(lambda: api.append(zombie, "never"), client.DurableStreamError, 403, "the old epoch")
    new.sequence = 1
    await api.append(successor, "again")
    new.epoch, new.sequence = 2, 1
    await expect_error(lambda: api.append(successor, "no"), client.DurableStreamError, 400, "an epoch begun at 1")
    expect(await api.read_text(url), "old new again", "the text")


async def producers_do_not_share_numbers(api: Driver, url: str) -> None:
    await api.create(url, JSON)
    for producer in ("a", "b", "c"):
        numbering = Numbering(producer)
        handle = api.handle(url, JSON, headers=numbering.headers())
        for numbering.sequence in range(3):
            await api.append(handle, f"{producer}{numbering.sequence}")
    expected = [f"{producer}{number}" for producer in "abc" for number in range(3)]
    expect(await api.read_json(url), expected, "the messages")


async def repeated_closing_by_a_producer_counts_once(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    numbering = Numbering()
    headers = {**numbering.headers(), "Stream-Closed": "true"}
    closing = api.handle(url, TEXT, headers=headers)
    first, again = await api.append(closing, "all at once", "all at once")
    expect(again, first, "the final offset of the repeated closing")
    numbering.sequence = 1
    await expect_error(lambda: api.append(closing, "more"), client.DurableStreamError, 409, "another batch")
    expect(await api.read_text(url), "all at once", "the text")


async def the_producer_class_delivers_in_order(api: Driver, url: str) -> None:
    await api.create(url, JSON)
    errors: list[Exception] = []
    async with httpx.AsyncClient(timeout=HTTP_SECONDS) as http:
        producer = client.IdempotentProducer(
            url,
            "class",
            client=http,
            content_type=JSON,
            linger_ms=0,
            max_batch_bytes=40,
            on_error=errors.append,
        )
        for number in range(60):
            producer.append(json.dumps({"n": number}))
            if number % 20 == 0:
                await asyncio.sleep(0.01)
        await producer.flush()
        await producer.close()
    expect(errors, [], "the errors reported")
    expect(await api.read_json(url), [{"n": number} for number in range(60)], "the messages")


async def the_producer_class_claims_and_is_fenced(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    errors: list[Exception] = []
    async with httpx.AsyncClient(timeout=HTTP_SECONDS) as http:
        options = {"client": http, "content_type": TEXT}
        first = client.IdempotentProducer(url, "class", epoch=3, on_error=errors.append, **options)
        first.append("first ")
        await first.flush()
        second = client.IdempotentProducer(url, "class", auto_claim=True, **options)
        second.append("second")
        await second.flush()
        expect(second.epoch, 4, "the epoch claimed")
        first.append("never")
        try:
            await first.flush()
        except client.StaleEpochError as error:
            errors.append(error)
        await second.close_stream()
    expect_true(any(isinstance(error, client.StaleEpochError) for error in errors), f"stale, not {errors}")
    expect(await api.read_text(url), "first second", "the text")


SCENARIOS = (
    repeated_batches_count_once,
    retries_after_lost_answers_count_once,
    gaps_are_refused,
    claiming_an_epoch_fences_the_one_before,
    producers_do_not_share_numbers,
    repeated_closing_by_a_producer_counts_once,
)
PRODUCER_CLASS_SCENARIOS = (the_producer_class_delivers_in_order, the_producer_class_claims_and_is_fenced)
