"""One way to write a scenario for both APIs of the Python client: every call is awaited.

`AsyncDriver` awaits the asynchronous API; `SyncDriver` runs the synchronous one, call by call, in threads.
The client is imported by name because it is no dependency of this project.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.interop.python_client.checks import expect

client: Any = importlib.import_module("durable_streams")
httpx: Any = importlib.import_module("httpx")

HTTP_SECONDS = 10.0
"""Longer than the server holds any idle request, shorter than a scenario may take."""

CLOSED_HEADER = "stream-closed"
HAS_PRODUCERS = hasattr(client, "IdempotentProducer")
"""Clients with producers also want JSON messages already serialized, and begin every SSE session with a
plain read; the client published without producers serializes, and speaks SSE from its first request."""

END = object()


def payload(content_type: str | None, message: Any) -> Any:
    """What to hand this client so that the stream gets `message`."""
    is_json = (content_type or "").startswith("application/json")
    return json.dumps(message) if is_json and HAS_PRODUCERS else message


class Driver(ABC):
    """What scenarios need from either API; `name` tells them apart in reports."""

    name: str
    handles: Any

    @abstractmethod
    async def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The result of calling `function`, a function or method of this driver's API."""

    @abstractmethod
    def each(self, iterable: Any) -> AsyncIterator[Any]:
        """The items of what this API's ``iter_...`` methods return."""

    @abstractmethod
    def http_client(self, request: Callable[[Any], None], response: Callable[[Any], None]) -> Any:
        """An httpx client of this API's kind that shows its requests and responses to these two."""

    @abstractmethod
    def reading(self, url: str, **options: Any) -> Any:
        """An asynchronous context manager around ``stream()``."""

    @abstractmethod
    async def close_http(self, http: Any) -> None:
        """Close what `http_client` returned."""

    async def create(self, url: str, content_type: str, **options: Any) -> Any:
        """A handle of a stream that this creates."""
        if "body" in options:
            options["body"] = payload(content_type, options["body"])
        return await self.call(self.handles.create, url, content_type=content_type, timeout=HTTP_SECONDS, **options)

    def handle(self, url: str, content_type: str | None = None, **options: Any) -> Any:
        """A handle, without any request."""
        return self.handles(url, content_type=content_type, timeout=HTTP_SECONDS, **options)

    async def append(self, handle: Any, *messages: Any, **options: Any) -> list[str]:
        """Append one message after the other; the offsets after each."""
        offsets: list[str] = []
        for message in messages:
            result = await self.call(handle.append, payload(handle.content_type, message), **options)
            offsets.append(result.next_offset)
        return offsets

    async def close_stream(self, url: str, content_type: str, final: Any = b"") -> str:
        """Close the stream, with `final` as its last message unless that is empty; the final offset.

        The published client knows nothing of closing, but can append under the protocol's header.
        """
        closing = self.handle(url, content_type, headers={"Stream-Closed": "true"})
        return (await self.append(closing, final))[0]

    async def read_text(self, url: str, **options: Any) -> str:
        """All the text that is there now."""
        async with self.reading(url, live=False, **options) as response:
            text: str = await self.call(response.read_text)
        return text

    async def read_bytes(self, url: str, **options: Any) -> bytes:
        """All the bytes that are there now."""
        async with self.reading(url, live=False, **options) as response:
            data: bytes = await self.call(response.read_bytes)
        return data

    async def read_json(self, url: str, **options: Any) -> list[Any]:
        """All the messages that are there now."""
        async with self.reading(url, live=False, **options) as response:
            messages: list[Any] = await self.call(response.read_json)
        return messages

    async def each_binary_sse(self, response: Any) -> AsyncIterator[bytes]:
        """The bytes of a binary stream read by SSE; the client passes its base64 on as text."""
        expect(response.headers.get("stream-sse-data-encoding"), "base64", "the encoding header")
        async for text in self.each(response.iter_text()):
            yield base64.b64decode(text.replace("\n", ""), validate=True)


class AsyncDriver(Driver):
    """The asynchronous API."""

    name = "async"
    handles = client.AsyncDurableStream

    async def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return await function(*args, **named)

    async def each(self, iterable: Any) -> AsyncIterator[Any]:
        async for item in iterable:
            yield item

    def http_client(self, request: Callable[[Any], None], response: Callable[[Any], None]) -> Any:
        async def on_request(message: Any) -> None:
            request(message)

        async def on_response(message: Any) -> None:
            response(message)

        hooks = {"request": [on_request], "response": [on_response]}
        return httpx.AsyncClient(timeout=HTTP_SECONDS, event_hooks=hooks)

    async def close_http(self, http: Any) -> None:
        await http.aclose()

    @asynccontextmanager
    async def reading(self, url: str, **options: Any) -> AsyncIterator[Any]:
        async with client.astream(url, timeout=HTTP_SECONDS, **options) as response:
            yield response


class SyncDriver(Driver):
    """The synchronous API."""

    name = "sync"
    handles = client.DurableStream

    async def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return await in_thread(lambda: function(*args, **named))

    async def each(self, iterable: Any) -> AsyncIterator[Any]:
        iterator = iter(iterable)
        while (item := await in_thread(lambda: next(iterator, END))) is not END:
            yield item

    def http_client(self, request: Callable[[Any], None], response: Callable[[Any], None]) -> Any:
        return httpx.Client(timeout=HTTP_SECONDS, event_hooks={"request": [request], "response": [response]})

    async def close_http(self, http: Any) -> None:
        http.close()

    @asynccontextmanager
    async def reading(self, url: str, **options: Any) -> AsyncIterator[Any]:
        response = await in_thread(lambda: client.stream(url, timeout=HTTP_SECONDS, **options))
        try:
            yield response
        finally:
            response.close()


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of `work`, run in a thread that cannot keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # The scenario may be over, and its loop with it.
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return await done
