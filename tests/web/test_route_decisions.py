"""Each route of the server has a decision in a table here: a new route without one fails."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import MemoryStorage, Settings, build_service
from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import Caller
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.problems import METHODS
from durable_streams.server.web.site.app import Pages, Routes
from durable_streams.server.web.subscription_paths import ROUTES
from tests.support.cases import each_way
from tests.support.fronts import BASE, ChannelFront
from tests.support.gated_pages import GatedPagesCase
from tests.support.gates import bearer
from tests.support.replies import Reply

#: What a request needs that needs no right: nothing at all, or the token of a claim.
PUBLIC: Final = "nothing"
CLAIM_TOKEN: Final = "the token of a claim"


class Need(Struct, frozen=True):
    """
    A request, and what it needs.

    :ivar rules: operation and name of the rules that are needed all.
    """

    rules: tuple[tuple[str, str], ...] = ()
    other: str = ""
    body: object = None
    headers: tuple[tuple[str, str], ...] = ()


_ADMIN: Final = Need((("admin", ""),))

#: Page and method -> need. The paths are those of Klein's routes.
PAGES: Final = {
    ("/healthz", "GET"): Need(other=PUBLIC),
    ("/readyz", "GET"): Need(other=PUBLIC),
    ("/metrics", "GET"): _ADMIN,
    ("/admin/streams", "GET"): _ADMIN,
    ("/admin/streams/<path:name>", "GET"): _ADMIN,
    ("/admin/streams/<path:name>", "DELETE"): _ADMIN,
    ("/admin/counts", "GET"): _ADMIN,
    ("/admin/export", "GET"): _ADMIN,
    ("/admin/import", "POST"): _ADMIN,
    ("/admin/backup", "GET"): _ADMIN,
    ("/admin/restore", "POST"): _ADMIN,
    ("/admin/subscriptions", "GET"): _ADMIN,
    ("/admin/rotate-signing-key", "POST"): _ADMIN,
}

_OWN: Final = ("subscribe", "__ds/subscriptions/ID")
_HOOK: Final = {"type": "webhook", "webhook": {"url": "https://worker.example/hook"}}
_PULL: Final = {"type": "pull-wake", "streams": ["a"], "wake_stream": "wakes"}

#: Path below __ds and method -> needs, one for each kind of request.
SUBSCRIPTIONS: Final = {
    ("jwks.json", "GET"): (Need(other=PUBLIC),),
    ("jwks.json", "HEAD"): (Need(other=PUBLIC),),
    ("subscriptions/ID", "GET"): (Need((_OWN,)),),
    ("subscriptions/ID", "HEAD"): (Need((_OWN,)),),
    ("subscriptions/ID", "DELETE"): (Need((_OWN,)),),
    ("subscriptions/ID", "PUT"): (
        Need((_OWN, ("subscribe", "a")), body={**_HOOK, "streams": ["a"]}),
        Need((_OWN, ("subscribe", "a"), ("subscribe", "b/c")), body={**_HOOK, "streams": ["a", "b/c"]}),
        Need((_OWN, ("subscribe", "events/**")), body={**_HOOK, "pattern": "events/*"}),
        Need((_OWN, ("subscribe", "a"), ("append", "wakes")), body=_PULL),
    ),
    ("subscriptions/ID/streams", "POST"): (Need((_OWN, ("subscribe", "a")), body={"streams": ["a"]}),),
    ("subscriptions/ID/streams/NAME", "DELETE"): (Need((_OWN,)),),
    ("subscriptions/ID/claim", "POST"): (Need((_OWN,), body={"worker": "w"}),),
    ("subscriptions/ID/ack", "POST"): (Need(other=CLAIM_TOKEN, body={}),),
    ("subscriptions/ID/callback", "POST"): (Need(other=CLAIM_TOKEN, body={}),),
    ("subscriptions/ID/release", "POST"): (Need(other=CLAIM_TOKEN, body={}),),
}

_TEXT: Final = ("Content-Type", "text/plain")
_CLOSED: Final = ("Stream-Closed", "true")
_FORK: Final = ("Stream-Forked-From", "source")
_OF_FORK: Final = (("create", "new"), ("fork-from", "source"), ("read", "source"))

#: Query and method -> needs of a stream.
STREAMS: Final = {
    ("", "OPTIONS"): (Need(other=PUBLIC),),
    ("", "HEAD"): (Need((("head", "a"),)),),
    ("", "GET"): (Need((("read", "a"),)),),
    ("?offset=-1", "GET"): (Need((("read", "a"),)),),
    ("?offset=-1&live=long-poll", "GET"): (Need((("read", "a"),)),),
    ("?offset=-1&live=sse", "GET"): (Need((("read", "a"),)),),
    ("", "DELETE"): (Need((("delete", "a"),)),),
    ("", "POST"): (
        Need((("append", "a"),), body=b"x", headers=(_TEXT,)),
        Need((("close", "a"),), headers=(_CLOSED,)),
        Need((("append", "a"), ("close", "a")), body=b"x", headers=(_TEXT, _CLOSED)),
        Need((("append", "a"),), headers=(_TEXT,)),
    ),
    ("", "PUT"): (
        Need((("create", "new"),), headers=(_TEXT,)),
        Need((("create", "new"), ("append", "new")), body=b"x", headers=(_TEXT,)),
        Need((("create", "new"), ("close", "new")), headers=(_TEXT, _CLOSED)),
        Need(_OF_FORK, headers=(_FORK,)),
        Need((*_OF_FORK, ("close", "new")), headers=(_FORK, _CLOSED)),
    ),
}


def routes_of(pages: Pages) -> Iterator[tuple[str, str]]:
    """Yield the path and the method of each page. HEAD needs what GET does."""
    for rule in pages.load().url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            yield rule.rule, method


class TableTests(SynchronousTestCase):
    def test_each_page_of_a_server_with_all_options_is_in_the_table(self) -> None:
        for admin in ({"enabled": True}, {"enabled": True, "bind_address": "127.0.0.1:4438"}):
            settings = Settings.from_mapping({"admin": admin})
            server = build_service(MemoryStorage(), settings, ["tcp:0"], MemoryReactorClock())
            fronts = server._fronts
            found = {*routes_of(fronts._for_all), *routes_of(fronts._for_operators)}
            self.assertEqual(found, set(PAGES))

    def test_a_page_without_a_decision_is_closed_on_each_listener(self) -> None:
        for admin in ({"enabled": True}, {"enabled": True, "bind_address": "127.0.0.1:4438"}, {"enabled": False}):
            settings = Settings.from_mapping({"admin": admin, "auth": {"rules": ["allow anyone all a/**"]}})
            fronts = build_service(MemoryStorage(), settings, ["tcp:0"], MemoryReactorClock())._fronts

            def add(app: Routes) -> None:
                @app.route("/new", methods=["GET"])
                def new(request: PageRequest) -> Answer:
                    return Answer(200, b"", b"secret")

            fronts._for_all.add(add)
            request = PageRequest(b"GET", b"/new", [(b"Host", b"localhost")], caller=Caller("127.0.0.1"))
            self.assertEqual(self.successResultOf(fronts._for_all.perform(request)).status, 401, admin)

    def test_each_path_of_subscriptions_is_in_the_table(self) -> None:
        found = {(path, method.decode()) for path, route in ROUTES.items() for method in route.methods}
        self.assertEqual(found, set(SUBSCRIPTIONS))

    def test_each_method_of_streams_is_in_the_table(self) -> None:
        self.assertEqual(set(METHODS.decode().split(", ")), {method for _, method in STREAMS})
        front = ChannelFront()
        self.addCleanup(front.stop)
        kinds = {"append", "create", "delete", "head", "poll", "read", "request", "subscribe"}
        self.assertEqual(set(front.operations._by_operation), kinds)

    def test_each_operation_is_needed_somewhere(self) -> None:
        tables = [*PAGES.values(), *sum(SUBSCRIPTIONS.values(), ()), *sum(STREAMS.values(), ())]
        self.assertEqual({operation for need in tables for operation, _ in need.rules}, set(OPERATIONS))


class DecisionCase(GatedPagesCase):
    streams: Mapping[str, bytes] = {"a": b"hello", "source": b"hello", "wakes": b""}

    def ask_for(self, method: str, path: str, need: Need, token: str | None) -> Reply:
        body = (
            need.body if isinstance(need.body, bytes) else b"" if need.body is None else json.dumps(need.body).encode()
        )
        peer = self.front.connect()
        peer.send_request(method, path, {"Host": "localhost", **bearer(token), **dict(need.headers)}, body)
        self.front.pass_time(0.3, 0.01)
        self.assertTrue(peer.replies, (method, path))
        reply = peer.reply
        peer.leave()
        self.front.peers.remove(peer)
        return reply

    def decide(self, method: str, path: str, need: Need) -> None:
        """Assert that a request needs exactly these rights."""
        where = (method, path, need.rules)
        self.control.set_rules()
        if not need.rules:
            for token in (None, "alice"):
                status = self.ask_for(method, path, need, None if need.other == PUBLIC else token).status
                self.assertEqual(status == 401, need.other == CLAIM_TOKEN, where)
            return
        self.assertEqual(self.ask_for(method, path, need, None).status, 401, where)
        self.assertEqual(self.ask_for(method, path, need, "wrong").status, 401, where)
        self.assertEqual(self.ask_for(method, path, need, "alice").status, 403, where)
        rules = [f"allow subject:alice {operation} {name}".strip() for operation, name in need.rules]
        for missing in range(len(rules)):
            self.control.set_rules(*rules[:missing], *rules[missing + 1 :])
            self.assertEqual(self.ask_for(method, path, need, "alice").status, 403, (where, missing))
            # All rights but this one, on all names, do not help.
            operation = need.rules[missing][0]
            others = ",".join(each for each in OPERATIONS if each not in (operation, "admin"))
            others = others.replace("read,", "") if operation == "head" else others
            self.control.set_rules(*rules[:missing], *rules[missing + 1 :], f"allow subject:alice {others} **")
            self.assertEqual(self.ask_for(method, path, need, "alice").status, 403, (where, missing))
        self.control.set_rules(*rules)
        allowed = self.ask_for(method, path, need, "alice")
        self.assertNotIn(allowed.status, (401, 403), (where, bytes(allowed.body)))
        self.assertEqual(self.ask_for(method, path, need, "bob").status, 403, where)


@each_way
class DecisionTests(DecisionCase):
    def test_each_page_needs_what_the_table_says(self) -> None:
        for (path, method), need in PAGES.items():
            self.decide(method, path.replace("<path:name>", "none"), need)

    def test_each_path_of_subscriptions_needs_what_the_table_says(self) -> None:
        for (path, method), needs in SUBSCRIPTIONS.items():
            for need in needs:
                self.decide(method, BASE + "__ds/" + path.replace("NAME", "a"), need)

    def test_each_request_for_a_stream_needs_what_the_table_says(self) -> None:
        for (query, method), needs in STREAMS.items():
            for need in needs:
                name = "new" if method == "PUT" else "a"
                self.decide(method, BASE + name + query, need)
                self.control.set_rules("allow subject:owner all **")
                self.ask_for("DELETE", BASE + "new", Need(), "owner")
                self.ask_for("PUT", BASE + "a", Need(headers=(_TEXT,)), "owner")
