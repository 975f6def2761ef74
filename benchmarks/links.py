"""
Measures how long one subscription with 100,000 links holds up everybody else: ``python -m benchmarks.links``.

The longest turn of the reactor is in processor time of its thread, as in :mod:`benchmarks.holds`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from benchmarks import crowds
from benchmarks.holds import BASE, Served, measured
from benchmarks.peers import CHECKOUT

SUBSCRIPTION: Final = f"{BASE}__ds/subscriptions/s"


def ask(server: Served, method: str, path: str, expected: int, **members: object) -> dict[str, Any]:
    """Send a request with a JSON body, and return the answer; ``{}`` if it has no body."""
    status, body = server.request(method, path, json.dumps(members).encode(), "application/json")
    assert status == expected, (status, body)
    return dict(json.loads(body)) if body else {}


def links(server: Served, count: int) -> None:
    """Create, wake, claim, describe, change and delete a subscription."""
    crowds.pipelined(server, (crowds.put(f"linked/{number}") for number in range(count)), b"201")
    server.request("PUT", BASE + "wakes", b"", "application/json")

    def append_to_all() -> None:
        crowds.pipelined(server, (crowds.post(f"linked/{number}", "x") for number in range(count)), b"204")
        time.sleep(2)

    with measured(server, f"a subscription with {count} links is created"):
        ask(server, "PUT", SUBSCRIPTION, 201, type="pull-wake", pattern="linked/*", wake_stream="wakes")
    with measured(server, "all streams get data"):
        append_to_all()
    with measured(server, "all streams get more data"):
        append_to_all()
    with measured(server, "a claim"):
        wake = ask(server, "POST", SUBSCRIPTION + "/claim", 200, worker="w")
    with measured(server, "a refused claim"):
        ask(server, "POST", SUBSCRIPTION + "/claim", 409, worker="w")
    with measured(server, "ten descriptions"):
        for _ in range(10):
            ask(server, "GET", SUBSCRIPTION, 200)
    append_to_all()
    some = [stream["path"] for stream in wake["streams"]]
    with measured(server, f"{len(some)} streams are named"):
        ask(server, "POST", SUBSCRIPTION + "/streams", 204, streams=some)
    with measured(server, "a stream is removed"):
        ask(server, "DELETE", f"{SUBSCRIPTION}/streams/{some[0]}", 204)
    append_to_all()
    with measured(server, "a sweep"):
        time.sleep(31)
    with measured(server, "half of the streams are deleted"):
        deletion = "DELETE {}linked/{} HTTP/1.1\r\nHost: a\r\n\r\n"
        crowds.pipelined(server, (deletion.format(BASE, number).encode() for number in range(0, count, 2)), b"204")
        time.sleep(2)
    with measured(server, "the subscription is deleted"):
        server.request("DELETE", SUBSCRIPTION)
        time.sleep(2)


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mode", default="memory", help="the storage mode")
    options.add_argument("--links", type=int, default=100_000)
    options.add_argument("--checkout", type=Path, default=CHECKOUT, help="of which checkout the server is")
    chosen = options.parse_args()
    os.environ["DS_SUBSCRIPTIONS__ENABLED"] = "true"
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Served(chosen.mode, chosen.checkout, Path(folder))) as server,
    ):
        links(server, chosen.links)


if __name__ == "__main__":
    main()
