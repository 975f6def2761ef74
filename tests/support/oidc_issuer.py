"""
A small OpenID Connect issuer: metadata, a JWK set, and tokens for clients (OAuth 2.0 client credentials).

It is a process of its own, over TLS with a certificate of the tests' authority. Under ``/control`` a test rotates its
keys and makes its JWK set fail.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet import reactor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from .authority import authority
from .daemon import CHECKOUT, PATIENCE, free_port
from .handshakes import client_context

#: The path of the issuer, as a realm of Keycloak has it.
REALM = "/realms/acme"


class Issuer:
    """
    Keys and clients of an issuer.

    :param url: of the issuer, which is ``iss`` of its tokens.
    :param clients: client id -> its secret, and the claims of its tokens.
    :ivar failure: how the JWK set fails: ``status``, ``silent``, ``html``, ``huge`` or ``empty``; empty if it does not.
    :ivar counts: the number of requests by path.
    """

    def __init__(self, url: str, clients: dict[str, dict[str, Any]]) -> None:
        self.url = url
        self.clients = clients
        self.failure = ""
        self.counts: Counter[str] = Counter()
        self._keys: list[tuple[str, str, Any]] = []
        self.add_key("RS256")
        self._signing = self._keys[0]

    def add_key(self, algorithm: str) -> str:
        """Publish another key, with which nothing is signed yet, and return its id."""
        key: Any = ec.generate_private_key(ec.SECP256R1())
        if algorithm != "ES256":
            key = rsa.generate_private_key(65537, 2048)
        self._keys.append((secrets.token_hex(8), algorithm, key))
        return self._keys[-1][0]

    def use_newest(self) -> None:
        """Sign with the newest key."""
        self._signing = self._keys[-1]

    def remove_old(self) -> None:
        """Publish no key but the newest."""
        del self._keys[:-1]

    def metadata(self) -> dict[str, Any]:
        """Return the issuer's metadata (OpenID Connect Discovery section 3)."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/certs",
            "token_endpoint": f"{self.url}/token",
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "grant_types_supported": ["client_credentials"],
        }

    def jwk_set(self) -> dict[str, Any]:
        """Return the public keys, beside one for encryption, as real issuers have."""
        keys = []
        for kid, algorithm, key in self._keys:
            found = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
            keys.append(found | {"kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": [{**keys[0], "kid": "enc", "use": "enc", "alg": "RSA-OAEP"}, *keys]}

    def token(self, client: str, seconds: float) -> str:
        """Return an access token."""
        kid, algorithm, key = self._signing
        now = time.time()
        claims = {"iss": self.url, "sub": client, "azp": client, "iat": int(now), "exp": now + seconds, "typ": "Bearer"}
        claims |= {"jti": secrets.token_hex(8)} | self.clients[client].get("claims", {})
        return jwt.encode(claims, key, algorithm, headers={"kid": kid})


class IssuerResource(Resource):
    """The issuer's pages."""

    isLeaf = True

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        self._issuer = issuer

    def render_GET(self, request: Request) -> Any:
        path = request.path.decode()
        self._issuer.counts[path] += 1
        if path == f"{REALM}/.well-known/openid-configuration":
            return _json(request, self._issuer.metadata())
        if path == f"{REALM}/certs":
            return self._certs(request)
        if path == "/control/counts":
            return _json(request, self._issuer.counts)
        request.setResponseCode(404)
        return b""

    def _certs(self, request: Request) -> Any:
        match self._issuer.failure:
            case "status":
                request.setResponseCode(503)
                return b""
            case "silent":
                return NOT_DONE_YET
            case "html":
                return b"<html>Maintenance</html>"
            case "huge":
                return b'{"keys":[' + b" " * 10_000_000 + b"]}"
            case "empty":
                return _json(request, {"keys": []})
        return _json(request, self._issuer.jwk_set())

    def render_POST(self, request: Request) -> Any:
        path = request.path.decode()
        if path == f"{REALM}/token":
            return self._token(request)
        if path.startswith("/control/"):
            controls: dict[str, Callable[..., Any]] = {
                "add-key": self._issuer.add_key,
                "use-newest": self._issuer.use_newest,
                "remove-old": self._issuer.remove_old,
                "fail": lambda how="": setattr(self._issuer, "failure", how),
            }
            name, _, argument = path.removeprefix("/control/").partition("/")
            return _json(request, controls[name](*([argument] if argument else [])))
        request.setResponseCode(404)
        return b""

    def _token(self, request: Request) -> bytes:
        """Answer a token request (RFC 6749 section 4.4) whose client authenticates by Basic or in the form."""
        args: dict[bytes, list[bytes]] = request.args or {}
        form = {name.decode(): values[0].decode() for name, values in args.items()}
        header = (request.getHeader("authorization") or "").removeprefix("Basic ")
        client, _, secret = b64decode(header).decode().partition(":")
        client, secret = client or form.get("client_id", ""), secret or form.get("client_secret", "")
        known = self._issuer.clients.get(client)
        if known is None or not compare_digest(known["secret"], secret):
            request.setResponseCode(401)
            return _json(request, {"error": "invalid_client"})
        if form.get("grant_type") != "client_credentials":
            request.setResponseCode(400)
            return _json(request, {"error": "unsupported_grant_type"})
        seconds = float(known.get("seconds", 300))
        token = self._issuer.token(client, seconds)
        return _json(request, {"access_token": token, "token_type": "Bearer", "expires_in": int(seconds)})


def _json(request: Request, value: Any) -> bytes:
    request.setHeader("Content-Type", "application/json")
    return json.dumps(value).encode()


class IssuerProcess:
    """
    An issuer that runs in a process of its own.

    :param folder: for its certificate.
    :param clients: see :class:`Issuer`.
    :ivar url: the issuer's URL.
    :ivar ca_file: the path of the authority of its certificate.
    """

    def __init__(self, folder: Path, clients: dict[str, dict[str, Any]]) -> None:
        self._folder = folder
        self._clients = clients
        self.port = free_port()
        self.url = f"https://localhost:{self.port}{REALM}"
        self.ca_file = folder / "issuer-ca.pem"
        self.ca_file.write_bytes(authority().certificate_pem)
        self._certificate = authority().issue().write(folder, "issuer")
        self._context = client_context(authority())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with new keys, and wait until it answers."""
        arguments = [str(self.port), self.url, *self._certificate, json.dumps(self._clients)]
        # It ends when its standard input does, also if the test is killed.
        command = [sys.executable, "-m", __name__, *arguments]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.get("/.well-known/openid-configuration")
                return
            except OSError:
                assert self._process.poll() is None, "the issuer ended"
                assert time.monotonic() < deadline, "the issuer did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, path: str) -> Any:
        """Get a document of the issuer."""
        return self._ask(urllib.request.Request(self.url + path))

    def token(self, client: str) -> str:
        """Ask for a token as a client."""
        form = f"grant_type=client_credentials&client_id={client}&client_secret={self._clients[client]['secret']}"
        answer = self._ask(urllib.request.Request(f"{self.url}/token", form.encode()))
        return str(answer["access_token"])

    def control(self, what: str) -> Any:
        """Rotate keys, or make the JWK set fail: ``add-key/ES256``, ``use-newest``, ``remove-old``, ``fail/silent``."""
        return self._ask(urllib.request.Request(f"https://localhost:{self.port}/control/{what}", b""))

    def fetches(self) -> int:
        """Return how often the JWK set was fetched."""
        counts = self._ask(urllib.request.Request(f"https://localhost:{self.port}/control/counts"))
        return int(counts.get(f"{REALM}/certs", 0))

    def _ask(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=PATIENCE, context=self._context) as answer:
            return json.loads(answer.read())


class _Input(Protocol):
    """Stops the process at the end of its standard input."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        any_reactor: Any = reactor
        if any_reactor.running:
            any_reactor.stop()


def main() -> None:
    """Serve until the standard input ends."""
    port, url, certificate, key, clients = sys.argv[1:]
    any_reactor: Any = reactor
    site = Site(IssuerResource(Issuer(url, json.loads(clients))))
    contexts = DefaultOpenSSLContextFactory(key, certificate)
    any_reactor.listenSSL(int(port), site, contexts, interface="127.0.0.1")
    StandardIO(_Input())
    any_reactor.run()


if __name__ == "__main__":
    main()
