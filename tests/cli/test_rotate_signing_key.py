"""The command ``rotate-signing-key``, against a running server."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import run_command
from tests.support.daemon import Daemon

JWKS = "/v1/stream/__ds/jwks.json"


class RotationTests(SynchronousTestCase):
    def daemon(self, **settings: object) -> Daemon:
        daemon = Daemon(None, admin__enabled="true", **settings)
        self.addCleanup(daemon.close)
        return daemon.__enter__()

    def kids(self, daemon: Daemon) -> list[str]:
        return [key["kid"] for key in json.loads(daemon.request("GET", JWKS)[2])["keys"]]

    def test_the_new_key_and_the_previous_one_are_printed_and_published(self) -> None:
        daemon = self.daemon()
        (old,) = self.kids(daemon)
        ended = run_command("rotate-signing-key", "--url", f"http://127.0.0.1:{daemon.port}")
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        new = self.kids(daemon)[0]
        lines = ended.stdout.decode().splitlines()
        self.assertEqual(f"Webhooks are signed by {new}.", lines[0])
        self.assertRegex(lines[1], rf"^The key set has {old}, too, until 20\S+Z\.$")
        self.assertEqual(2, len(lines))
        ended = run_command("rotate-signing-key", "--json", "--url", f"http://127.0.0.1:{daemon.port}/admin")
        rotated = json.loads(ended.stdout)
        self.assertEqual([rotated["kid"], new, old], self.kids(daemon))
        self.assertEqual(["kid", "previous_kid", "previous_until"], list(rotated))

    def test_a_key_of_a_file_is_refused_with_what_to_do(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.touch(0o600)
        path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        daemon = self.daemon(subscriptions__signing_key_file=path)
        ended = run_command("rotate-signing-key", "--url", f"http://127.0.0.1:{daemon.port}")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"the key was not rotated: ", ended.stderr)
        self.assertIn(b"Replace the file and send the server SIGHUP.", ended.stderr)

    def test_a_command_without_a_url_says_what_to_give(self) -> None:
        ended = run_command("rotate-signing-key")
        self.assertEqual((2, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"Give --url", ended.stderr)

    def test_a_server_without_subscriptions_is_a_failure(self) -> None:
        daemon = self.daemon(subscriptions__enabled="false")
        ended = run_command("rotate-signing-key", "--url", f"http://127.0.0.1:{daemon.port}")
        self.assertEqual(1, ended.returncode)
        self.assertIn(b"the server answered 404", ended.stderr)
