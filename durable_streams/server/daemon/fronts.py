"""Everything that a server serves, made from its settings: the same whoever listens, the daemon or another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.web.resource import IResource
from twisted.web.server import Site

from ..clocks import clock_of
from ..config.settings import Settings
from ..listening.descriptors import DescriptorBudget
from ..streams import Streams
from ..telemetry import metrics_from, telemetry_from
from ..web.connections import LimitedFactory
from ..web.negotiation import ChannelFactory
from ..web.site.app import Tree, build_app
from ..web.site.listing import add_list
from ..web.wire import below
from .assembly import channel_settings_from, operations_from, resource_from


class Fronts:
    """
    Streams, probes, metrics and the list of streams, for connections of every kind.

    :param obstacle: says what keeps the server from taking requests; None when nothing does.
    :param budget: how many descriptors connections may use; None for as many as the settings say.
    :param keep_connections: whether HTTP/1.1 connections stay open after an answer.
    :ivar tree: all of it, as one resource for a twisted.web Site.
    :ivar factory: makes the connections of everybody.
    :ivar admin: makes those of operators, where they have a listener of their own; else None.
    :raises StartupError: traces are asked for, and can't be had.
    """

    def __init__(
        self,
        streams: Streams,
        settings: Settings,
        reactor: Any,
        obstacle: Callable[[], str | None],
        budget: DescriptorBudget | None = None,
        keep_connections: bool = True,
    ) -> None:
        self._streams = streams
        self._clock = clock = clock_of(reactor)
        self._drain_timeout = settings.transport.connection.drain_timeout_secs
        self._telemetry = telemetry_from(settings)
        operations = operations_from(streams, settings, clock, self._telemetry)
        answers = operations.answers
        base_path = settings.http.stream_base_path
        apart = settings.admin.bind_address is not None
        metrics = metrics_from(settings, operations)
        render = None if metrics is None else metrics.scrape
        for_all = build_app(answers, obstacle, below(base_path), None if apart else render)
        for_operators = build_app(answers, obstacle, None, render) if apart else for_all
        if settings.admin.enabled:
            add_list(for_operators, settings.admin.base_path, streams, answers)
        resource = resource_from(operations, settings, clock)
        self.tree: IResource = Tree(resource, for_all, operations, base_path)
        channel_settings = channel_settings_from(settings, budget)
        self.factory = ChannelFactory(operations, Site(self.tree), base_path, clock, channel_settings)
        self.factory.keeps_connections = keep_connections
        self.admin: Any = None
        if apart:
            admin_site = Site(Tree(None, for_operators, operations, base_path))
            most = channel_settings.connections if budget is None else budget.admin_connections
            self.admin = LimitedFactory(admin_site, most, self.factory.refusal)
        if metrics is not None:
            metrics.watch(self.factory)

    async def drain(self) -> None:
        """
        Send home who waits, and let every connection end after the answer that is on its way.

        Those that have not ended after ``transport.connection.drain_timeout_secs`` are hung up on.
        """
        self._streams.drain()
        drained = self.factory.drain()
        too_late = self._clock.callLater(self._drain_timeout, self.factory.abort)
        await drained
        if too_late.active():
            too_late.cancel()

    async def close(self) -> None:
        """Pass on what was taken note of, when everything else has stopped."""
        await maybeDeferred(self._telemetry.stop)
