"""Several workers with one file of tokens and one of rules: each notices changes, and SIGHUP reaches all of them."""

from __future__ import annotations

import signal
import time

from durable_streams.server.identity.tokens.file import add_token, remove_tokens
from durable_streams.server.identity.tokens.records import new_token
from tests.support.process_case import ProcessTestCase, wait_for

from .test_workers import SharingDaemon

#: More connections than workers, so that each worker gets some.
CONNECTIONS = 24


class WorkerAccessTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.folder / "tokens"
        self.rules = self.folder / "rules"
        self.rules.write_text("allow authenticated read **\n")
        token, record = new_token("alice", now=time.time())
        add_token(str(self.tokens), record)
        self.header, self.token_id = f"Bearer {token}", record.id

    def serve(self) -> SharingDaemon:
        daemon = SharingDaemon(
            3,
            auth__methods="token",
            auth__allow_anonymous="false",
            auth__token_file=self.tokens,
            auth__rules_file=self.rules,
        )
        self.addCleanup(daemon.close)
        daemon.__enter__()
        wait_for(lambda: "All 3 workers serve." in daemon.log(), "the last worker")
        return daemon

    def statuses(self, daemon: SharingDaemon) -> set[int]:
        """Return the statuses of a read on many new connections."""
        path = "/v1/stream/a?offset=-1"
        return {daemon.request("GET", path, authorization=self.header)[0] for _ in range(CONNECTIONS)}

    def test_each_worker_refuses_a_revoked_token_and_uses_changed_rules(self) -> None:
        daemon = self.serve()
        line = "Access: methods token; 1 rule in auth.rules_file; anonymous requests are refused."
        self.assertEqual(3, daemon.log().count(line))
        self.assertEqual({404}, self.statuses(daemon))
        self.rules.write_text("deny anyone read a\nallow authenticated read **\n")
        wait_for(lambda: daemon.log().count("number of rules: 2.") == 3, "the rules of all workers")
        self.assertEqual({403}, self.statuses(daemon))
        remove_tokens(str(self.tokens), [self.token_id])
        wait_for(lambda: daemon.log().count("Reloaded auth.token_file") == 3, "the tokens of all workers")
        self.assertEqual({401}, self.statuses(daemon))
        self.assertEqual(0, daemon.stop(), daemon.log())

    def test_sighup_with_an_invalid_file_changes_no_worker_and_is_logged_once_by_the_supervisor(self) -> None:
        daemon = self.serve()
        self.rules.write_text("allow me\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Reload: a file of auth is not valid, all stay as they were." in daemon.log(), "the error")
        self.assertEqual({404}, self.statuses(daemon))
        self.rules.write_text("deny anyone read a\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.statuses(daemon) == {403}, "the rules of all workers")
        self.assertEqual(0, daemon.stop(), daemon.log())
