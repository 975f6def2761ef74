"""The list of subscriptions, and the rotation of the key that signs webhooks, for operators."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ....errors import Unavailable
from ....protocol.lifetimes import render_timestamp
from ....subscriptions import Current, KeyRotationRefused, SubscriptionService, SubscriptionsUnavailable
from ...answers import Answer
from ...callers import client_of
from ...pages import PageRequest
from ...problems import KeyNotRotated
from ..app import Routes
from .heads import JSON_HEAD
from .query import Query

#: The largest and the default ``limit``.
MAX_LIMIT: Final = 1000

_PARAMETERS: Final = ("limit", "after", "prefix", "status", "type")
_STATUSES: Final = ("active", "failed")
_TYPES: Final = ("webhook", "pull-wake")

_log = Logger()


class SubscriptionEntry(Struct):
    """
    A subscription in the list.

    :ivar webhook_url: without its query, which may have secrets.
    :ivar holder: the worker that has claimed the wake.
    """

    id: str
    type: str
    status: str
    pattern: str | None
    webhook_url: str | None
    wake_stream: str | None
    links: int
    pending_links: int
    generation: int
    holder: str | None
    failures: int
    created_at: str


def add_subscriptions(app: Routes, base_path: str, service: SubscriptionService) -> None:
    """
    Add the list of subscriptions, which is at ``/subscriptions`` below the base path.

    :param base_path: the path above it.
    """

    @app.route(f"{base_path}/subscriptions", methods=["GET", "HEAD"])
    async def subscriptions_list(request: PageRequest) -> Answer:
        """Answer with a JSON array of subscriptions, sorted by id."""
        query = Query(request, _PARAMETERS)
        limit = query.number("limit", MAX_LIMIT) or MAX_LIMIT
        status, kind = query.word("status", _STATUSES), query.word("type", _TYPES)
        after, prefix = query.text("after"), query.text("prefix")
        found: list[SubscriptionEntry] = []
        async for current in service.currents(after, prefix):
            if status not in ("", current.state.status) or kind not in ("", current.subscription.config.type):
                continue
            if len(found) == limit:
                return Answer(200, JSON_HEAD + query.next_page(found[-1].id), msgspec.json.encode(found))
            found.append(_entry(current))
        return Answer(200, JSON_HEAD, msgspec.json.encode(found))


class RotatedKey(Struct):
    """
    The answer to a rotation.

    :ivar kid: the id of the key that signs now.
    :ivar previous_kid: the id of the one before it.
    :ivar previous_until: when that one leaves the key set.
    """

    kid: str
    previous_kid: str
    previous_until: str


def add_key_rotation(app: Routes, base_path: str, service: SubscriptionService) -> None:
    """
    Add the page that rotates the signing key, which is at ``/rotate-signing-key`` below the base path.

    :param base_path: the path above it.
    """

    @app.route(f"{base_path}/rotate-signing-key", methods=["POST"])
    async def rotate_signing_key(request: PageRequest) -> Answer:
        """Rotate the key, and answer with the ids of the new and the previous one."""
        Query(request, ())
        try:
            rotation = await service.rotate_key()
        except KeyRotationRefused as error:
            raise KeyNotRotated(str(error)) from None
        except SubscriptionsUnavailable as error:
            raise Unavailable(str(error)) from None
        rotated = RotatedKey(rotation.kid, rotation.previous_kid, render_timestamp(rotation.previous_until))
        _log.info(
            "Rotated the signing key of webhooks for {client}: {kid}. The key set has {previous} until {until}.",
            client=client_of(request),
            kid=rotated.kid,
            previous=rotated.previous_kid,
            until=rotated.previous_until,
        )
        return Answer(200, JSON_HEAD, msgspec.json.encode(rotated))


def _entry(current: Current) -> SubscriptionEntry:
    subscription, state = current.subscription, current.state
    config, wake = subscription.config, state.wake
    return SubscriptionEntry(
        subscription.id,
        config.type,
        state.status,
        config.pattern,
        None if config.webhook_url is None else config.webhook_url.partition("?")[0],
        config.wake_stream,
        len(current.links),
        len(current.links.pending),
        state.generation,
        None if wake is None else wake.holder,
        0 if wake is None else wake.failures,
        render_timestamp(subscription.created_at),
    )
