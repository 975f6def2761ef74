"""Scenarios about catching up: what is there now, from the start or from an offset."""

from __future__ import annotations

from typing import Any

from tests.interop.python_client.checks import expect, expect_error, expect_true
from tests.interop.python_client.drivers import Driver, client
from tests.interop.python_client.writing import BINARY, JSON, TEXT


async def catching_up_takes_exactly_one_answer(api: Driver, url: str) -> None:
    handle = await api.create(url, JSON)
    messages = [{"number": number, "padding": "x" * 60} for number in range(100)]
    offsets = await api.append(handle, *messages)
    requests: list[Any] = []
    http = api.http_client(requests.append, lambda response: None)
    try:
        async with api.reading(url, live=False, client=http) as response:
            items = [item async for item in api.each(response.iter_json())]
            expect(response.up_to_date, True, "whether the reader is up to date")
            expect(response.offset, offsets[-1], "the offset after reading")
    finally:
        await api.close_http(http)
    expect([request.method for request in requests], ["GET"], "the requests made")
    expect_true("live" not in requests[0].url.params, f"a plain read, not {requests[0].url}")
    expect(items, messages, "the messages")


async def reading_an_empty_stream_ends_at_once(api: Driver, url: str) -> None:
    await api.create(url, BINARY)
    expect(await api.read_bytes(url), b"", "the bytes")
    await api.create(f"{url}-json", JSON)
    expect(await api.read_json(f"{url}-json"), [], "the messages")


async def reading_resumes_from_every_offset(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    pieces = ["alpha ", "beta ", "gamma ", "delta"]
    offsets = await api.append(handle, *pieces)
    for index, offset in enumerate(offsets):
        expect(await api.read_text(url, offset=offset), "".join(pieces[index + 1 :]), f"the text after {offset}")
    expect(await api.read_text(url, offset="-1"), "".join(pieces), "the text from the start")
    expect(await api.read_text(url, offset="now"), "", "the text from now on")


async def events_tell_offsets_to_resume_from(api: Driver, url: str) -> None:
    handle = await api.create(url, JSON)
    offsets = await api.append(handle, {"n": 0}, {"n": 1})
    async with api.reading(url, live=False, offset=offsets[0]) as response:
        events = [event async for event in api.each(response.iter_events(mode="json"))]
    expect([event.data for event in events], [[{"n": 1}]], "the data of the events")
    expect([event.next_offset for event in events], [offsets[1]], "the offsets of the events")
    expect([event.up_to_date for event in events], [True], "whether they were up to date")


async def malformed_offsets_are_refused(api: Driver, url: str) -> None:
    await api.create(url, TEXT)
    await expect_error(
        lambda: api.read_text(url, offset="not an offset, surely"), client.DurableStreamError, 400, "the read"
    )


SCENARIOS = (
    catching_up_takes_exactly_one_answer,
    reading_an_empty_stream_ends_at_once,
    reading_resumes_from_every_offset,
    events_tell_offsets_to_resume_from,
    malformed_offsets_are_refused,
)
