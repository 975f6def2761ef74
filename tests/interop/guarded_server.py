"""A server that takes JWTs only.

It prints one line of JSON: the ``url`` of the server, and as ``control`` the secret with which tokens are signed. It
ends with its standard input.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from secrets import token_bytes
from typing import Any

from twisted.internet import reactor as running
from twisted.internet.stdio import StandardIO

from durable_streams.server import MemoryStorage, Settings, build_service
from tests.interop.restored_server import Parent, free_port

reactor: Any = running


def settings_with(keys_file: str) -> Settings:
    """Return the settings: whoever has a token of the secret may do everything."""
    return Settings.from_mapping(
        {
            "transport": {"connection": {"long_poll_timeout_secs": 2}},
            "auth": {
                "methods": ["jwt"],
                "allow_anonymous": False,
                "rules": ["allow subject:interop all **"],
                "jwt": {"keys_file": keys_file, "algorithms": ["HS256"], "leeway_secs": 0},
            },
        }
    )


def main() -> None:
    """Serve until the standard input ends."""
    port = free_port()
    secret = base64.urlsafe_b64encode(token_bytes(32)).rstrip(b"=").decode()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as keys:
            json.dump({"keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": secret}]}, keys)
        server = build_service(MemoryStorage(), settings_with(path), [f"tcp:{port}:interface=127.0.0.1"])
        server.privilegedStartService()
        server.startService()
        StandardIO(Parent())
        urls = {"url": f"http://127.0.0.1:{port}", "control": secret}
        reactor.callWhenRunning(lambda: print(json.dumps(urls), flush=True))
        reactor.run()


if __name__ == "__main__":
    main()
    sys.exit(0)
