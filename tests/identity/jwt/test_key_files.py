"""Tests of files of keys, and of what is accepted as a key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.jwt.errors import KeysUnusable
from durable_streams.server.identity.jwt.key_files import load_keys
from durable_streams.server.identity.jwt.keys import KeySet
from durable_streams.server.identity.jwt.settings import PUBLIC_KEY_ALGORITHMS, SHARED_SECRET_ALGORITHMS
from tests.support.authority import authority
from tests.support.jwts import base64url, jwk, jwk_of, jwk_set, private_key, private_pem, public_pem, rsa_key

ALL = frozenset((*PUBLIC_KEY_ALGORITHMS, *SHARED_SECRET_ALGORITHMS))


def secret(size: int, **members: object) -> dict[str, object]:
    """Return a symmetric JWK of a size in bytes."""
    return {"kty": "oct", "k": base64url(b"s" * size).decode()} | members


class KeyFileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def load(self, data: bytes, accepted: frozenset[str] = ALL, mode: int = 0o600) -> KeySet:
        self.path.write_bytes(data)
        self.path.chmod(mode)
        return load_keys(str(self.path), accepted)

    def check_refused(self, data: bytes, message: str, **how: Any) -> None:
        error = self.assertRaises(KeysUnusable, self.load, data, **how)
        start = f"auth.jwt.keys_file {str(self.path)!r}: "
        self.assertTrue(str(error).startswith(start), error)
        self.assertIn(message, str(error)[len(start) :])

    def algorithms(self, keys: KeySet) -> list[list[str]]:
        return [sorted(key.algorithms) for key in keys.keys]


class JwkSetTests(KeyFileCase):
    def test_keys_have_the_algorithms_of_their_type_and_curve(self) -> None:
        algorithms = ("RS256", "ES256", "ES384", "ES512", "EdDSA", "Ed448")
        keys = self.load(jwk_set(*(jwk(name, alg=None, use=None) for name in algorithms)))
        self.assertEqual(
            [["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"], ["ES256"], ["ES384"], ["ES512"], ["EdDSA"],
             ["EdDSA"]],
            self.algorithms(keys),
        )  # fmt: skip
        self.assertEqual([["PS512"], ["EdDSA"]], self.algorithms(self.load(
            jwk_set(jwk(alg="PS512"), jwk("EdDSA")))))  # fmt: skip

    def test_algorithms_that_are_not_accepted_leave_a_key_out(self) -> None:
        keys = self.load(
            jwk_set(jwk(alg=None), jwk("ES256"), jwk(alg="RS384", kid="k3")), frozenset({"RS256", "EdDSA"})
        )
        self.assertEqual([["RS256"]], self.algorithms(keys))

    def test_keys_for_other_purposes_are_left_out(self) -> None:
        others = (jwk(use="enc"), jwk(alg="RSA-OAEP"), jwk(key_ops=["encrypt"]), jwk(key_ops=[]), jwk(key_ops="verify"),
                  jwk(use=1), {"kty": "XYZ"}, {"kid": "x"}, {"kty": 1},
                  jwk_of(private_key("ES256K").public_key(), "ES256K"),
                  {"kty": "OKP", "crv": "X25519", "x": "AAAA"})  # fmt: skip
        for other in others:
            self.assertEqual(1, len(self.load(jwk_set(other, jwk("ES256"))).keys), other)
        self.check_refused(jwk_set(*others), "has no key for ")

    def test_keys_with_key_ops_for_signatures_are_used(self) -> None:
        for operations in (["verify"], ["sign", "verify"], ["sign"]):
            self.assertEqual(1, len(self.load(jwk_set(jwk(key_ops=operations))).keys))

    def test_weak_keys_are_refused(self) -> None:
        for key, message in (
            (jwk_of(rsa_key(1024).public_key(), "RS256"), "Key 1 is an RSA key of 1024 bits, not of 2048 to 8192."),
            (secret(31), "Key 1 is a secret of 31 bytes, where 32 are needed."),
            (secret(47, alg="HS384"), "Key 1 is a secret of 47 bytes, where 48 are needed."),
            (secret(63, alg="HS512"), "Key 1 is a secret of 63 bytes, where 64 are needed."),
        ):
            self.check_refused(jwk_set(key), message)

    def test_rsa_keys_that_verify_slowly_are_refused(self) -> None:
        large = jwk()
        large["n"] = base64url((2**16_383 + 1).to_bytes(2048)).decode()
        self.check_refused(jwk_set(large), "Key 1 lacks a member of RSA keys (n, e).")
        large["n"] = base64url((2**8_999 + 1).to_bytes(1125)).decode()
        self.check_refused(jwk_set(large), "Key 1 is an RSA key of 9000 bits, not of 2048 to 8192.")
        exponent = jwk()
        exponent["e"] = base64url((2**64 + 1).to_bytes(9)).decode()
        self.check_refused(jwk_set(exponent), "Key 1 is an RSA key with a large public exponent.")

    def test_malformed_keys_are_refused(self) -> None:
        rsa_jwk, ec_jwk, ed_jwk = jwk(), jwk("ES256"), jwk("EdDSA")
        lacks, malformed = "lacks a member of ", "is malformed."
        for key, message in (
            ("x", "is not an object"),
            (None, "is not an object"),
            (rsa_jwk | {"kid": 1}, "has a kid or an alg that is not a string"),
            (rsa_jwk | {"alg": ["RS256"]}, "has a kid or an alg that is not a string"),
            ({"kty": "RSA"}, lacks),
            (rsa_jwk | {"n": 5}, lacks),
            (rsa_jwk | {"n": ""}, lacks),
            (rsa_jwk | {"e": "A"}, malformed),
            (rsa_jwk | {"e": "AA"}, malformed),
            (rsa_jwk | {"e": "Ag"}, malformed),
            (ec_jwk | {"x": ec_jwk["y"]}, malformed),
            (ec_jwk | {"x": "AAAA"}, malformed),
            (ec_jwk | {"crv": "P-384"}, malformed),
            ({"kty": "EC", "crv": "P-256", "x": ec_jwk["x"]}, lacks),
            (ed_jwk | {"x": "AAAA"}, malformed),
            (ed_jwk | {"crv": "Ed448"}, malformed),
            ({"kty": "oct"}, "lacks the member of oct keys (k)."),
            ({"kty": "oct", "k": 1}, "lacks the member of oct keys (k)."),
            ({"kty": "oct", "k": "A"}, malformed),
        ):
            self.check_refused(jwk_set(key), f"Key 1 {message}")

    def test_documents_that_are_no_jwk_set_are_refused(self) -> None:
        for data, message in (
            (b"", "is not valid JSON. Give the path of a JWK set or of PEM keys."),
            (b"{}", 'is not a JWK set: an object with the list "keys"'),
            (b'{"keys":{}}', "is not a JWK set"),
            (b'{"kty":"RSA"}', "is not a JWK set"),
            (b'{"keys":[],"keys":[]}', "has a name twice"),
            (jwk_set(*[jwk()] * 65), "has 65 keys, more than 64"),
            (b" " * 262_145, "larger than 262144 bytes"),
            (jwk_set(), "has no key for "),
        ):
            self.check_refused(data, message)

    def test_only_files_with_secrets_must_be_private(self) -> None:
        for data in (jwk_set(jwk()), public_pem(private_key().public_key())):
            for mode in (0o644, 0o664, 0o400):
                self.assertEqual(1, len(self.load(data, mode=mode).keys))
        private = jwk_of(private_key(), "RS256")
        for data in (jwk_set(secret(64)), jwk_set(private), private_pem(private_key()), jwk_set(jwk(), secret(64)),
                     jwk_set(private | {"use": "enc"}, jwk())):  # fmt: skip
            self.load(data, mode=0o600)
            self.load(data, mode=0o400)
            for mode in (0o644, 0o640, 0o604, 0o620, 0o660):
                self.check_refused(
                    data, f"has private or symmetric keys, and its mode is {mode:04o}. Run chmod 600", mode=mode
                )

    def test_a_file_that_everybody_may_write_is_refused(self) -> None:
        self.check_refused(jwk_set(jwk()), "every user of this machine may replace the keys in it", mode=0o666)

    def test_secrets_are_in_no_message_and_no_representation(self) -> None:
        keys = self.load(jwk_set(secret(64, kid="k1")))
        self.assertEqual("VerificationKey('k1', ['HS256', 'HS384', 'HS512'])", repr(keys.keys[0]))
        self.check_refused(jwk_set(secret(5)), "is a secret of 5 bytes")
        self.assertNotIn("sss", str(self.assertRaises(KeysUnusable, self.load, jwk_set(secret(5)))))


class PemTests(KeyFileCase):
    def test_public_keys_private_keys_and_certificates_are_loaded(self) -> None:
        traditional = private_key().private_bytes(
            Encoding.PEM,
            PrivateFormat.TraditionalOpenSSL,
            NoEncryption(),
        )
        data = b"\n".join(
            [b"A comment.", public_pem(private_key().public_key()), private_pem(private_key("ES256")),
             authority().issue().certificate_pem, traditional]
        )  # fmt: skip
        keys = self.load(data)
        self.assertEqual([6, 1, 1, 6], [len(key.algorithms) for key in keys.keys])
        self.assertEqual({None}, {key.key_id for key in keys.keys})
        self.assertEqual(keys.keys[0].identity, keys.keys[3].identity)

    def test_parameters_of_curves_are_skipped(self) -> None:
        data = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        self.assertEqual(1, len(self.load(data + private_pem(private_key("ES256"))).keys))

    def test_each_key_of_a_pem_file_fits_any_key_id(self) -> None:
        keys = self.load(public_pem(private_key().public_key()) + public_pem(private_key("ES256").public_key()))
        self.assertTrue(keys.knows("any"))
        self.assertEqual([keys.keys[1]], list(keys.candidates("any", "ES256")))

    def test_blocks_that_cannot_be_used_are_refused(self) -> None:
        encrypted = private_key("ES256").private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        good = public_pem(private_key().public_key())
        for data, message in (
            (encrypted, "PEM block 1 (ENCRYPTED PRIVATE KEY) is neither a key without a passphrase nor a certificate."),
            (good.replace(b"MII", b"AAA"), "PEM block 1 (PUBLIC KEY) is damaged, or needs a passphrase."),
            (good + good[:200], "has a PEM block without its end"),
            (good * 65, "has 65 PEM blocks, more than 64"),
            (b"-----BEGIN PUBLIC KEY-----\n" * 9000, "has 9000 PEM blocks, more than 64"),
            (b"-----BEGIN PGP MESSAGE-----\n-----END PGP MESSAGE-----\n", "PEM block 1 (PGP MESSAGE) is neither"),
            (public_pem(rsa_key(1024).public_key()), "PEM block 1 is an RSA key of 1024 bits, not of 2048 to 8192."),
            (public_pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "PEM block 1 is on the curve secp256k1"),
            (
                public_pem(dsa.generate_private_key(1024).public_key()),
                "PEM block 1 is neither an RSA, an EC nor an Ed25519",
            ),
            (public_pem(x25519.X25519PrivateKey.generate().public_key()), "PEM block 1 is neither an RSA, an EC nor"),
        ):
            self.check_refused(data, message)

    def test_a_pem_key_is_never_a_secret(self) -> None:
        for data in (public_pem(private_key().public_key()), private_pem(private_key()), b"s" * 100):
            self.assertRaises(KeysUnusable, self.load, data, frozenset(SHARED_SECRET_ALGORITHMS))


class PathTests(SynchronousTestCase):
    def test_paths_that_lead_to_no_readable_file_are_refused(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        for path, message in (
            (folder / "missing", "no such file. Give the path of a JWK set or of PEM keys."),
            (folder, "not a regular file."),
            (pipe, "not a regular file."),
            (Path("/dev/zero"), "not a regular file."),
        ):
            error = self.assertRaises(KeysUnusable, load_keys, str(path), ALL)
            self.assertTrue(str(error).startswith(f"auth.jwt.keys_file {str(path)!r}: {message}"), error)
