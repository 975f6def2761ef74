"""Secrets of a server that are unlike all other text, so that tests can look for them in what it writes."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any, Final

import jwt

from durable_streams.server.identity.signed_urls import SigningKey
from durable_streams.server.identity.tokens.file import add_token
from durable_streams.server.identity.tokens.records import new_token

ADMIN_TOKEN: Final = "PlantedAdminToken0123456789abcdef"
PASSWORD: Final = "PlantedPassword77"
#: The password as HTTP Basic sends it, with the name of a user.
BASIC: Final = b64encode(f"planted:{PASSWORD}".encode()).decode()
#: An opaque token, which is none of the server's.
OPAQUE_TOKEN: Final = "PlantedOpaqueToken0123456789"

_SIGNING: Final = "PlantedSigningSecret0123456789abcdefghij"
_SHARED: Final = b"PlantedSharedSecretOfTheIssuer0123456789abcdefghi"
_WRONG: Final = "PlantedWrongSecret0123456789"

#: The names of the files.
FILES: Final = ("tokens", "keys", "jwks", "admin")


class PlantedSecrets:
    """
    Files of secrets in a folder, the settings that name them, and credentials.

    :ivar token: a valid token of alice.
    :ivar wrong_token: one with the same id and another secret.
    :ivar key: the key of signed URLs.
    :ivar known: what a text is -> the text that nothing may show. Tests add what they make.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token, record = new_token("alice", now=time.time())
        self.wrong_token = f"dst_{record.id}_{_WRONG}abcdefghijklmno"
        self.key = SigningKey("main", _SIGNING.encode())
        add_token(str(folder / "tokens"), record)
        self.write("keys", f"main {_SIGNING}\n")
        self.write("admin", f"{ADMIN_TOKEN}\n")
        secret = urlsafe_b64encode(_SHARED).rstrip(b"=").decode()
        self.write("jwks", json.dumps({"keys": [{"kty": "oct", "k": secret, "alg": "HS256", "kid": "one"}]}))
        self.known = {
            "token": self.token,
            "secret of the token": self.token.rpartition("_")[2],
            # It cannot be used, and still is nothing for a log.
            "hash of the token": record.hash.rpartition("$")[2],
            "wrong token": _WRONG,
            "signing key": _SIGNING,
            "JWT key": _SHARED.decode(),
            "JWT key in base64url": secret,
            "JWT key in base64": b64encode(_SHARED).decode(),
            "admin token": ADMIN_TOKEN,
            "password": PASSWORD,
            "encoded password": BASIC.rstrip("="),
            "opaque token": OPAQUE_TOKEN,
        }

    def write(self, name: str, text: str) -> None:
        """Write a file that only its owner may read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def jwt(self, expires_at: float, secret: bytes = _SHARED) -> str:
        """Return a JWT, whose payload and signature are secrets from now on."""
        claims = {"sub": "bob", "exp": int(expires_at), "aud": "streams"}
        made = jwt.encode(claims, secret, "HS256", {"kid": "one"})
        self.known |= {f"{part} of {made}": made.split(".")[part] for part in (1, 2)}
        return made

    def settings(self) -> dict[str, Any]:
        """Return settings that need all of the secrets, and write as much as they can."""
        return {
            "auth__methods": "token,jwt,signed-url",
            "auth__token_file": self.folder / "tokens",
            "auth__signing_keys_file": self.folder / "keys",
            "auth__jwt__keys_file": self.folder / "jwks",
            "auth__jwt__algorithms": "HS256",
            "auth__jwt__audience": "streams",
            "admin__enabled": "true",
            "admin__token_file": self.folder / "admin",
            "audit__file": self.folder / "audit.jsonl",
            "audit__events": "all",
            "observability__log_level": "debug",
            "observability__access_log": "all",
        }
