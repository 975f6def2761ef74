"""Each page for operators asks for permission, on each front and in a whole server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import MemoryStorage, Settings, build_service
from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.incoming import IncomingBody
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.site.app import Pages
from tests.support.admin import add_pages
from tests.support.cases import FrontTestCase, each_way

#: The pages that are for everybody.
PUBLIC = {"/healthz", "/readyz", "/metrics"}

#: The pages for operators.
PRIVATE = {
    ("/admin/streams", "GET"),
    ("/admin/streams/a", "GET"),
    ("/admin/streams/a", "DELETE"),
    ("/admin/counts", "GET"),
    ("/admin/export", "GET"),
    ("/admin/import", "POST"),
    ("/admin/backup", "GET"),
    ("/admin/restore", "POST"),
}


def routes(pages: Pages) -> Iterator[tuple[str, str]]:
    """Yield a path and a method for each page that is not public."""
    for rule in pages.load().url_map.iter_rules():
        path = rule.rule.replace("<path:name>", "a")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            if path not in PUBLIC:
                yield path, method


class _Nowhere:
    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...


def empty_body() -> IncomingBody:
    """Return a body that has arrived."""
    body = IncomingBody(_Nowhere())
    body.ended()
    return body


@each_way
class FrontRouteTests(FrontTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[str, str]] = []
        add_pages(self.front, self.refuse)
        self.front.create("a")

    def refuse(self, request: PageRequest) -> bool:
        self.asked.append((request.path.decode(), request.method.decode()))
        raise NotAuthenticated("Log in.")

    def test_each_page_but_the_public_ones_asks_and_obeys(self) -> None:
        found = list(routes(self.front.pages))
        self.assertEqual(set(found), PRIVATE)
        for path, method in found:
            reply = self.front.ask(method, path)
            self.assertEqual((reply.status, reply.code), (401, "UNAUTHORIZED"), (path, method))
        self.assertEqual(self.asked, found)
        self.assertEqual(self.front.ask("GET", "/v1/stream/a").status, 200)


class WholeServerTests(SynchronousTestCase):
    def pages(self, **options: Any) -> Pages:
        settings = Settings.from_mapping({"admin": {"enabled": True}})
        server = build_service(MemoryStorage(), settings, ["tcp:0"], MemoryReactorClock(), **options)
        return server._fronts._for_operators

    def status(self, pages: Pages, path: str, method: str, address: str) -> int:
        fields = [(b"Host", b"localhost")]
        # Pages that have no body ignore it.
        request = PageRequest(method.encode(), path.encode(), fields, empty_body(), Caller(address))
        return self.successResultOf(pages.perform(request)).status

    def test_without_a_check_every_page_is_refused_to_other_machines(self) -> None:
        pages = self.pages()
        of_subscriptions = {("/admin/subscriptions", "GET"), ("/admin/rotate-signing-key", "POST")}
        self.assertEqual(set(routes(pages)), PRIVATE | of_subscriptions)
        for path, method in routes(pages):
            self.assertEqual(self.status(pages, path, method, "192.0.2.1"), 403, path)
            # The service is not started, so there are no streams yet; the totals are known.
            self.assertIn(self.status(pages, path, method, "127.0.0.1"), (200, 503), path)

    def test_the_check_of_a_program_decides_for_every_page(self) -> None:
        answers: list[Any] = []

        def check(request: PageRequest) -> Any:
            answers.append(Deferred())
            return answers[-1]

        pages = self.pages(authorize_admin=check)
        for path, method in routes(pages):
            request = PageRequest(method.encode(), path.encode(), [], caller=Caller("127.0.0.1"))
            waiting = pages.perform(request)
            self.assertNoResult(waiting)
            answers[-1].callback(False)
            self.assertEqual(self.successResultOf(waiting).status, 403, path)

    def test_without_the_setting_there_are_no_pages(self) -> None:
        server = build_service(MemoryStorage(), Settings(), ["tcp:0"], MemoryReactorClock())
        self.assertEqual(list(routes(server._fronts._for_operators)), [])
