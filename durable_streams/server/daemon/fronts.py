"""The factories and the resource of a server, for the daemon and for embedded servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource

from ..clocks import clock_of
from ..config.settings import Settings
from ..listening.descriptors import DescriptorBudget
from ..streams import Streams
from ..telemetry import metrics_from, telemetry_from
from ..web.negotiation import ChannelFactory
from ..web.site.admin.access import AdminAuthorization
from ..web.site.admin.tokens import TokenFile, TokenFileError
from ..web.site.app import Pages, add_metrics, add_probes
from ..web.site.tree import Tree
from ..web.wire import below
from .assembly import (
    add_pages_of_operators,
    channel_settings_from,
    close_pages,
    guard_pages,
    operations_from,
    resource_from,
)
from .subscribing import serve_subscriptions, subscription_pages

if TYPE_CHECKING:
    from ..identity.control import AccessControl
    from ..subscriptions import SubscriptionService
    from ..telemetry.audit import AuditLog
    from ..web.operations import Operations

_log = Logger()


class Fronts:
    """
    The factories of connections and the resource, which serve streams, probes, metrics and the list of streams.

    :param obstacle: returns why the server takes no requests; None if it takes them.
    :param budget: the number of descriptors for connections; None for ``limits.max_connections``.
    :param keep_connections: whether HTTP/1.1 connections stay open after an answer.
    :param authorize_admin: decides who may use the pages of operators, unless ``admin.token_file`` does; None for
        clients on this machine.
    :param subscriptions: the service of subscriptions; None if there are none.
    :param access: authenticates and authorizes requests; None if everybody may do everything.
    :ivar tree: everything as one resource for a twisted.web Site.
    :ivar factory: the factory of clients' connections.
    :ivar metrics: the metrics; None if they are not served.
    :ivar admin: the factory for ``admin.bind_address``; None without that setting.
    :raises ConfigError: the file of ``admin.token_file`` cannot be used.
    :raises StartupError: ``observability.traces`` is set, and OpenTelemetry is not installed or cannot export.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (the parts of a server)
        self,
        streams: Streams,
        settings: Settings,
        reactor: Any,
        obstacle: Callable[[], str | None],
        budget: DescriptorBudget | None = None,
        keep_connections: bool = True,
        authorize_admin: AdminAuthorization | None = None,
        subscriptions: SubscriptionService | None = None,
        access: AccessControl | None = None,
    ) -> None:
        self._streams = streams
        self._settings = settings
        self._clock = clock = clock_of(reactor)
        self._drain_timeout = settings.transport.connection.drain_timeout_secs
        self._telemetry = telemetry_from(settings)
        operations = operations_from(streams, settings, clock, self._telemetry)
        self._audit: AuditLog | None = None
        self.metrics = metrics = metrics_from(settings, operations)
        if access is not None:
            self._guard(operations, access)
        if subscriptions is not None:
            # Behind the gate, if there is one.
            serve_subscriptions(operations, subscriptions)
        base_path = settings.http.stream_base_path
        apart = settings.admin.bind_address is not None
        self._for_all = for_all = Pages(operations.answers, below(base_path))
        self._for_operators = for_operators = Pages(operations.answers, None) if apart else for_all
        self._tokens = self._guard_pages(operations, authorize_admin)
        self._add_pages(operations, reactor, obstacle, subscriptions)
        resource = resource_from(operations, settings, clock)
        stall_timeout = settings.transport.connection.stall_timeout_secs
        self.tree: IResource = Tree(resource, for_all, operations, base_path, clock, stall_timeout)
        channel_settings = channel_settings_from(settings, budget)
        self.factory = ChannelFactory(operations, for_all, base_path, clock, channel_settings)
        self.factory.keeps_connections = keep_connections
        self.admin: ChannelFactory | None = None
        if apart:
            max_connections = channel_settings.connections if budget is None else budget.admin_connections
            # It is plain HTTP. The descriptors for connections that are refused are those of the streams' listener.
            of_admin = replace(channel_settings, connections=max_connections, refusals=0, protocols=(b"http/1.1",))
            self.admin = ChannelFactory(operations, for_operators, None, clock, of_admin)
        if metrics is not None:
            metrics.watch(self.factory)
            if subscriptions is not None:
                metrics.watch_subscriptions(subscriptions.figures)

    def _guard(self, operations: Operations, access: AccessControl) -> None:
        """Authenticate and authorize all requests, and record that in the audit log and the metrics."""
        from ..telemetry.access_metrics import access_metrics  # noqa: PLC0415 (10 ms that an open server does not need)
        from .auditing import audit_from, record_access_changes  # noqa: PLC0415

        self._audit = audit = audit_from(self._settings, self._clock)
        operations.guard(access, self._settings.auth.hide_forbidden, audit)
        record_access_changes(audit, access)
        if self.metrics is not None:
            verifications = access.authentication.verifications
            self.metrics.watch_access(partial(access_metrics, verifications, audit, access.stale_files))

    def _guard_pages(self, operations: Operations, authorize_admin: AdminAuthorization | None) -> TokenFile | None:
        """Protect the pages, and return the file of tokens if they need one."""
        self._for_all.quotas = operations.quotas
        if self._for_operators is not self._for_all:
            close_pages(self._for_all, operations)
        admin = self._settings.admin
        base_path = admin.base_path if admin.enabled else None
        return guard_pages(self._for_operators, self._settings, operations, base_path, authorize_admin)

    def _add_pages(
        self,
        operations: Operations,
        reactor: Any,
        obstacle: Callable[[], str | None],
        subscriptions: SubscriptionService | None,
    ) -> None:
        """Add the probes, the metrics, and the pages for operators."""
        for pages in {self._for_all, self._for_operators}:
            pages.add(partial(add_probes, ready=obstacle))
        if self.metrics is not None:
            self._for_operators.add(partial(add_metrics, render=self.metrics.answer))
        admin = self._settings.admin
        if not admin.enabled:
            return
        add_pages_of_operators(self._for_operators, admin.base_path, operations, reactor, self._count_connections)
        if subscriptions is not None:
            self._for_operators.add(subscription_pages(admin.base_path, subscriptions))

    def open_audit_log(self) -> None:
        """
        Open the file of the audit log.

        :raises StartupError: it cannot be opened.
        """
        if self._audit is not None:
            from .auditing import open_audit_log  # noqa: PLC0415 (as above)

            open_audit_log(self._audit, self._settings)

    def reopen_audit_log(self) -> None:
        """Go on in a new audit log of the same path, as after a rotation."""
        if self._audit is not None:
            self._audit.reopen()

    def close_audit_log(self) -> None:
        """Write the last lines of the audit log, and close its file."""
        if self._audit is not None:
            self._audit.close()

    def load(self) -> None:
        """Import Klein and lay out the pages, before the first request needs them."""
        self._for_all.load()
        self._for_operators.load()

    def _count_connections(self) -> int:
        return self.factory.connections + (0 if self.admin is None else self.admin.connections)

    def reload(self) -> None:
        """Reopen the audit log, and read ``admin.token_file`` again; log an error, and keep the tokens as they were."""
        self.reopen_audit_log()
        if self._tokens is None:
            return
        try:
            self._tokens.reload()
        except TokenFileError as error:
            _log.error("Reload: admin.token_file was not read, its tokens stay as they were. {reason}", reason=error)
        else:
            _log.info("Reloaded admin.token_file; number of tokens: {count}.", count=self._tokens.count)

    async def drain(self) -> None:
        """
        Answer waiting readers, and close every connection after its current answer.

        Connections that have not ended after ``transport.connection.drain_timeout_secs`` are aborted.
        """
        self._streams.drain()
        drained = [self.factory.drain()]
        if self.admin is not None:
            drained.append(self.admin.drain())
        too_late = self._clock.callLater(self._drain_timeout, self.abort)
        await gatherResults(drained)
        if too_late.active():
            too_late.cancel()

    def abort(self) -> None:
        """Close all connections at once, also those whose answers are not finished."""
        self.factory.abort()
        if self.admin is not None:
            self.admin.abort()

    async def close(self) -> None:
        """Close the audit log, and export the remaining traces, after everything else has stopped."""
        self.close_audit_log()
        await maybeDeferred(self._telemetry.stop)
