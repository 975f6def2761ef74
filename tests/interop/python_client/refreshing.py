"""Scenarios in which tokens expire while streams are followed and appended to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.python_client.checks import expect, expect_error, expect_true
from tests.interop.python_client.drivers import Driver, client
from tests.interop.python_client.following import FOLLOW_SECONDS, collect
from tests.interop.python_client.writing import JSON

#: The lifetime of a token in seconds, and how many messages are appended in which intervals: for several lifetimes.
LIFETIME = 1.2
MESSAGES = 30
INTERVAL = 0.15


def _encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


class Tokens:
    """
    Makes tokens.

    :param secret: signs them; in base64url.
    :ivar made: how many were made.
    """

    def __init__(self, secret: str) -> None:
        self._secret = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        self.made = 0

    def token(self, lifetime: float = LIFETIME) -> str:
        """Return a token that expires soon, as the value of Authorization."""
        self.made += 1
        header = {"alg": "HS256", "typ": "JWT", "kid": "k"}
        claims = {"sub": "interop", "exp": time.time() + lifetime, "jti": str(self.made)}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"Bearer {(signed + b'.' + _encoded(hmac.digest(self._secret, signed, hashlib.sha256))).decode()}"

    def headers(self) -> dict[str, Any]:
        """Return headers with a fresh token for each request."""
        return {"Authorization": self.token}


def count(events: list[Any]) -> int:
    """Return the number of messages of events."""
    return sum(len(event.data) for event in events)


def scenarios(secret: str) -> list[Callable[[Driver, str], Awaitable[None]]]:
    """Return the scenarios; ``secret`` signs tokens."""

    async def follow(api: Driver, url: str, live: str) -> None:
        tokens = Tokens(secret)
        headers = tokens.headers()
        handle = await api.create(url, JSON, headers=headers)
        handle = api.handle(url, JSON, headers=headers)

        async def write() -> None:
            for number in range(MESSAGES):
                await asyncio.sleep(INTERVAL)
                await api.append(handle, {"n": number})

        writing = asyncio.create_task(write())
        seen: list[Any] = []
        offset = "-1"
        deadline = time.monotonic() + FOLLOW_SECONDS
        # The published client ends its iteration when the server ends a tail; the next one goes on at its offset.
        while len(seen) < MESSAGES and time.monotonic() < deadline:
            async with api.reading(url, offset=offset, live=live, headers=headers) as response:
                events = api.each(response.iter_events(mode="json"))
                left = MESSAGES - len(seen)

                def is_all(found: list[Any], left: int = left) -> bool:
                    return count(found) >= left

                for event in await collect(events, is_all):
                    seen += event.data
                    offset = event.next_offset
        await writing
        expect(seen, [{"n": number} for number in range(MESSAGES)], "the messages, in order")
        expect_true(tokens.made > MESSAGES, f"only {tokens.made} tokens were used")

    async def a_tail_goes_on_with_fresh_tokens(api: Driver, url: str) -> None:
        await follow(api, url, "sse")

    async def long_polls_go_on_with_fresh_tokens(api: Driver, url: str) -> None:
        await follow(api, url, "long-poll")

    async def an_expired_token_is_an_error(api: Driver, url: str) -> None:
        tokens = Tokens(secret)
        await api.create(url, JSON, headers=tokens.headers())
        expired = tokens.token(-1)
        await expect_error(
            lambda: api.read_json(url, headers={"Authorization": expired}),
            client.DurableStreamError,
            401,
            "an expired token",
        )

    return [a_tail_goes_on_with_fresh_tokens, long_polls_go_on_with_fresh_tokens, an_expired_token_is_an_error]
