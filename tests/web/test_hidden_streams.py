"""Tests of auth.hide_forbidden: what may not be read is answered as what does not exist."""

from __future__ import annotations

from typing import Final

from tests.support.cases import TEXT, each_way
from tests.support.fronts import Headers
from tests.support.gates import GateTestCase
from tests.support.late_storage import LateStorage
from tests.support.replies import Reply

#: Requests, valid and malformed.
REQUESTS: Final[tuple[tuple[str, str, Headers, bytes], ...]] = (
    ("GET", "", {}, b""),
    ("GET", "?offset=-1", {"If-None-Match": "*"}, b""),
    ("GET", "?offset=now", {}, b""),
    ("GET", "?offset=-1&live=sse", {}, b""),
    ("GET", "?offset=-1&live=long-poll", {}, b""),
    ("GET", "?offset=1800000000000000_0000000000000005", {}, b""),
    ("GET", "?offset=nonsense", {}, b""),
    ("GET", "?live=sse", {}, b""),
    ("GET", "?offset=-1&live=sse", {"Last-Event-ID": "nonsense"}, b""),
    ("HEAD", "", {}, b""),
    ("POST", "", TEXT, b"x"),
    ("POST", "", {**TEXT, "Stream-Closed": "true"}, b""),
    ("POST", "", {}, b"x"),
    ("POST", "", TEXT, b""),
    ("POST", "", {"Content-Type": "application/json"}, b"nonsense"),
    ("POST", "", {**TEXT, "Producer-Id": "a"}, b"x"),
    ("DELETE", "", {}, b""),
)


@each_way
class HiddenStreamTests(GateTestCase):
    hide_forbidden = True
    rules = (
        "allow subject:bob append log/**",
        "deny subject:bob all hidden/**",
        "allow subject:bob all bob/**",
        "allow subject:bob read,append shared/**",
        "allow subject:owner all **",
    )
    streams = {"hidden/s": b"hello", "shared/s": b"hello", "log/l": b"hello"}  # noqa: RUF012 (not changed)

    def shown(self, reply: Reply, name: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return what a client sees of an answer, without the name of the stream."""
        ignored = ("x-request-id", "date", "content-length")
        fields = [(key, value) for key, value in reply.headers if key not in ignored]
        return reply.status, fields, bytes(reply.body).replace(name.encode(), b"NAME")

    def test_a_hidden_stream_is_answered_as_one_that_does_not_exist(self) -> None:
        for method, query, headers, body in REQUESTS:
            answers = [
                self.shown(self.ask(method, name + query, "bob", headers, body), name)
                for name in ("bob/missing", "hidden/s", "hidden/missing")
            ]
            self.assertEqual(answers[0], answers[1], (method, query, headers))
            self.assertEqual(answers[0], answers[2], (method, query, headers))
        self.assertEqual(self.ask("GET", "hidden/s", "bob").code, "NOT_FOUND")

    def test_a_hidden_stream_is_refused_without_storage(self) -> None:
        if not isinstance(self.front.storage, LateStorage):
            return
        self.front.storage.calls.clear()
        for method, query, headers, body in REQUESTS:
            self.ask(method, "hidden/s" + query, "bob", headers, body)
        self.assertEqual([call for call in self.front.storage.calls if call not in ("sweep", "renew")], [])

    def test_a_create_of_a_hidden_stream_is_403(self) -> None:
        self.assertEqual(self.ask("PUT", "hidden/s", "bob", TEXT).status, 403)
        self.assertEqual(self.ask("PUT", "hidden/missing", "bob", TEXT).status, 403)
        self.assertEqual(self.ask("PUT", "bob/fork", "bob", {"Stream-Forked-From": "hidden/s"}).status, 403)

    def test_what_may_be_read_but_not_changed_is_403(self) -> None:
        self.assertEqual(self.ask("DELETE", "shared/s", "bob").status, 403)
        self.assertEqual(self.ask("POST", "shared/s", "bob", {**TEXT, "Stream-Closed": "true"}).status, 403)

    def test_what_may_be_appended_to_but_not_read_is_404_for_reads(self) -> None:
        self.assertEqual(self.ask("POST", "log/l", "bob", TEXT, b"x").status, 204)
        self.assertEqual(self.ask("GET", "log/l", "bob").status, 404)
        self.assertEqual(self.ask("HEAD", "log/l", "bob").status, 404)
        self.assertEqual(self.ask("DELETE", "log/l", "bob").status, 404)

    def test_anonymous_requests_are_asked_for_credentials(self) -> None:
        for name in ("hidden/s", "hidden/missing"):
            self.assertEqual(self.ask("GET", name).status, 401)
