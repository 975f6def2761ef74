"""Scenarios about creating, appending, closing, inspecting and deleting."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.interop.python_client.checks import expect, expect_error, expect_rising, expect_true
from tests.interop.python_client.drivers import CLOSED_HEADER, Driver, client

TEXT = "text/plain"
JSON = "application/json"
BINARY = "application/octet-stream"
EVERY_BYTE = bytes(range(256))


async def text_is_created_appended_and_inspected(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    empty = await api.call(handle.head)
    offsets = await api.append(handle, "first ", "zweitens: äöü € 🙂 ", b"third")
    head = await api.call(handle.head)
    expect_rising([empty.offset, *offsets], "offsets after each append")
    expect(head.offset, offsets[-1], "the offset HEAD tells")
    expect(head.content_type.split(";")[0], TEXT, "the content type HEAD tells")
    expect(await api.read_text(url), "first zweitens: äöü € 🙂 third", "the text")
    connected = await api.call(api.handles.connect, url)
    expect(connected.content_type.split(";")[0], TEXT, "the content type of a connected handle")


async def binary_survives_unchanged(api: Driver, url: str) -> None:
    handle = await api.create(url, BINARY)
    big = EVERY_BYTE * 400
    await api.append(handle, EVERY_BYTE, b"\r\n\x00\xff", big)
    expect_true(await api.read_bytes(url) == EVERY_BYTE + b"\r\n\x00\xff" + big, "the bytes are not those appended")


async def json_messages_keep_their_values(api: Driver, url: str) -> None:
    messages = [{"a": 1, "ü": "€"}, [1, [2, []]], "text", 12.5, None, True, {}, [], 2**53 - 1]
    handle = await api.create(url, JSON)
    await api.append(handle, *messages)
    expect(await api.read_json(url), messages, "the messages")


async def initial_content_is_part_of_the_stream(api: Driver, url: str) -> None:
    handle = await api.create(url, JSON, body=[{"n": 0}, {"n": 1}])
    await api.append(handle, {"n": 2})
    expect(await api.read_json(url), [{"n": 0}, {"n": 1}, {"n": 2}], "the messages")


async def creating_again_needs_the_same_configuration(api: Driver, url: str) -> None:
    await api.append(await api.create(url, TEXT), "kept")
    await api.create(url, TEXT)
    await expect_error(lambda: api.create(url, JSON), client.StreamExistsError, 409, "another content type")
    expect(await api.read_text(url), "kept", "the text")


async def missing_streams_are_not_found(api: Driver, url: str) -> None:
    handle = api.handle(url, TEXT)
    missing = client.StreamNotFoundError
    await expect_error(lambda: api.call(handle.head), missing, 404, "head")
    await expect_error(lambda: api.call(handle.append, "x"), missing, 404, "append")
    await expect_error(lambda: api.call(handle.delete), missing, 404, "delete")
    await expect_error(lambda: api.read_text(url), missing, 404, "read")


async def sequence_numbers_must_rise(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    await api.append(handle, "a", seq="0001")
    await api.append(handle, "b", seq="0002")
    for old in ("0002", "0001"):
        again = partial(api.call, handle.append, "never", seq=old)
        await expect_error(again, client.SeqConflictError, 409, f"seq {old}")
    await api.append(handle, "c", seq="0003")
    expect(await api.read_text(url), "abc", "the text")


async def concurrent_appends_lose_nothing(api: Driver, url: str) -> None:
    writers, rounds = 12, 5
    handle = await api.create(url, JSON)

    async def write(writer: int) -> None:
        for number in range(rounds):
            await api.append(handle, {"writer": writer, "number": number})

    await asyncio.gather(*(write(writer) for writer in range(writers)))
    messages = await api.read_json(url)
    expect(len(messages), writers * rounds, "the number of messages")
    for writer in range(writers):
        own = [message["number"] for message in messages if message["writer"] == writer]
        expect(own, list(range(rounds)), f"the messages of writer {writer}, in order")


async def closing_keeps_the_content_and_refuses_more(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    await api.append(handle, "body, ")
    final = await api.close_stream(url, TEXT, "end")
    await expect_error(lambda: api.call(handle.append, "late"), client.DurableStreamError, 409, "append after closing")
    expect((await api.call(handle.head)).offset, final, "the offset HEAD tells")
    async with api.reading(url, live=False) as response:
        expect(response.headers.get(CLOSED_HEADER), "true", "the Stream-Closed header of the read")
        expect(await api.call(response.read_text), "body, end", "the text")


async def closing_without_content_can_be_repeated(api: Driver, url: str) -> None:
    handle = await api.create(url, BINARY)
    offsets = await api.append(handle, b"all there is")
    for attempt in ("first", "second"):
        expect(await api.close_stream(url, BINARY), offsets[-1], f"the final offset of the {attempt} closing")
    expect(await api.read_bytes(url), b"all there is", "the bytes")


async def deleted_streams_are_gone_and_can_be_made_anew(api: Driver, url: str) -> None:
    handle = await api.create(url, TEXT)
    await api.append(handle, "old")
    await api.call(handle.delete)
    missing = client.StreamNotFoundError
    await expect_error(lambda: api.call(handle.head), missing, 404, "head")
    await expect_error(lambda: api.read_text(url), missing, 404, "read")
    await expect_error(lambda: api.call(handle.delete), missing, 404, "deleting twice")
    await api.append(await api.create(url, JSON), {"new": True})
    expect(await api.read_json(url), [{"new": True}], "the messages of the new stream")


SCENARIOS = (
    text_is_created_appended_and_inspected,
    binary_survives_unchanged,
    json_messages_keep_their_values,
    initial_content_is_part_of_the_stream,
    creating_again_needs_the_same_configuration,
    missing_streams_are_not_found,
    sequence_numbers_must_rise,
    concurrent_appends_lose_nothing,
    closing_keeps_the_content_and_refuses_more,
    closing_without_content_can_be_repeated,
    deleted_streams_are_gone_and_can_be_made_anew,
)
