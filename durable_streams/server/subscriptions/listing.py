"""The list of all subscriptions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from .decisions import Current
from .errors import SubscriptionNotFound
from .registry import Registry


async def list_subscriptions(registry: Registry, after: str, prefix: str) -> AsyncGenerator[Current, None]:
    """
    Yield all subscriptions, by id.

    :param after: leave out those up to this id.
    :param prefix: leave out those whose id does not begin with it.
    """
    if registry.shared is None:
        for subscription_id in sorted(registry.entries):
            entry = registry.entries.get(subscription_id)
            if subscription_id > after and subscription_id.startswith(prefix) and entry and entry.current:
                yield entry.current
        return
    async for page in registry.shared.ids(prefix, after):
        for subscription_id in page:
            try:
                yield await registry.present(subscription_id)
            except SubscriptionNotFound:
                continue
