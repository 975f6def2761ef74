"""Signatures of webhooks, checked by OpenSSL's and Node's own implementations."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode, urlsafe_b64decode
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.signing import KeyRing, RetiredKey, SigningKey, key_id, retired
from tests.support.programs import program

#: The expression of the official conformance suite.
HEADER = re.compile(r"^t=\d+,kid=.+,ed25519=[A-Za-z0-9_-]+$")

#: A receiver's check as its author would write it, with the header, the body and the key set as it gets them.
NODE_RECEIVER = """
const crypto = require('node:crypto');
const input = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const fields = Object.fromEntries(input.header.split(',').map((field) => {
  const index = field.indexOf('=');
  return [field.slice(0, index), field.slice(index + 1)];
}));
const jwk = input.jwks.keys.find((key) => key.kid === fields.kid);
const key = crypto.createPublicKey({ key: jwk, format: 'jwk' });
const signed = Buffer.concat([Buffer.from(fields.t + '.'), Buffer.from(input.body, 'base64')]);
const valid = crypto.verify(null, signed, key, Buffer.from(fields.ed25519, 'base64url'));
const digest = crypto.createHash('sha256').update(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x })).digest();
console.log(JSON.stringify({ valid, kid: 'ds_' + digest.toString('base64url'), t: fields.t }));
"""

#: The first test vector of RFC 8032: the private key, the public key, and the signature of an empty message.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def parts(header: str) -> tuple[str, str, bytes]:
    """Return the time, the key's id and the signature in a header."""
    match = re.fullmatch(r"t=([0-9]+),kid=([^,]+),ed25519=([A-Za-z0-9_-]{86})", header)
    assert match is not None, header
    return match[1], match[2], urlsafe_b64decode(match[3] + "==")


class SignatureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.key = SigningKey(SEED)

    def test_a_header_has_the_form_of_the_protocol(self) -> None:
        header = self.key.sign(b"{}", 1_700_000_000.999)
        self.assertRegex(header, HEADER)
        time, kid, signature = parts(header)
        self.assertEqual(("1700000000", self.key.kid, 64), (time, kid, len(signature)))
        self.assertEqual(PUBLIC, self.key.public)

    def test_the_key_id_is_the_thumbprint_of_rfc_8037(self) -> None:
        # Appendix A.3 has the thumbprint of the same key.
        self.assertEqual("ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", key_id(PUBLIC))

    def test_node_verifies_the_signature_by_the_key_set(self) -> None:
        node = program("node")
        body = '{"text":"\u00e4\\n"}'.encode() + bytes(range(256))
        ring = KeyRing(SigningKey(bytes(32))).rotated(self.key, 1000.0)
        for signed, valid in ((body, True), (body + b" ", False)):
            given_to = {
                "header": self.key.sign(signed, 1001.0),
                "body": _base64(body),
                "jwks": json.loads(ring.jwks(1001.0)),
            }
            done = subprocess.run(
                [node, "-e", NODE_RECEIVER],
                input=json.dumps(given_to).encode(),
                capture_output=True,
                timeout=60,
                check=True,
            )
            self.assertEqual({"valid": valid, "kid": self.key.kid, "t": "1001"}, json.loads(done.stdout))

    def test_openssl_verifies_the_signature(self) -> None:
        openssl = program("openssl")
        folder = Path(self.mktemp())
        folder.mkdir()
        body = b'{"wake_id":"w_1"}'
        time, _, signature = parts(self.key.sign(body, 1001.0))
        # The public key as OpenSSL has it: the algorithm of RFC 8410, and the 32 bytes.
        (folder / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + self.key.public)
        (folder / "signature").write_bytes(signature)
        for message, status in ((f"{time}.".encode() + body, 0), (f"{time}.".encode() + body + b" ", 1)):
            (folder / "message").write_bytes(message)
            command = [openssl, "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der", "-rawin"]
            command += ["-in", "message", "-sigfile", "signature"]
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
            self.assertEqual(status, done.returncode, done.stderr)

    @settings(max_examples=30)
    @given(st.binary(max_size=200), st.integers(0, 2**33), st.data())
    def test_a_signature_is_of_its_time_and_its_body_alone(self, body: bytes, time: int, data: Any) -> None:
        _, _, signature = parts(self.key.sign(body, time))
        public = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
        public.verify(signature, f"{time}.".encode() + body)
        other = data.draw(st.binary(max_size=200).filter(lambda drawn: drawn != body))
        self.assertRaises(InvalidSignature, public.verify, signature, f"{time}.".encode() + other)
        self.assertRaises(InvalidSignature, public.verify, signature, f"{time + 1}.".encode() + body)


class PemTests(SynchronousTestCase):
    def pem(self, key: Any, encryption: Any = None) -> bytes:
        """Return a key as PKCS 8 in PEM form."""
        written: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
        return written

    def test_a_key_is_read_from_pem(self) -> None:
        key = SigningKey.from_pem(self.pem(Ed25519PrivateKey.from_private_bytes(SEED)))
        self.assertEqual((SEED, PUBLIC), (key.seed, key.public))

    def test_other_files_are_refused(self) -> None:
        ed25519 = Ed25519PrivateKey.generate()
        public = ed25519.public_key()
        for pem, part in (
            (b"", "no private key"),
            (b"x" * 1000, "no private key"),
            (self.pem(ed25519)[:-30], "no private key"),
            (self.pem(ed25519, BestAvailableEncryption(b"secret")), "without a passphrase"),
            (self.pem(generate_private_key(SECP256R1())), "not an Ed25519 key"),
            (public.public_bytes_raw(), "no private key"),
        ):
            with self.assertRaises(ValueError) as caught:
                SigningKey.from_pem(pem)
            self.assertIn(part, str(caught.exception))


class KeyRingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = [SigningKey(bytes([number]) * 32) for number in range(4)]

    def kids(self, ring: KeyRing, now: float) -> list[str]:
        """Return the ids in a ring's key set."""
        return [key["kid"] for key in json.loads(ring.jwks(now))["keys"]]

    def test_the_set_has_exactly_the_public_members(self) -> None:
        [key] = json.loads(KeyRing(SigningKey(SEED)).jwks(0.0))["keys"]
        self.assertEqual(
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "kid": key_id(PUBLIC),
                "use": "sig",
                "alg": "EdDSA",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            },
            key,
        )

    def test_a_retired_key_stays_for_ten_minutes(self) -> None:
        first, second, third, _ = self.keys
        ring = KeyRing(first).rotated(second, 1000.0)
        self.assertEqual([second.kid, first.kid], self.kids(ring, 1000.0))
        self.assertEqual([second.kid, first.kid], self.kids(ring, 1599.9))
        self.assertEqual([second.kid], self.kids(ring, 1600.0))
        ring = ring.rotated(third, 1300.0)
        self.assertEqual([third.kid, second.kid, first.kid], self.kids(ring, 1599.0))
        self.assertEqual([third.kid, second.kid], self.kids(ring, 1600.0))
        self.assertIs(third, ring.active)

    def test_keys_whose_time_is_over_are_forgotten_at_the_next_rotation(self) -> None:
        first, second, third, fourth = self.keys
        ring = KeyRing(first).rotated(second, 0.0).rotated(third, 100.0).rotated(fourth, 650.0)
        self.assertEqual([third.public, second.public], [key.public for key in ring.retired])

    def test_a_key_that_becomes_active_again_is_listed_once(self) -> None:
        first, second, _, _ = self.keys
        ring = KeyRing(first).rotated(second, 0.0).rotated(first, 1.0)
        self.assertEqual([first.kid, second.kid], self.kids(ring, 2.0))
        self.assertEqual((), retired(first.public, (RetiredKey(first.public, 9.0),), first.public, 0.0))


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
