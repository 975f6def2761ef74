"""Scenarios about live reading, by long-poll and by SSE."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.interop.python_client.checks import expect, expect_rising, expect_true
from tests.interop.python_client.drivers import CLOSED_HEADER, Driver, client
from tests.interop.python_client.writing import BINARY, EVERY_BYTE, JSON, TEXT

PAUSE = 0.15
IDLE = 3.0
"""Longer than the server holds an idle long-poll, so that the follower has to ask again."""

FOLLOW_SECONDS = 10.0
PIECES = ["zero\n", "one: ä€🙂\n", "two\n\nwith empty lines\n", "data: three\nevent: control", "\nfour"]


async def write_slowly(api: Driver, handle: Any, messages: list[Any], pauses: list[float]) -> list[str]:
    """Append each message after its pause; the offsets after each."""
    offsets: list[str] = []
    for message, pause in zip(messages, pauses, strict=True):
        await asyncio.sleep(pause)
        offsets += await api.append(handle, message)
    return offsets


async def collect(items: AsyncIterator[Any], enough: Callable[[list[Any]], bool]) -> list[Any]:
    """Collect items until they are enough, or for a limited time: what is missing shows in comparisons."""
    collected: list[Any] = []
    try:
        async with asyncio.timeout(FOLLOW_SECONDS):
            async for item in items:
                collected.append(item)
                if enough(collected):
                    break
    except TimeoutError:
        pass
    return collected


async def follow_text(api: Driver, url: str, live: str, pieces: list[str]) -> None:
    whole = "".join(pieces)
    handle = await api.create(url, TEXT)
    await api.append(handle, pieces[0])
    pauses = [PAUSE, PAUSE, IDLE] + [0.0] * (len(pieces) - 4)
    writing = asyncio.create_task(write_slowly(api, handle, pieces[1:], pauses))
    async with api.reading(url, offset="-1", live=live) as response:
        seen = await collect(api.each(response.iter_text()), lambda seen: len("".join(seen)) >= len(whole))
    await writing
    expect("".join(seen), whole, "the text, in order")


async def follow_json(api: Driver, url: str, live: str) -> None:
    messages: list[Any] = [{"n": 0}, [1, 2], "three\nlines\r\nhere", {"n": 4}, None]
    handle = await api.create(url, JSON)
    await api.append(handle, messages[0])
    writing = asyncio.create_task(write_slowly(api, handle, messages[1:], [PAUSE, 0.0, IDLE, 0.0]))
    async with api.reading(url, offset="-1", live=live) as response:
        seen = await collect(api.each(response.iter_json()), lambda seen: len(seen) == len(messages))
    await writing
    expect(seen, messages, "the messages, in order")


async def follow_events(api: Driver, url: str, live: str) -> None:
    handle = await api.create(url, JSON)
    written = await api.append(handle, 0, 1)
    writing = asyncio.create_task(write_slowly(api, handle, [2, 3], [PAUSE, PAUSE]))
    async with api.reading(url, offset=written[0], live=live) as response:
        events = api.each(response.iter_events(mode="json"))
        seen = await collect(events, lambda seen: sum(len(event.data) for event in seen) == 3)
    written += await writing
    expect([item for event in seen for item in event.data], [1, 2, 3], "the messages after the offset")
    offsets = [event.next_offset for event in seen]
    expect_rising(offsets, "offsets of the events")
    expect_true(set(offsets) <= set(written), f"offsets seen {offsets}, offsets written {written}")
    expect(offsets[-1], written[-1], "the last offset")


async def text_is_followed_by_long_poll(api: Driver, url: str) -> None:
    await follow_text(api, url, "long-poll", PIECES)


async def text_is_followed_by_sse(api: Driver, url: str) -> None:
    await follow_text(api, url, "sse", PIECES)


async def indented_text_is_followed_by_sse(api: Driver, url: str) -> None:
    await follow_text(api, url, "sse", [" one", "  two\n    three\n", " ", "\n four", "end"])


async def json_is_followed_by_long_poll(api: Driver, url: str) -> None:
    await follow_json(api, url, "long-poll")


async def json_is_followed_by_sse(api: Driver, url: str) -> None:
    await follow_json(api, url, "sse")


async def following_by_default_goes_from_catching_up_to_waiting(api: Driver, url: str) -> None:
    handle = await api.create(url, JSON)
    await api.append(handle, "there before")
    writing = asyncio.create_task(write_slowly(api, handle, ["later"], [PAUSE]))
    async with api.reading(url) as response:
        seen = await collect(api.each(response.iter_json()), lambda seen: len(seen) == 2)
    await writing
    expect(seen, ["there before", "later"], "the messages")


async def follow_binary(api: Driver, url: str, live: str, chunks: Callable[[Any], AsyncIterator[bytes]]) -> None:
    pieces = [EVERY_BYTE, b"\n", b"\x00", EVERY_BYTE * 40]
    whole = b"".join(pieces)
    handle = await api.create(url, BINARY)
    await api.append(handle, pieces[0])
    writing = asyncio.create_task(write_slowly(api, handle, pieces[1:], [PAUSE, PAUSE, PAUSE]))
    async with api.reading(url, offset="-1", live=live) as response:
        seen = await collect(chunks(response), lambda seen: len(b"".join(seen)) >= len(whole))
    await writing
    expect_true(b"".join(seen) == whole, "the bytes seen are not those appended")


async def binary_is_followed_by_long_poll(api: Driver, url: str) -> None:
    await follow_binary(api, url, "long-poll", api.each)


async def binary_is_followed_by_sse(api: Driver, url: str) -> None:
    await follow_binary(api, url, "sse", api.each_binary_sse)


async def events_by_long_poll_tell_offsets(api: Driver, url: str) -> None:
    await follow_events(api, url, "long-poll")


async def events_by_sse_tell_offsets(api: Driver, url: str) -> None:
    await follow_events(api, url, "sse")


async def sse_followers_see_the_end(api: Driver, url: str) -> None:
    handle = await api.create(url, JSON)
    await api.append(handle, {"n": 0})
    seen: list[Any] = []

    async def follow() -> None:
        async with api.reading(url, offset="-1", live="sse") as response:
            async for item in api.each(response.iter_json()):
                seen.append(item)

    following = asyncio.create_task(follow())
    await asyncio.sleep(3 * PAUSE)
    await api.close_stream(url, JSON, {"n": "last"})
    await asyncio.wait_for(following, 5)
    expect(seen, [{"n": 0}, {"n": "last"}], "the messages before the end")


async def long_poll_followers_see_the_end(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    offset = (await api.append(handle, "before "))[0]
    closing = asyncio.create_task(close_later(api, url))
    async with api.reading(url, offset=offset, live="long-poll") as response:
        async for piece in api.each(response.iter_text()):
            expect(piece, "the end", "what was waited for")
            expect(response.headers.get(CLOSED_HEADER), "true", "the Stream-Closed header with it")
            break
    final = await closing
    asked = time.monotonic()
    async with api.reading(url, offset=final, live="long-poll") as response:
        expect_true(response.status in (200, 204), f"status {response.status} at the end of a closed stream")
        expect(response.headers.get(CLOSED_HEADER), "true", "the Stream-Closed header there")
    expect_true(time.monotonic() - asked < 1.0, "nobody waits at the end of a closed stream")


async def close_later(api: Driver, url: str) -> str:
    await asyncio.sleep(2 * PAUSE)
    return await api.close_stream(url, TEXT, "the end")


async def leaving_followers_disturb_nobody(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    await api.append(handle, "a")
    for live in ("long-poll", "sse"):
        for _ in range(5):
            async with api.reading(url, offset="-1", live=live) as response:
                expect(response.status, 200, f"the status by {live}")
    await api.append(handle, "b")
    expect(await api.read_text(url), "ab", "the text")


async def deleting_ends_what_followers_can_read(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    offset = (await api.append(handle, "soon gone"))[0]

    async def follow() -> str:
        try:
            async with api.reading(url, offset=offset, live="long-poll") as response:
                async for _ in api.each(response.iter_text()):
                    return "more text"
        except client.DurableStreamError as error:
            return type(error).__name__
        return "the end"

    following = asyncio.create_task(follow())
    await asyncio.sleep(2 * PAUSE)
    await api.call(handle.delete)
    expect(await asyncio.wait_for(following, 6), client.StreamNotFoundError.__name__, "what the follower got")


SCENARIOS = (
    text_is_followed_by_long_poll,
    text_is_followed_by_sse,
    indented_text_is_followed_by_sse,
    json_is_followed_by_long_poll,
    json_is_followed_by_sse,
    following_by_default_goes_from_catching_up_to_waiting,
    binary_is_followed_by_long_poll,
    events_by_long_poll_tell_offsets,
    sse_followers_see_the_end,
    long_poll_followers_see_the_end,
    leaving_followers_disturb_nobody,
    deleting_ends_what_followers_can_read,
)
SSE_FROM_THE_FIRST_REQUEST = (binary_is_followed_by_sse, events_by_sse_tell_offsets)
"""What only a client that speaks SSE from its first request can do."""
