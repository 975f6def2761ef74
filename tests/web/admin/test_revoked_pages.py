"""Requests for the pages for operators that take their time end when their principal loses the right, on each front."""

from __future__ import annotations

from tests.support.cases import each_way
from tests.support.fronts import BASE, Peer, SiteFront, request
from tests.support.gated_pages import OPERATOR_TOKEN, GatedPagesCase
from tests.support.gates import bearer
from tests.support.http2 import Http2Peer
from tests.support.transfers import document_object, pretty, stream_object

#: More than what is sent before the client reads.
LARGE = 3_000_000


@each_way
class RevokedPageTests(GatedPagesCase):
    streams = {"alice/large": b"x" * LARGE}  # noqa: RUF012 (not changed)

    def export(self, token: str) -> Peer:
        """Begin an export that the client does not read."""
        peer = self.front.connect(room=1000)
        peer.send_request("GET", "/admin/export", {"Host": "localhost", **bearer(token)})
        self.front.pass_time(0.5, 0.01)
        return peer

    def assert_broken_off(self, peer: Peer) -> None:
        """Assert that the answer of an export is not complete, however much its client reads."""
        peer.read_freely()
        self.front.pass_time(1, 0.01)
        self.assertFalse(peer.replies and peer.reply.complete)
        self.assertEqual(len(self.gate.readers), 0)

    def test_an_export_ends_when_its_token_is_revoked(self) -> None:
        peer = self.export("ops")
        self.assertEqual(len(self.gate.readers), 1)
        self.control.revoke("ops")
        self.front.pass_time(0.25)
        self.assert_broken_off(peer)

    def test_an_export_ends_when_the_rule_is_removed(self) -> None:
        peer = self.export("ops")
        self.control.set_rules("allow subject:owner all **")
        self.front.pass_time(0.25)
        self.assert_broken_off(peer)

    def test_an_export_of_another_principal_goes_on(self) -> None:
        peer = self.export("owner")
        self.control.revoke("ops")
        self.front.pass_time(0.25)
        peer.read_freely()
        self.front.pass_time(1, 0.01)
        self.assertTrue(peer.reply.complete)
        self.assertGreater(len(peer.reply.body), LARGE)
        self.assertEqual(len(self.gate.readers), 0)

    def test_an_export_whose_client_leaves_is_not_checked_any_more(self) -> None:
        peer = self.export("ops")
        peer.reset()
        self.front.pass_time(0.5)
        self.assertEqual(len(self.gate.readers), 0)

    def test_an_import_whose_token_is_revoked_is_refused_and_changes_nothing(self) -> None:
        if self.front_type is SiteFront:
            # The page is called when twisted.web has received the whole body.
            return
        part = pretty(document_object(stream_object("new", "text/plain", b"x" * 50_000)))[:30_000]
        headers = {"Host": "localhost", **bearer("ops")}
        peer = self.front.connect()
        if isinstance(peer, Http2Peer):
            peer.upload(peer.begin("POST", "/admin/import", headers, False), part, False)
        else:
            peer.send(request("POST", "/admin/import", {"Content-Length": "60000", **headers}) + part, "POST")
        self.front.pass_time(0.5)
        self.assertEqual(peer.replies, [])
        self.control.revoke("ops")
        self.front.pass_time(0.5)
        self.assertEqual((peer.reply.status, peer.reply.code), (403, "FORBIDDEN"))
        self.assertIn("right to use this page has ended", peer.reply.json()["detail"])
        self.assertEqual(len(self.gate.readers), 0)
        self.assertEqual(self.front.ask("GET", BASE + "new", bearer("owner")).status, 404)


@each_way
class OperatorTokenTests(GatedPagesCase):
    has_file = True
    streams = {"alice/large": b"x" * LARGE}  # noqa: RUF012 (not changed)

    def test_an_export_by_a_token_of_the_file_does_not_depend_on_rules(self) -> None:
        peer = self.front.connect(room=1000)
        peer.send_request("GET", "/admin/export", {"Host": "localhost", **bearer(OPERATOR_TOKEN)})
        self.front.pass_time(0.5, 0.01)
        self.control.set_rules("allow subject:owner all **")
        self.front.pass_time(0.25)
        peer.read_freely()
        self.front.pass_time(1, 0.01)
        self.assertTrue(peer.reply.complete)
