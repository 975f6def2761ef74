"""Tests of authentication and rules with running daemons: live reads end when their right does."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import jwt

from tests.support.daemon import PATIENCE, Daemon, environment, read_until
from tests.support.process_case import ProcessTestCase
from tests.support.replies import read_events

#: The longest time from a change of a file to the end of a live read, in seconds: files are checked once a second. A
#: tail ends by itself only after a minute.
LONGEST: Final = 10.0

SECRET: Final = b"a secret of thirty-two characters"


def signed(subject: str, lifetime: float) -> str:
    """Return a JWT signed with HMAC-SHA256."""
    return jwt.encode({"sub": subject, "exp": time.time() + lifetime}, SECRET, "HS256", {"kid": "k1"})


class AccessTests(ProcessTestCase):
    """A daemon with static tokens, JWTs and a file of rules."""

    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.folder / "tokens"
        self.rules = self.folder / "rules"
        self.rules.write_text("allow subject:owner all **\nallow subject:alice read chats/**\n")
        keys = self.folder / "keys"
        secret = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        self.write_secret(keys, json.dumps({"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": secret}]}))
        self.owner, self.alice = self.create_token("owner"), self.create_token("alice")
        self.daemon = Daemon(
            auth__methods="token,jwt",
            auth__token_file=self.tokens,
            auth__rules_file=self.rules,
            auth__allow_anonymous="false",
            auth__jwt__keys_file=keys,
            auth__jwt__algorithms="HS256",
            auth__jwt__leeway_secs=0,
        )
        self.addCleanup(self.daemon.close)
        self.daemon.__enter__()
        self.assertEqual(self.ask("PUT", "chats/1", self.owner, b"hello")[0], 201)

    def write_secret(self, path: Path, text: str) -> None:
        """Write a file that only its owner may read."""
        path.touch(0o600)
        path.write_text(text)

    def token_command(self, *arguments: str) -> str:
        """Run ``token``, and return its output."""
        command = sys.executable, "-m", "durable_streams.server", "token", *arguments, "--file", str(self.tokens)
        done = subprocess.run(
            command, env=environment(1), cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return done.stdout.strip()

    def create_token(self, subject: str) -> str:
        """Create a static token."""
        return self.token_command("create", "--subject", subject)

    def ask(self, method: str, name: str, token: str | None, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request with a token, and return the status and the body of its answer."""
        headers = {"content_type": "text/plain"} | ({} if token is None else {"authorization": f"Bearer {token}"})
        status, _, answer = self.daemon.request(method, f"/v1/stream/{name}", body, **headers)
        return status, answer

    def follow(self, query: str, token: str) -> socket.socket:
        """Begin a live read on a connection of its own."""
        connection = self.daemon.get(f"/v1/stream/chats/1?{query}", token=token)
        self.addCleanup(connection.close)
        return connection

    def end_of(self, tail: socket.socket, received: bytes) -> bytes:
        """Return everything that a tail has received when its answer ends cleanly."""
        return read_until(tail, b"\r\n0\r\n\r\n", received)

    def assert_ends_soon(self, tail: socket.socket, received: bytes, since: float) -> None:
        """Assert that a tail ends with a control event, and that the connection serves the next request."""
        ended = self.end_of(tail, received)
        self.assertLess(time.monotonic() - since, LONGEST)
        body = b"".join(line for line in ended.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
        events = read_events(body)
        self.assertEqual(events[-1].kind, "control")
        self.assertIn("streamNextOffset", events[-1].control)
        tail.sendall(b"GET /v1/stream/chats/1 HTTP/1.1\r\nHost: test\r\n\r\n")
        self.assertIn(b"HTTP/1.1 401 ", read_until(tail, b"\r\n\r\n"))

    def test_a_tail_ends_when_its_token_expires(self) -> None:
        token = signed("alice", 2)
        since = time.monotonic()
        tail = self.follow("offset=-1&live=sse", token)
        received = read_until(tail, b"streamNextOffset")
        self.assert_ends_soon(tail, received, since + 2)
        self.assertGreater(time.monotonic() - since, 1.5)
        self.assertEqual(self.ask("GET", "chats/1", token)[0], 401)
        self.assertEqual(self.ask("GET", "chats/1", signed("alice", 60)), (200, b"hello"))

    def test_a_tail_ends_when_its_token_is_revoked(self) -> None:
        tail, other = (self.follow("offset=-1&live=sse", token) for token in (self.alice, self.owner))
        received = read_until(tail, b"streamNextOffset")
        read_until(other, b"streamNextOffset")
        self.token_command("revoke", self.alice.split("_")[1])
        self.assert_ends_soon(tail, received, time.monotonic())
        self.assertEqual(self.ask("GET", "chats/1", self.alice)[0], 401)
        self.assertEqual(self.ask("POST", "chats/1", self.owner, b" world")[0], 204)
        self.assertIn(b"world", read_until(other, b"world"))

    def test_a_tail_ends_when_its_rule_is_removed(self) -> None:
        tail = self.follow("offset=-1&live=sse", self.alice)
        received = read_until(tail, b"streamNextOffset")
        changed = self.rules.with_suffix(".new")
        changed.write_text("allow subject:owner all **\n")
        os.replace(changed, self.rules)
        self.assert_ends_soon(tail, received, time.monotonic())
        self.assertEqual(self.ask("GET", "chats/1", self.alice)[0], 403)

    def test_a_long_poll_is_answered_when_its_token_is_revoked(self) -> None:
        poll = self.follow("offset=now&live=long-poll", self.alice)
        time.sleep(0.5)
        self.token_command("revoke", self.alice.split("_")[1])
        since = time.monotonic()
        self.assertIn(b"HTTP/1.1 204 ", read_until(poll, b"\r\n\r\n"))
        self.assertLess(time.monotonic() - since, LONGEST)

    def test_a_refreshed_token_continues_without_a_gap(self) -> None:
        offset, data, expiries = "-1", b"", 0
        deadline = time.monotonic() + 8
        number = 0
        while time.monotonic() < deadline:
            tail = self.follow(f"offset={offset}&live=sse", signed("alice", 1.5))
            received = b""
            while b"\r\n0\r\n\r\n" not in received:
                number += 1
                self.assertEqual(self.ask("POST", "chats/1", self.owner, b",%d" % number)[0], 204)
                received += tail.recv(65536)
            tail.close()
            expiries += 1
            body = b"".join(line for line in received.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
            events = read_events(body)
            data += "".join(event.data for event in events if event.kind == "data").encode()
            offset = events[-1].control["streamNextOffset"]
        written = b"hello" + b"".join(b",%d" % each for each in range(1, number + 1))
        rest = self.daemon.request("GET", f"/v1/stream/chats/1?offset={offset}", authorization=f"Bearer {self.owner}")[
            2
        ]
        self.assertEqual(data + rest, written)
        self.assertGreater(expiries, 2)

    def test_secrets_are_in_no_log(self) -> None:
        for token in (self.alice, self.owner, "dst_AAAAAAAAAAAA_" + "A" * 43, signed("alice", 60)):
            self.ask("GET", "chats/1", token)
            self.ask("PUT", "chats/9", token, b"x")
        self.assertEqual(self.daemon.stop(), 0)
        log = self.daemon.log()
        self.assertNotIn("Traceback", log)
        for secret in (self.alice, self.owner, self.alice.split("_")[2], self.owner.split("_")[2], SECRET.decode()):
            self.assertNotIn(secret, log)
