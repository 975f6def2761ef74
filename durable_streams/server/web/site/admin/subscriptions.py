"""The list of subscriptions, for operators."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from ....protocol.lifetimes import render_timestamp
from ....subscriptions import Current, SubscriptionService
from ...answers import Answer
from ...pages import PageRequest
from ..app import Routes
from .heads import JSON_HEAD
from .query import Query

#: The largest and the default ``limit``.
MAX_LIMIT: Final = 1000

_PARAMETERS: Final = ("limit", "after", "prefix", "status", "type")
_STATUSES: Final = ("active", "failed")
_TYPES: Final = ("webhook", "pull-wake")


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
    def subscriptions_list(request: PageRequest) -> Answer:
        """Answer with a JSON array of subscriptions, sorted by id."""
        query = Query(request, _PARAMETERS)
        limit = query.number("limit", MAX_LIMIT) or MAX_LIMIT
        status, kind = query.word("status", _STATUSES), query.word("type", _TYPES)
        after, prefix = query.text("after"), query.text("prefix")
        found: list[SubscriptionEntry] = []
        for current in service.currents():
            identifier = current.subscription.id
            if identifier <= after or not identifier.startswith(prefix):
                continue
            if status not in ("", current.state.status) or kind not in ("", current.subscription.config.type):
                continue
            if len(found) == limit:
                return Answer(200, JSON_HEAD + query.next_page(found[-1].id), msgspec.json.encode(found))
            found.append(_entry(current))
        return Answer(200, JSON_HEAD, msgspec.json.encode(found))


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
