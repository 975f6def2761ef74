"""Receive webhooks, and work off the streams that they name: ``python3 receiver.py``.

It needs ``pip install cryptography``. It does the work before it answers, and its answer acknowledges the work. That is
enough for what takes less than the 5 seconds that a webhook may take.
"""

import json
import os
import re
import time
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

URL = os.environ.get("DS_URL", "http://localhost:4437/v1/stream")
PORT = int(os.environ.get("PORT", "8080"))


class Keys:
    """The public keys of the server, at most 5 minutes old. Never take the address of the keys from a request."""

    def __init__(self) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetched_at = 0.0

    def find(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key of an id. The set is fetched anew for an unknown one, at most every 10 seconds."""
        age = time.time() - self._fetched_at
        if age > 300 or (kid not in self._keys and age > 10):
            with urlopen(f"{URL}/__ds/jwks.json", timeout=4) as answer:
                jwks = json.load(answer)
            self._keys = {jwk["kid"]: Ed25519PublicKey.from_public_bytes(decoded(jwk["x"])) for jwk in jwks["keys"]}
            self._fetched_at = time.time()
        return self._keys.get(kid)


def decoded(text: str) -> bytes:
    """Decode base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_authentic(header: str, body: bytes, keys: Keys) -> bool:
    """Tell whether the server has signed a body, as it came, in the last 5 minutes."""
    match = re.fullmatch(r"t=(\d{1,12}),kid=([^,]+),ed25519=([A-Za-z0-9_-]{86})", header)
    if match is None or abs(time.time() - int(match[1])) > 300:
        return False
    key = keys.find(match[2])
    if key is None:
        return False
    try:
        key.verify(decoded(match[3]), match[1].encode() + b"." + body)
    except InvalidSignature:
        return False
    return True


def work(path: str, message: Any) -> None:
    """Do something with a message. Put your program in the place of this."""
    print(path, json.dumps(message), flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers webhooks."""

    keys = Keys()

    def do_POST(self) -> None:
        """Check the signature, do the work, and acknowledge it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not is_authentic(self.headers.get("Webhook-Signature", ""), body, self.keys):
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        for stream in json.loads(body)["streams"]:
            if stream["has_pending"]:
                with urlopen(f"{URL}/{quote(stream['path'])}?offset={stream['acked_offset']}", timeout=4) as answer:
                    for message in json.load(answer):
                        work(stream["path"], message)
        # Acknowledges all up to the tail_offset of each stream in the request.
        answer_body = b'{"done": true}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer_body)))
        self.end_headers()
        self.wfile.write(answer_body)

    def log_message(self, *arguments: Any) -> None:
        """Keep the output for messages."""


if __name__ == "__main__":
    print(f"listening on http://127.0.0.1:{PORT}/", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
