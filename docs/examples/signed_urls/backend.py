"""
A web application whose page reads one stream: the application signs the URL, and the browser reads from the server.

``python3 backend.py KEY_FILE`` serves it at http://localhost:8000.
"""

from __future__ import annotations

import hmac
import json
import sys
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

STREAMS = "http://localhost:4437/v1/stream"
PAGE = Path(__file__).with_name("page.html")

#: How long a URL is valid, in seconds. The page gets a new one when it has expired.
VALID_SECONDS = 60


def signed_url(key_file: str, name: str, operations: str, expires: int, subject: str = "") -> str:
    """Return the URL of a stream that allows some operations until a time, in UNIX seconds."""
    lines = Path(key_file).read_text().splitlines()
    key_id, secret = next(line.split() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    fields = [field.encode() for field in ("durable-streams-url-1", operations, name, str(expires), key_id, subject)]
    signed = b"".join(b"%d:%b," % (len(field), field) for field in fields)
    signature = urlsafe_b64encode(hmac.digest(secret.encode(), signed, "sha256")).rstrip(b"=").decode()
    query = f"ds_key={key_id}&ds_expires={expires}&ds_op={operations}&ds_sig={signature}"
    if subject:
        query += f"&ds_subject={quote(subject, safe='')}"
    return f"{STREAMS}/{quote(name)}?{query}"


class Application(BaseHTTPRequestHandler):
    """Serves the page, and URLs for it."""

    def do_GET(self) -> None:
        if self.path == "/stream-url":
            # An application of yours looks here who has signed in, and which streams that user may read.
            expires = int(time.time()) + VALID_SECONDS
            url = signed_url(sys.argv[1], "news/today", "read", expires, "alice")
            self.answer("application/json", json.dumps({"url": url}).encode())
        else:
            self.answer("text/html; charset=utf-8", PAGE.read_bytes())

    def answer(self, content_type: str, body: bytes) -> None:
        """Send an answer that no cache keeps, and whose page tells no other site its URL."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8000), Application).serve_forever()
