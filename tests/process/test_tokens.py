"""The daemon with static tokens: starts that are refused, changes of the file at run time, and floods."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import Any

from durable_streams.server.identity.tokens.file import add_token, remove_tokens
from durable_streams.server.identity.tokens.queue import MAX_WAITING_OF_ADDRESS
from durable_streams.server.identity.tokens.records import new_token
from tests.process.test_workers import SharingDaemon
from tests.support.bearer_case import STREAM, BearerTestCase
from tests.support.commands import COMMAND, environment
from tests.support.daemon import TWISTD, Daemon, read_until
from tests.support.process_case import wait_for


class TokensCase(BearerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "tokens"
        self.alice, self.alice_id = self.add("alice")

    def add(self, subject: str, **others: Any) -> tuple[str, str]:
        """Add a token to the file, and return it and its id."""
        token, record = new_token(subject, now=time.time(), **others)
        add_token(str(self.path), record)
        return token, record.id

    def settings(self, **changes: object) -> dict[str, object]:
        return {
            "auth__methods": "token",
            "auth__allow_anonymous": "false",
            "auth__token_file": self.path,
            "auth__rules": "allow authenticated all **",
        } | changes

    def daemon(self, **changes: object) -> Daemon:
        return Daemon(None, **self.settings(**changes))


class StartTests(TokensCase):
    def refusal(self) -> str:
        """Return the last line of a start that is refused."""
        for command in (TWISTD, (*TWISTD, "--check")):
            ended = self.run_to_end(command, None, **self.settings())
            self.assertEqual(1, ended.returncode, ended.stdout + ended.stderr)
            self.assertNotIn("Traceback", ended.stdout + ended.stderr)
        return (ended.stdout + ended.stderr).strip().splitlines()[-1]

    def test_a_file_that_others_can_read_is_refused_with_the_command_that_helps(self) -> None:
        self.path.chmod(0o640)
        self.assertIn("[validate_config] auth.token_file: ", self.refusal())
        self.assertIn(f"chmod 600 {self.path}", self.refusal())

    def test_a_damaged_line_is_named_without_its_hash(self) -> None:
        text = self.path.read_text()
        self.path.write_text(f"# staff\n{text[:-3]}\n")
        refusal = self.refusal()
        self.assertIn(f"Line 2 of {self.path}", refusal)
        self.assertNotIn(text.split("$")[-1][:20], refusal)

    def test_a_missing_file_is_refused_with_the_command_that_makes_it(self) -> None:
        self.path.unlink()
        self.assertIn("durable-streams-server token create", self.refusal())


class ChangeTests(TokensCase):
    def test_a_revoked_token_ends_its_tails_and_the_other_tokens_go_on(self) -> None:
        bob, bob_id = self.add("bob")
        with self.daemon() as daemon:
            self.assertEqual(201, self.ask(daemon, "PUT", self.alice))
            ended, kept = self.tail(daemon, bob), self.tail(daemon, self.alice)
            began = time.monotonic()
            remove_tokens(str(self.path), [bob_id])
            received = read_until(ended, b"0\r\n\r\n")
            self.assertLess(time.monotonic() - began, 5)
            self.assertIn(b"event: control", received)
            self.assertEqual(401, self.ask(daemon, "GET", bob))
            self.assertEqual(204, self.ask(daemon, "POST", self.alice, body=b"one"))
            read_until(kept, b"one")
            for secret in (self.alice, bob):
                self.assertNotIn(secret.split("_")[2], daemon.log())

    def test_a_new_token_is_accepted_without_a_restart_though_it_was_refused_before(self) -> None:
        token, record = new_token("carol")
        with self.daemon() as daemon:
            self.assertEqual(401, self.ask(daemon, "PUT", token))
            add_token(str(self.path), record)
            wait_for(lambda: self.ask(daemon, "PUT", token) == 201, "the new token")

    def test_a_command_that_follows_a_stream_goes_on_with_the_token_that_replaces_its_own(self) -> None:
        bob, bob_id = self.add("bob")
        file = self.folder / "bob.token"
        file.write_text(bob)
        printed = self.folder / "printed"
        with self.daemon() as daemon, printed.open("wb") as output:
            self.assertEqual(201, self.ask(daemon, "PUT", self.alice))
            url = f"http://127.0.0.1:{daemon.port}{STREAM}"
            tail = subprocess.Popen(
                [*COMMAND, "tail", url, "--token-file", str(file)],
                env=environment(),
                stdout=output,
                stderr=subprocess.PIPE,
            )
            try:
                self.assertEqual(204, self.ask(daemon, "POST", self.alice, body=b"one"))
                wait_for(lambda: printed.read_bytes() == b"one", "the first data")
                file.write_text(self.add("bob")[0])
                remove_tokens(str(self.path), [bob_id])
                wait_for(lambda: self.ask(daemon, "GET", bob) == 401, "the revocation")
                self.assertEqual(204, self.ask(daemon, "POST", self.alice, body=b"two"))
                wait_for(lambda: printed.read_bytes() == b"onetwo", "the data after the revocation")
                self.assertIs(None, tail.poll())
            finally:
                tail.kill()
                said = tail.communicate()[1]
            self.assertEqual(b"", said)

    def test_an_expired_token_is_refused_and_its_tail_ends(self) -> None:
        with self.daemon() as daemon:
            self.assertEqual(201, self.ask(daemon, "PUT", self.alice))
            token, _ = self.add("dave", expires_in=5.0)
            wait_for(lambda: self.ask(daemon, "GET", token) == 200, "the new token")
            read_until(self.tail(daemon, token), b"0\r\n\r\n")
            self.assertEqual(401, self.ask(daemon, "GET", token))
            self.assertEqual(200, self.ask(daemon, "GET", self.alice))

    def test_a_file_that_becomes_unusable_leaves_the_tokens_and_one_error(self) -> None:
        with self.daemon() as daemon:
            self.assertEqual(201, self.ask(daemon, "PUT", self.alice))
            self.path.chmod(0o644)
            error = "auth.token_file was not read again, its tokens stay as they were."
            wait_for(lambda: error in daemon.log(), "the error")
            time.sleep(2.5)
            self.assertEqual(1, daemon.log().count(error))
            self.assertIn(f"chmod 600 {self.path}", daemon.log())
            self.assertEqual(200, self.ask(daemon, "GET", self.alice))
            self.path.chmod(0o600)
            wait_for(lambda: "Reloaded auth.token_file" in daemon.log(), "the end of the error")
            remove_tokens(str(self.path), [self.alice_id])
            wait_for(lambda: self.ask(daemon, "GET", self.alice) == 401, "the revocation")
            self.assertNotIn("Traceback", daemon.log())


class WorkersTests(TokensCase):
    def test_each_worker_notices_a_revocation(self) -> None:
        bob, bob_id = self.add("bob")
        with SharingDaemon(3, **self.settings()) as daemon:
            # Each worker of this daemon has streams of its own, so that most answers are 404.
            self.assertNotIn(401, {self.ask(daemon, "GET", bob) for _ in range(20)})
            remove_tokens(str(self.path), [bob_id])
            wait_for(lambda: {self.ask(daemon, "GET", bob) for _ in range(20)} == {401}, "the revocation")
            self.assertNotIn(401, {self.ask(daemon, "GET", self.alice) for _ in range(20)})


class FloodTests(TokensCase):
    def test_verified_and_new_tokens_are_served_during_a_flood_of_wrong_ones(self) -> None:
        bob, _ = self.add("bob")
        with self.daemon() as daemon:
            self.assertEqual(201, self.ask(daemon, "PUT", self.alice))
            ends = threading.Event()
            statuses: list[int] = []

            def flood(number: int) -> None:
                tries = 0
                while not ends.is_set():
                    tries += 1
                    statuses.append(self.ask(daemon, "GET", f"dst_{number}_{tries:043d}"))

            threads = [threading.Thread(target=flood, args=(number,)) for number in range(24)]
            for thread in threads:
                thread.start()
            try:
                wait_for(lambda: len(statuses) > 50, "the flood")
                for _ in range(20):
                    self.assertEqual(200, self.ask(daemon, "GET", self.alice))
                # It comes from the address of the flood, whose turn it shares, so that it may have to try again.
                wait_for(lambda: self.ask(daemon, "GET", bob) == 200, "a token that was not verified before")
            finally:
                ends.set()
                for thread in threads:
                    thread.join()
            self.assertLessEqual(set(statuses), {401, 503})
            self.assertIn(401, statuses)

    def test_an_overloaded_server_says_when_to_try_again(self) -> None:
        with self.daemon() as daemon:
            connections = [self.get(daemon, f"dst_x_{number:043d}") for number in range(MAX_WAITING_OF_ADDRESS + 50)]
            answers = [read_until(connection, b"\r\n\r\n") for connection in connections]
            refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
            self.assertGreater(len(refused), 0)
            for answer in refused:
                self.assertIn(b"Retry-After: 1\r\n", answer)
            self.assertTrue(all(answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 503")) for answer in answers))
