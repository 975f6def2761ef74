"""Tests of a disk that fails once: writes stop, reads continue, and no acknowledged data is lost."""

from __future__ import annotations

import json
import threading

from twisted.trial.unittest import SynchronousTestCase

from tests.support.exchanges import Exchanges
from tests.support.kill_campaign import TRAP_PATIENCE
from tests.support.killed_daemon import KilledDaemon
from tests.support.traps import BROKEN

from .kills import Campaign

_SOON = {"checkpoint_bytes": 128 << 10, "segment_sizes": (1 << 20, 512 << 10)}


class FailingDiskTests(SynchronousTestCase):
    """The points of failure are named as in :mod:`tests.support.traps`."""

    def keeps_its_word(self, point: str, passage: int, mode: str = "file-durable") -> None:
        campaign = Campaign(mode, self.id(), _SOON)
        self.addCleanup(campaign.close)
        daemon = campaign.start(point, passage, BROKEN)
        self.addCleanup(daemon.kill)
        daemon.wait_until_ready()
        campaign.renew(daemon, at_least=1)
        # One that waits is answered when the server stops, and not before.
        following = Following(daemon, campaign.shared[0].path)
        for client in campaign.clients:
            client.begin(daemon.port)
        for client in campaign.clients:
            client.wait(TRAP_PATIENCE)
            client.end()
        self.assertEqual(campaign.mark.read_text(), f"{point} {passage}")
        self.assert_reads_only(campaign, daemon)
        self.assertTrue(following.goes_on)
        self.assertEqual(daemon.terminate(), 0, daemon.log())
        self.assertTrue(following.ended_well())
        log = daemon.log()
        self.assertEqual(log.count("Z critical ["), 1, log)
        self.assertIn("has failed and takes no more writes: ", log)
        self.assertNotIn("Traceback", log)
        campaign.look()
        self.assertGreater(campaign.figures.checked, 10)

    def assert_reads_only(self, campaign: Campaign, daemon: KilledDaemon) -> None:
        self.assertEqual(daemon.ask("GET", "/healthz").status, 200)
        ready = daemon.ask("GET", "/readyz")
        self.assertEqual(ready.status, 503)
        self.assertIn("failed to write", json.loads(ready.body)["detail"])
        with Exchanges(daemon.port) as exchanges:
            for ledger in campaign.shared:
                reply = exchanges.ask(
                    "POST", ledger.path, b"{}" if ledger.json else b"x", {"Content-Type": ledger.content_type}
                )
                self.assertEqual(reply.status, 503)
                self.assertEqual(reply.headers["content-type"], "application/problem+json")
                problem = json.loads(reply.body)
                self.assertEqual((problem["status"], problem["code"]), (503, "UNAVAILABLE"))
                self.assertIn("failed to write", problem["detail"])
                self.assertEqual(exchanges.ask("DELETE", ledger.path).status, 503)
                # All that was acknowledged can be read, and nothing else: what is read now must be there later.
                reply = exchanges.ask("GET", f"{ledger.path}?offset=-1")
                ledger.compare(reply)
                ledger.see(ledger.wire(reply.body), reply.closed)

    def test_a_failed_write_of_a_batch_stops_all_writes(self) -> None:
        self.keeps_its_word("before journal/write", 40)

    def test_an_incomplete_write_of_a_batch_stops_all_writes(self) -> None:
        self.keeps_its_word("amid journal/write", 40)

    def test_an_error_after_the_write_of_a_batch_stops_all_writes(self) -> None:
        self.keeps_its_word("after journal/write", 40)

    def test_a_failed_sync_of_file_fast_stops_all_writes(self) -> None:
        self.keeps_its_word("before journal/sync", 8, "file-fast")

    def test_a_new_segment_that_cannot_be_created_stops_all_writes(self) -> None:
        self.keeps_its_word("before journal/folder", 5)

    def test_a_failed_sync_of_a_segment_stops_all_writes(self) -> None:
        self.keeps_its_word("before journal/sync", 8)

    def test_a_failed_sync_of_a_pack_stops_all_writes(self) -> None:
        self.keeps_its_word("before packs/sync", 3)

    def test_a_failed_sync_of_a_streams_file_stops_all_writes(self) -> None:
        self.keeps_its_word("before data/sync", 2)

    def test_a_failed_sync_of_a_checkpoint_stops_all_writes(self) -> None:
        self.keeps_its_word("before checkpoint/sync", 3)

    def test_a_failed_rename_of_a_checkpoint_stops_all_writes(self) -> None:
        self.keeps_its_word("after checkpoint/rename", 3)

    def test_a_failed_transaction_stops_all_writes(self) -> None:
        self.keeps_its_word("before sqlite/insert", 40, "acid")

    def test_a_failed_commit_stops_all_writes(self) -> None:
        self.keeps_its_word("before sqlite/commit", 40, "acid")

    def test_an_error_after_a_commit_stops_all_writes(self) -> None:
        self.keeps_its_word("after sqlite/commit", 40, "acid")

    def test_a_failed_checkpoint_of_sqlite_stops_all_writes(self) -> None:
        # Few large appends may fill the log twice: of the writes before the eighth time, 57 to 98 are checked.
        self.keeps_its_word("before sqlite/checkpoint", 8, "acid")


class Following:
    """A reader that follows a stream by Server-Sent Events in a thread."""

    def __init__(self, daemon: KilledDaemon, path: str) -> None:
        self._exchanges = Exchanges(daemon.port)
        self._exchanges.send("GET", f"{path}?offset=-1&live=sse")
        self._received = b""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        self._received = self._exchanges.receive_all()

    @property
    def goes_on(self) -> bool:
        """Whether the connection is open."""
        return self._thread.is_alive()

    def ended_well(self) -> bool:
        """Whether the answer ended properly."""
        self._thread.join(TRAP_PATIENCE)
        self._exchanges.close()
        return self._received.startswith(b"HTTP/1.1 200 ") and self._received.endswith(b"\r\n0\r\n\r\n")
