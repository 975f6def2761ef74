"""The compared servers: their names, installation and start."""

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.generator import HOST

HERE = Path(__file__).parent
CHECKOUT = HERE.parent

#: In bytes.
MEBIBYTE = 1024 * 1024

#: A limit that no benchmark reaches.
PLENTY = str(64 * 1024 * MEBIBYTE)


@dataclass(frozen=True)
class Peer:
    """
    A server to compare.

    In the command and in the environment's values, ``{port}`` stands for the port on the loopback interface to
    listen on, ``{folder}`` for the folder where npm's packages are installed, ``{crate}`` for that of its crate,
    ``{work}`` for an empty folder that is removed at the end, ``{here}`` for the folder of the benchmarks,
    ``{checkout}`` for the one above it, ``{scripts}`` for the folder of the scripts beside the Python in use, and
    ``{dsn}`` for the connection string of its database.

    :param name: its name in the tables.
    :param command: the program and its arguments.
    :param environment: variables to set, whatever the caller has.
    :param defaults: variables to set where the caller has none.
    :param sealed: the caller's ``DS_*`` variables are not handed on: they are meant for this server, not for it.
    :param ready: a path that it answers when it is ready.
    :param secure: it serves over TLS, by the certificate ``{work}/server.pem`` and its key ``{work}/server.key``.
    :param keeps: what it has acknowledged is still there when its process is killed and started again.
    :param database: it needs a PostgreSQL database, which is a new one for each measurement.
    :param npm: the npm package that it needs, with its version.
    :param crate: the crate that has its program, with its version.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    sealed: bool = False
    ready: str = "/healthz"
    secure: bool = False
    keeps: bool = False
    database: bool = False
    npm: str = ""
    crate: str = ""


#: The checkout with the caller's DS_ variables; in memory by default.
OURS = Peer(
    name="ours",
    command=("{scripts}/twistd", "-n", "--pidfile=", "durable-streams"),
    environment={
        "DS_SERVER__BIND_ADDRESS": f"{HOST}:{{port}}",
        "DS_STORAGE__DATA_DIR": "{work}/data",
        "PYTHONPATH": "{checkout}",
    },
    defaults={
        "DS_STORAGE__MODE": "memory",
        # The older name of limits.max_total_bytes, so that older commits can be measured too.
        "DS_LIMITS__MAX_MEMORY_BYTES": PLENTY,
        "DS_LIMITS__MAX_STREAM_BYTES": PLENTY,
        "DS_TRANSPORT__CONNECTION__STALL_TIMEOUT_SECS": "900",
    },
    ready="/readyz",
)


def ours_in(mode: str) -> Peer:
    """
    Return the checkout in one storage mode; the other settings are the caller's.

    :param mode: the mode, which is also the peer's name.
    :returns: the peer.
    """
    environment = {**OURS.environment, "DS_STORAGE__MODE": mode}
    return replace(OURS, name=mode, environment=environment, keeps=mode != "memory")


#: The checkout on PostgreSQL.
POSTGRES = replace(
    ours_in("postgres"),
    database=True,
    environment={**ours_in("postgres").environment, "DS_STORAGE__POSTGRES__DSN": "{dsn}"},
)


def ours_observed(name: str, **settings: str) -> Peer:
    """
    Return the checkout in memory with these observability settings.

    :param name: the peer's name.
    :param settings: of ``observability``, in the environment's spelling; the rest has its defaults.
    :returns: the peer.
    """
    named = {f"DS_OBSERVABILITY__{key}": value for key, value in settings.items()}
    environment = {**OURS.environment, **OURS.defaults, **named}
    return replace(OURS, name=name, environment=environment, defaults={}, sealed=True)


#: The checkout with its default observability settings, and with all of them off.
OBSERVED = ours_observed("observed")
SILENT = ours_observed("silent", METRICS="false", ACCESS_LOG="none")

#: The same in memory, without TLS and with it.
PLAIN = replace(ours_in("memory"), name="plain")
TLS = replace(
    PLAIN,
    name="tls",
    secure=True,
    environment={
        **PLAIN.environment,
        "DS_TRANSPORT__MODE": "tls",
        "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
        "DS_TRANSPORT__TLS__CERT_PATH": "{work}/server.pem",
        "DS_TRANSPORT__TLS__KEY_PATH": "{work}/server.key",
    },
)

#: The reference server of the protocol's project, in memory, with its defaults.
NODE = Peer(
    name="node",
    command=("node", "{here}/node_reference.mjs", "{port}", "{folder}"),
    npm="@durable-streams/server@0.3.7",
)

#: The Rust server that this one is ported from, in the mode that syncs each append. It would log each request.
PORTED = Peer(
    name="ported",
    command=("{crate}/bin/durable-streams-server",),
    environment={
        "DS_SERVER__BIND_ADDRESS": f"{HOST}:{{port}}",
        "DS_STORAGE__MODE": "file-durable",
        "DS_STORAGE__DATA_DIR": "{work}/data",
        "DS_LIMITS__MAX_MEMORY_BYTES": PLENTY,
        "DS_LIMITS__MAX_STREAM_BYTES": PLENTY,
        "RUST_LOG": "warn",
    },
    sealed=True,
    ready="/readyz",
    keeps=True,
    crate="durable-streams-server@0.3.0",
)

#: Electric's Rust server, whose write-ahead log is synced for many appends at once.
ELECTRIC = Peer(
    name="electric",
    command=(
        *("{crate}/bin/durable-streams-server", "--host", HOST, "--port", "{port}"),
        *("--data-dir", "{work}/data", "--durability", "wal"),
    ),
    sealed=True,
    ready="/health",
    keeps=True,
    crate="durable-streams@0.1.5",
)

#: The Rust servers in memory, as far as they have such a mode: Electric's syncs nothing then.
PORTED_MEMORY = replace(
    PORTED, name="ported-memory", keeps=False, environment={**PORTED.environment, "DS_STORAGE__MODE": "memory"}
)
PORTED_TLS = replace(
    PORTED_MEMORY,
    name="ported-tls",
    secure=True,
    environment={
        **PORTED_MEMORY.environment,
        **{name: value for name, value in TLS.environment.items() if name.startswith("DS_TRANSPORT__")},
    },
)
ELECTRIC_MEMORY = replace(ELECTRIC, name="electric-memory", keeps=False, command=(*ELECTRIC.command[:-1], "memory"))

#: The peers that are known by name.
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        *(OURS, *map(ours_in, ("file-durable", "file-fast", "acid", "memory"))),
        *(POSTGRES, OBSERVED, SILENT, PLAIN, TLS, NODE, PORTED, ELECTRIC, PORTED_MEMORY, PORTED_TLS, ELECTRIC_MEMORY),
    )
}


def from_text(text: str) -> Peer:
    """
    Return the peer of a command-line argument.

    :param text: ``NAME=COMMAND``, the command quoted as for a shell, with the placeholders of :class:`Peer`.
    :returns: the peer.
    :raises ValueError: it has no name, or no command.
    """
    name, _, command = text.partition("=")
    if not name or not command:
        raise ValueError(f"not NAME=COMMAND: {text}")
    return Peer(name, tuple(shlex.split(command)))


def crate_folder(peer: Peer, folder: Path) -> Path:
    """
    Return the folder in which a peer's crate is installed.

    :param peer: the peer.
    :param folder: the folder for all of what is installed.
    :returns: a folder of its own: two crates may have programs of the same name.
    """
    return folder / "crates" / peer.crate


def install(peer: Peer, folder: Path) -> None:
    """
    Install what a peer needs and the folder does not have.

    :param peer: the peer.
    :param folder: the folder, made when missing.
    :raises subprocess.CalledProcessError: npm or cargo failed.
    """
    if peer.npm:
        _install_package(peer.npm, folder)
    if peer.crate and not (crate_folder(peer, folder) / "bin").exists():
        name, _, version = peer.crate.rpartition("@")
        command = ["cargo", "install", name, "--version", version, "--locked", "--root"]
        subprocess.run([*command, crate_folder(peer, folder)], check=True)


def _install_package(package: str, folder: Path) -> None:
    name, _, version = package.rpartition("@")
    description = folder / "node_modules" / name / "package.json"
    if description.exists() and f'"version": "{version}"' in description.read_text(encoding="utf-8"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, "--prefix", folder, package], check=True)
