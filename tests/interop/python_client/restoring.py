"""Scenarios in which the server is backed up and replaced by a fresh one, into which the archive is restored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.python_client.checks import expect, expect_error, expect_true
from tests.interop.python_client.drivers import HAS_PRODUCERS, HTTP_SECONDS, Driver, client, httpx
from tests.interop.python_client.following import collect
from tests.interop.python_client.producing import Numbering
from tests.interop.python_client.writing import JSON, TEXT


async def append_later(api: Driver, handle: Any, *messages: Any) -> None:
    """Append after a moment."""
    await asyncio.sleep(0.2)
    await api.append(handle, *messages)


def scenarios(control: str) -> list[Callable[[Driver, str], Awaitable[None]]]:
    """Return the scenarios; ``control`` is the URL that replaces the server."""

    async def replace_the_server() -> None:
        async with httpx.AsyncClient(timeout=HTTP_SECONDS) as http:
            expect((await http.post(control)).status_code, 200, "the status of the replacement")

    async def readers_go_on_at_old_offsets_after_a_restore(api: Driver, url: str) -> None:
        await api.create(url, TEXT)
        handle = api.handle(url, TEXT)
        offsets = await api.append(handle, "one ", "two ", "three ")
        await replace_the_server()
        expect(await api.read_text(url, offset=offsets[0]), "two three ", "the text after the first offset")
        expect(await api.read_text(url, offset=offsets[2]), "", "the text after the last offset")
        [last] = await api.append(handle, "four")
        expect_true(last > offsets[2], f"the offset {last} does not sort after {offsets[2]}")
        expect(await api.read_text(url, offset=offsets[1]), "three four", "the text after the second offset")

    async def producers_go_on_at_old_epochs_after_a_restore(api: Driver, url: str) -> None:
        await api.create(url, TEXT)
        numbering = Numbering(epoch=4)
        handle = api.handle(url, TEXT, headers=numbering.headers())
        offsets = []
        for numbering.sequence, piece in enumerate(["a", "b", "c"]):
            offsets += await api.append(handle, piece)
        await replace_the_server()
        expect(await api.append(handle, "c"), offsets[2:], "the offset of the repeated append")
        numbering.sequence = 4
        await expect_error(lambda: api.append(handle, "never"), client.SeqConflictError, 409, "a gap")
        numbering.sequence = 3
        await api.append(handle, "d")
        numbering.epoch, numbering.sequence = 3, 0
        await expect_error(lambda: api.append(handle, "never"), client.DurableStreamError, 403, "an old epoch")
        expect(await api.read_text(url), "abcd", "the text")

    async def the_producer_class_goes_on_after_a_restore(api: Driver, url: str) -> None:
        await api.create(url, JSON)
        async with httpx.AsyncClient(timeout=HTTP_SECONDS) as http:
            producer = client.IdempotentProducer(url, "class", epoch=2, client=http, content_type=JSON)
            for number in range(10):
                producer.append(json.dumps({"n": number}))
                if number == 4:
                    await producer.flush()
                    await replace_the_server()
            await producer.flush()
            await producer.close()
        expect(await api.read_json(url), [{"n": number} for number in range(10)], "the messages")

    async def followers_go_on_after_a_restore(api: Driver, url: str) -> None:
        await api.create(url, JSON)
        handle = api.handle(url, JSON)
        await api.append(handle, {"n": 0})
        [offset] = await api.append(handle, {"n": 1})
        await replace_the_server()
        async with api.reading(url, offset=offset, live="sse") as response:
            writing = asyncio.create_task(append_later(api, handle, {"n": 2}, {"n": 3}))
            seen = await collect(api.each(response.iter_json()), lambda seen: len(seen) == 2)
            await writing
        expect(seen, [{"n": 2}, {"n": 3}], "the messages that follow")

    found: list[Callable[[Driver, str], Awaitable[None]]] = [
        readers_go_on_at_old_offsets_after_a_restore,
        producers_go_on_at_old_epochs_after_a_restore,
        followers_go_on_after_a_restore,
    ]
    return [*found, the_producer_class_goes_on_after_a_restore] if HAS_PRODUCERS else found
