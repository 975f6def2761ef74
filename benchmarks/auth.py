"""
Benchmark of what authentication and rules cost appends and reads.

It is a program of its own: four servers run at the same time, and are measured in turn, in slices of a second or so.
Two are without access control, of which one is sent a token that it ignores; one has static tokens and one has JWTs,
both with rules of 100 patterns::

    python -m benchmarks.auth append
    python -m benchmarks.auth read --slices 30

With the default of 30 slices it takes a little more than two minutes. It prints the rates of each round of slices as
it goes, and the results at the end.

Whatever else the machine does concerns all of them, so the slices are compared one by one. The ratio of the processor
time per request is the result; requests per second follow from it, and depend on the rest of the machine more.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.generator import Generator, Option, build
from benchmarks.peers import CHECKOUT, Peer, ours_in
from benchmarks.servers import Server, start

BASE = "/v1/stream/bench"

#: The number of streams, and the size of a message in bytes.
STREAMS = 64
SIZE = 100

#: Rules of which only the last is for the client of the benchmark.
RULES = [f"allow subject:user-{number} all rooms/room-{number}/**" for number in range(99)] + [
    "allow subject:alice all bench/**"
]

_SECRET = b"a secret of the benchmark's, with 256 bits or more"


@dataclass(frozen=True)
class Case:
    """
    A way to send requests.

    :param name: its name in the table.
    :param settings: of the server, in the environment's spelling.
    :param token: what requests carry; None for nothing.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None

    def peer(self, mode: str) -> Peer:
        """Return the server."""
        peer = ours_in(mode)
        return replace(peer, name=self.name, environment={**peer.environment, **self.settings})


def _encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def jwt() -> str:
    """Return a token of alice's, as large as those of an identity provider are."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "benchmark"}
    claims = {
        "sub": "alice",
        "exp": int(time.time()) + 86_400,
        "iat": int(time.time()),
        "groups": ["staff", "writers"],
        "name": "Alice Example",
        "email": "alice@example.com",
        "scope": "openid profile email streams:read streams:write",
        "jti": "f0c5a2f6-1d2b-4d3a-9a57-4c6f1f0f7c11",
    }
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    return (signed + b"." + _encoded(hmac.new(_SECRET, signed, hashlib.sha256).digest())).decode()


def cases(folder: Path) -> list[Case]:
    """
    Return what is compared; the first has no access control.

    :param folder: where the files with tokens, keys and rules are written.
    """
    rules, tokens, keys = folder / "rules", folder / "tokens", folder / "keys"
    rules.write_text("\n".join(RULES) + "\n")
    keys.touch(0o600)
    key = {"kty": "oct", "kid": "benchmark", "alg": "HS256", "k": _encoded(_SECRET).decode()}
    keys.write_text(json.dumps({"keys": [key]}))
    create = (sys.executable, "-m", "durable_streams.server", "token", "create")
    created = subprocess.run(
        (*create, "--subject", "alice", "--file", str(tokens)),
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    common = {"DS_AUTH__RULES_FILE": str(rules), "DS_AUTH__ALLOW_ANONYMOUS": "false"}
    with_jwt = {"DS_AUTH__JWT__KEYS_FILE": str(keys), "DS_AUTH__JWT__ALGORITHMS": "HS256"}
    return [
        Case("open"),
        Case("ignored", {}, jwt()),
        Case(
            "token",
            {**common, "DS_AUTH__METHODS": "token", "DS_AUTH__TOKEN_FILE": str(tokens)},
            created.stdout.strip(),
        ),
        Case("jwt", {**common, **with_jwt, "DS_AUTH__METHODS": "jwt"}, jwt()),
    ]


def slice_of(generator: Generator, server: Server, case: Case, command: str, seconds: float) -> tuple[float, float]:
    """
    Append or read for some seconds.

    :returns: requests per second, and the processor time of one in microseconds.
    """
    path = f"{BASE}/{{n}}" if command == "append" else f"{BASE}/{{n}}?offset=-1"
    options: dict[str, Option] = {"streams": STREAMS, "headers": "client"}
    if case.token is not None:
        options["token"] = case.token
    numbers = (32, seconds, SIZE) if command == "append" else (32, seconds)
    before = server.run_seconds()
    result = generator.run(command, server.port, path, *numbers, timeout=seconds + 60, **options)
    return result["per_second"], (server.run_seconds() - before) / max(result["requests"], 1) * 1e6


def prepare(generator: Generator, server: Server, case: Case) -> None:
    """Create the streams, with a message each."""
    options: dict[str, Option] = {} if case.token is None else {"token": case.token}
    generator.run("create", server.port, f"{BASE}/{{n}}", STREAMS, timeout=60, **options)
    for number in range(STREAMS):
        generator.run("write", server.port, f"{BASE}/{number}", 1, SIZE, timeout=60, **options)


def compare(options: argparse.Namespace, generator: Generator, servers: Sequence[tuple[Case, Server]]) -> None:
    """Measure all servers in turn. Print a line for each round of slices, and then one for each server."""
    # The first slice of each server is not counted.
    seconds = (options.slices + 1) * options.seconds * len(servers)
    print(f"{len(servers)} servers, {options.slices} slices each: about {seconds:.0f} s", flush=True)
    for case, server in servers:
        prepare(generator, server, case)
        slice_of(generator, server, case, options.command, options.seconds)
    found: dict[str, list[tuple[float, float]]] = {case.name: [] for case, _ in servers}
    for number in range(options.slices):
        # Which comes first changes, since what else runs may be in step with the slices.
        turn = number % len(servers)
        for case, server in [*servers[turn:], *servers[:turn]]:
            found[case.name].append(slice_of(generator, server, case, options.command, options.seconds))
        rates = ", ".join(f"{name} {slices[-1][0]:,.0f}/s" for name, slices in found.items())
        print(f"slice {number + 1} of {options.slices}: {rates}", flush=True)
    first = found[servers[0][0].name]
    for name, slices in found.items():
        rate, spent = (statistics.median(values) for values in zip(*slices, strict=True))
        rate_ratio = statistics.median(rate / before for (rate, _), (before, _) in zip(slices, first, strict=True))
        spent_ratio = statistics.median(spent / before for (_, spent), (_, before) in zip(slices, first, strict=True))
        print(
            f"{options.command}, {name}: {rate:,.0f}/s, ratio {rate_ratio:.3f}; "
            f"{spent:.2f} us of processor time, ratio {spent_ratio:.3f}",
            flush=True,
        )


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "durable-streams-benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("append", "read"))
    parser.add_argument("--mode", default="memory", help="the storage mode")
    parser.add_argument("--slices", type=int, default=30, help="slices of each server")
    parser.add_argument("--seconds", type=float, default=1, help="length of a slice")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=cache, help="where the generator is built")
    options = parser.parse_args(words)
    generator = Generator(build(options.folder), options.load_core)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = [
            (case, stack.enter_context(start(case.peer(options.mode), options.server_core, options.folder)))
            for case in cases(Path(folder))
        ]
        compare(options, generator, servers)


if __name__ == "__main__":
    main()
