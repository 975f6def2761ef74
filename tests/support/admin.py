"""The pages for operators on a front of the tests."""

from __future__ import annotations

from functools import partial
from typing import Any

from durable_streams.server.web.site.admin.access import AdminAuthorization, AdminGuard
from durable_streams.server.web.site.admin.pages import add_admin_pages
from tests.support.cases import FrontTestCase
from tests.support.fronts import Front, settings_with


def add_pages(front: Front, authorize: AdminAuthorization = lambda _: True) -> None:
    """Add all pages for operators below ``/admin``."""
    front.pages.guard = AdminGuard("/admin", authorize)
    front.pages.add(
        partial(
            add_admin_pages,
            base_path="/admin",
            operations=front.operations,
            connections=lambda: front.channels.connections,
            reactor=front.clock,
        )
    )


class AdminCase(FrontTestCase):
    """A test case with the pages for operators, which are open to everybody."""

    settings = settings_with({"stall_timeout_secs": 60})

    def setUp(self) -> None:
        super().setUp()
        add_pages(self.front)

    @property
    def memory(self) -> Any:
        """The storage in memory, whose operations have no delay."""
        return getattr(self.front.storage, "_inner", self.front.storage)

    def fetched(self, target: str, **headers: str) -> Any:
        """Return the body of an answer, after as many turns of the reactor as needed."""
        peer = self.front.follow(target, {name.replace("_", "-"): value for name, value in headers.items()})
        self.front.pass_time(2, 0.01)
        self.assertEqual((peer.reply.status, peer.reply.complete), (200, True), bytes(peer.reply.body))
        self.assertEqual(peer.reply.get("content-type"), "application/json")
        self.assertEqual(peer.reply.get("cache-control"), "no-store")
        return peer.reply.json()

    def assert_refused(self, target: str, text: str, method: str = "GET") -> None:
        """Assert that a request is malformed, and that the detail has a text."""
        reply = self.front.ask(method, target)
        self.assertEqual((reply.status, reply.code), (400, "BAD_REQUEST"), target)
        self.assertIn(text, reply.json()["detail"])
        self.assertEqual(reply.json()["instance"], target)
