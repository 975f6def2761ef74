"""A front behind the gate, with all pages: for operators, of subscriptions, metrics and probes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from msgspec.structs import replace

from durable_streams.server.config.sections import AdminSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.assembly import add_pages_of_operators, guard_pages
from durable_streams.server.daemon.subscribing import serve_subscriptions, subscription_pages
from durable_streams.server.subscriptions.service import SubscriptionService
from durable_streams.server.web.site.admin.access import AdminAuthorization
from tests.subscriptions.serving import Callables

from .gates import GateTestCase, bearer
from .replies import Reply

#: A token of ``admin.token_file``.
OPERATOR_TOKEN = "0123456789abcdef-operator"


class GatedPagesCase(GateTestCase):
    """
    A test case with everything that is served behind the gate.

    :cvar has_pages: whether there are pages for operators.
    :cvar has_file: whether there is a file of tokens for them.
    :cvar bind_address: whether they have a listener of their own; the front is this listener then.
    """

    has_pages: ClassVar[bool] = True
    has_file: ClassVar[bool] = False
    bind_address: ClassVar[str | None] = None
    rules: tuple[str, ...] = (
        "allow subject:owner all **",
        "allow subject:ops admin",
        "allow subject:alice create,append,read,head,close,delete,fork-from,subscribe **",
    )

    def setUp(self) -> None:
        super().setUp()
        self.book.tokens["ops"] = replace(self.book.tokens["bob"], subject="ops")
        front = self.front
        # All clients are on the server's machine, which opens nothing by itself.
        front.network.client_address = "127.0.0.1"
        service = SubscriptionService(front.streams, front.clock, Callables().open)
        service.start()
        serve_subscriptions(front.operations, service)
        self.addCleanup(service.stopService)
        self.protect()
        if self.has_pages:
            add_pages_of_operators(front.pages, "/admin", front.operations, front.clock, lambda: 0)
            front.pages.add(subscription_pages("/admin", service))
        front.settle()

    def protect(self, authorize: AdminAuthorization | None = None) -> None:
        """Protect the pages."""
        file = None
        if self.has_file:
            path = Path(self.mktemp())
            path.touch(0o600)
            path.write_text(OPERATOR_TOKEN)
            file = str(path)
        admin = AdminSettings(self.has_pages, bind_address=self.bind_address, token_file=file)
        base_path = "/admin" if self.has_pages else None
        guard_pages(self.front.pages, Settings(admin=admin), self.front.operations, base_path, authorize)

    def get(self, path: str, token: str | None = None, method: str = "GET", **headers: str) -> Reply:
        """Send a request for a page with a token."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        peer = self.front.connect()
        peer.send_request(method, path, {"Host": "localhost", **bearer(token), **fields})
        self.front.pass_time(0.5, 0.01)
        self.assertEqual(len(peer.replies), 1, (method, path))
        peer.leave()
        self.front.peers.remove(peer)
        return peer.reply
