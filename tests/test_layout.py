"""The shape of the tree: which part may import which, what is packaged, and what every module must have."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.skipping import skip_not_installed

ROOT: Final = Path(__file__).resolve().parent.parent
SERVER: Final = ROOT / "durable_streams" / "server"
PACKAGE: Final = "durable_streams.server"

_RULES: Final = frozenset({"model", "errors", "interfaces", "protocol"})
_SERVICE: Final = _RULES | {"clocks", "run_queue", "waiting", "streams"}
_PARTS: Final = _SERVICE | {
    *("storage", "identity", "web", "subscriptions", "transfer", "client"),
    *("config", "startup", "telemetry"),
}

#: Which parts of the server a part may import: arrows point downwards in this table only. A part may always import what
#: is in its own folder; of the storages, each has its own.
PARTS: Final[dict[str, frozenset[str]]] = {
    "model": frozenset(),
    "errors": frozenset(),
    "interfaces": frozenset({"model", "errors"}),
    "protocol": frozenset({"model", "errors"}),
    "clocks": frozenset(),
    "regular_files": frozenset(),
    "log_files": frozenset(),
    "pem_certificates": frozenset(),
    "secret_files": frozenset({"regular_files"}),
    "blocking_calls": frozenset(),
    "guarded_endpoints": frozenset(),
    "connection_failures": frozenset(),
    "answer_bodies": frozenset(),
    "library_internals": frozenset(),
    "storage": _RULES | {"clocks"},
    "run_queue": frozenset({"clocks"}),
    "waiting": frozenset({"model", "interfaces", "clocks", "run_queue"}),
    "streams": _RULES | {"clocks", "run_queue", "waiting"},
    "identity": _RULES
    | {
        "clocks",
        "blocking_calls",
        "regular_files",
        "secret_files",
        "pem_certificates",
        "guarded_endpoints",
        "connection_failures",
        "answer_bodies",
        "release",
    },
    "web": _SERVICE | {"regular_files", "secret_files", "identity", "subscriptions", "transfer"},
    "subscriptions": _SERVICE
    | {
        *("regular_files", "secret_files", "pem_certificates"),
        *("guarded_endpoints", "connection_failures", "answer_bodies", "release"),
    },
    "transfer": _SERVICE | {"blocking_calls", "release"},
    "client": _RULES | {"clocks", "guarded_endpoints", "connection_failures", "release"},
    "config": frozenset(),
    "startup": frozenset({"errors", "config"}),
    "telemetry": _SERVICE | {"log_files", "identity", "web", "subscriptions", "config", "startup"},
    "listening": frozenset({"regular_files", "pem_certificates", "errors", "config", "clocks", "startup", "web"}),
    "release": frozenset(),
    "daemon": _PARTS | {"log_files", "regular_files", "secret_files", "listening", "release"},
    "embedding": _PARTS | {"daemon"},
    "testing": _PARTS | {"daemon", "embedding"},
    "": _PARTS | {"daemon", "embedding"},
    "tap": frozenset({"config", "startup", "daemon", "clocks"}),
    "cli": _PARTS | {"identity", "regular_files", "blocking_calls", "daemon", "release", "tap"},
    "__main__": frozenset({"cli"}),
}

_TWISTED: Final = ("twisted", "zope.interface")
_ANYTHING: Final = ("",)

#: What else than the standard library a part may import: these modules, and those inside them.
LIBRARIES: Final[dict[str, tuple[str, ...]]] = {
    "model": ("attrs", "attr", "msgspec"),
    "errors": ("attrs", "attr", "msgspec"),
    "interfaces": ("twisted.internet.defer", "zope.interface"),
    "protocol": ("msgspec",),
    "storage": (*_TWISTED, "msgspec", "isal", "psycopg"),
    "run_queue": _TWISTED,
    "clocks": _TWISTED,
    "regular_files": (),
    "log_files": (),
    "pem_certificates": ("cryptography",),
    "secret_files": (),
    "blocking_calls": _TWISTED,
    "guarded_endpoints": _TWISTED,
    "connection_failures": (*_TWISTED, "OpenSSL", "service_identity"),
    "answer_bodies": _TWISTED,
    "waiting": _TWISTED,
    "streams": _TWISTED,
    "identity": (*_TWISTED, "msgspec", "jwt", "cryptography", "treq", "OpenSSL"),
    "web": (*_TWISTED, "msgspec", "httptools", "klein", "werkzeug", "hpack"),
    "subscriptions": (*_TWISTED, "msgspec", "sortedcontainers", "cryptography", "idna", "OpenSSL"),
    "transfer": (*_TWISTED, "msgspec", "ijson", "zstandard"),
    "client": (*_TWISTED, "msgspec", "treq", "OpenSSL"),
    "config": ("msgspec",),
    "listening": (*_TWISTED, "msgspec", "OpenSSL", "cryptography"),
    "startup": (),
    "telemetry": (*_TWISTED, "msgspec", "prometheus_client", "opentelemetry"),
    "cli": (*_TWISTED, "click", "rich", "msgspec"),
}

#: What the rules of the protocol have no business with: they are told the time, and touch nothing.
IMPURE: Final = frozenset(
    {
        "asyncio",
        "io",
        "logging",
        "os",
        "pathlib",
        "random",
        "secrets",
        "socket",
        "subprocess",
        "threading",
        "time",
        "uuid",
    }
)


def module_name(path: Path) -> str:
    """Return the module name of a file of the server."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Find all modules of the server."""
    return {module_name(path): path for path in sorted(SERVER.rglob("*.py"))}


def imported(source: str, module: str, is_package: bool, known: Iterable[str]) -> Iterator[str]:
    """List the modules that a source imports, wherever in it that is, with relative names resolved."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                # What is imported from a package may be a module in it.
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def part_of(module: str) -> str:
    """Return the part to which a module belongs: the first name after the package's."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


#: What the storages have in common.
SHARED: Final = frozenset(
    {
        "catalogue",
        "changes",
        "checksums",
        "deadlines",
        "directory_watch",
        "disk",
        "entry",
        "findings",
        "frontier",
        "listeners",
        "logged",
        "installing",
        "limits",
        "measuring",
        "metadata",
        "name_index",
        "ownership",
        "readonly",
        "repeated_logs",
        "shortages",
        "values",
        "workers",
    }
)


def provider_of(module: str) -> str:
    """Return the storage to which a module belongs."""
    return module.removeprefix(f"{PACKAGE}.storage").removeprefix(".").partition(".")[0]


def objection(module: str, target: str) -> str | None:
    """Return the error of an import of one module by another, or None."""
    part = part_of(module)
    if part not in PARTS:
        return f"{part} is not in the table of parts"
    if target == PACKAGE or target.startswith(f"{PACKAGE}."):
        to = part_of(target)
        if to == part:
            if part == "storage" and provider_of(target) not in {"", provider_of(module), *SHARED}:
                return "a storage imports another"
            return None
        if to not in PARTS[part]:
            return f"{part or 'the package itself'} may not import {to or 'the package itself'}"
        if part == "web" and to == "subscriptions" and target != f"{PACKAGE}.subscriptions":
            return "web may not import what is inside subscriptions"
        return None
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"rules may not import {top}" if part == "protocol" and top in IMPURE else None
    if top == "psycopg" and part == "storage" and provider_of(module) != "postgres":
        return "only storage.postgres may import psycopg"
    for library in LIBRARIES.get(part, _ANYTHING):
        if not library or target == library or target.startswith(f"{library}."):
            return None
    return f"{part} may not import {target}"


def bad_arrows(source: str, module: str, is_package: bool = False, known: Iterable[str] = ()) -> list[str]:
    """List everything that a module must not import, and why."""
    known = frozenset(known)
    found = ((target, objection(module, target)) for target in imported(source, module, is_package, known))
    return [f"{module} -> {target}: {why}" for target, why in found if why is not None]


#: Circles of imports that are still there.
KNOWN_CIRCLES: Final = frozenset({(f"{PACKAGE}.storage.file.moving", f"{PACKAGE}.storage.file.storage")})


def circles(arrows: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """List the groups of modules of which each imports every other, by way of others or not; each group sorted."""
    reached = {module: _reached_from(module, arrows) for module in arrows}
    found = {
        tuple(sorted(other for other in below if module in reached.get(other, ())))
        for module, below in reached.items()
        if module in below
    }
    yield from sorted(found)


def _reached_from(module: str, arrows: Mapping[str, Iterable[str]]) -> set[str]:
    """Find all modules that a module imports, directly or not; itself only if it is in a circle."""
    reached: set[str] = set()
    waiting = list(arrows[module])
    while waiting:
        target = waiting.pop()
        if target not in reached:
            reached.add(target)
            waiting += arrows.get(target, ())
    return reached


def arrows_between(sources: Mapping[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """
    Map each module to the other modules that it imports, for type checks and inside functions too.

    :param sources: the text of each module, and whether it is a package.
    """
    return {
        module: {target for target in imported(source, module, is_package, sources) if target in sources} - {module}
        for module, (source, is_package) in sources.items()
    }


class CircleTests(SynchronousTestCase):
    def test_the_server_has_no_import_cycles(self) -> None:
        sources = {module: (path.read_text(), path.name == "__init__.py") for module, path in modules().items()}
        self.assertEqual(set(), set(circles(arrows_between(sources))) - KNOWN_CIRCLES)

    def test_import_cycles_are_found_in_every_form_of_import(self) -> None:
        for source in (
            "from .second import f",
            "from . import second",
            "import top.second",
            "def f():\n    from .second import g",
            "if TYPE_CHECKING:\n    from .second import f",
        ):
            sources = {
                "top": ("", True),
                "top.first": (source, False),
                "top.second": ("from .third import f", False),
                "top.third": ("from .first import f", False),
                "top.above": ("from .first import f", False),
                "top.below": ("import os", False),
            }
            self.assertEqual([("top.first", "top.second", "top.third")], list(circles(arrows_between(sources))), source)

    def test_acyclic_imports_are_accepted(self) -> None:
        sources = {"top": ("from .first import f", True), "top.first": ("from .second import f", False)}
        sources["top.second"] = ("import os", False)
        self.assertEqual([], list(circles(arrows_between(sources))))


class ArrowTests(SynchronousTestCase):
    def test_imports_point_downwards_only(self) -> None:
        found = modules()
        self.assertIn(f"{PACKAGE}.protocol.offsets", found)
        bad: list[str] = []
        for module, path in found.items():
            bad += bad_arrows(path.read_text(), module, path.name == "__init__.py", found)
        self.assertEqual([], bad)

    def test_the_table_of_layers_has_no_upward_import(self) -> None:
        for part, below in PARTS.items():
            self.assertNotIn(part, below)
            for other in below:
                self.assertNotIn(part, PARTS[other], f"{part} and {other} import each other")

    def check(self, module: str, source: str, why: str | None, is_package: bool = False) -> None:
        known = [*modules(), f"{PACKAGE}.subscriptions.leases", f"{PACKAGE}.storage.acid"]
        found = bad_arrows(source, f"{PACKAGE}.{module}".rstrip("."), is_package, known)
        if why is None:
            self.assertEqual([], found)
        else:
            self.assertEqual(1, len(found), (source, found))
            self.assertIn(why, found[0])

    def test_an_upward_import_is_detected(self) -> None:
        for module, source, why in (
            ("model", "from .errors import StreamsError", "model may not import errors"),
            ("errors", "from .model import Offset", "errors may not import model"),
            ("interfaces", "from .streams import Streams", "interfaces may not import streams"),
            ("protocol.names", "from ..interfaces import IStorage", "protocol may not import interfaces"),
            ("storage.memory", "from ..web.answers import Answers", "storage may not import web"),
            ("storage.memory", "from ..waiting import Waiting", "storage may not import waiting"),
            ("storage.memory", "from . import acid", "imports another"),
            ("storage.memory", "from .acid import AcidStorage", "imports another"),
            ("storage.file.journal", "from ..memory import MemoryStorage", "imports another"),
            ("waiting", "from .storage.memory import MemoryStorage", "waiting may not import storage"),
            ("run_queue", "from .waiting import Waiting", "run_queue may not import waiting"),
            ("streams", "from .storage.memory import MemoryStorage", "streams may not import storage"),
            ("streams", "from .storage import memory", "streams may not import storage"),
            ("streams", "from .config.settings import Settings", "streams may not import config"),
            ("web.live", "from ..config.settings import Settings", "web may not import config"),
            ("web.live", "from ..storage.memory import MemoryStorage", "web may not import storage"),
            ("web.app", "from ..subscriptions.leases import Lease", "inside subscriptions"),
            ("web.app", "from ..subscriptions import leases", "inside subscriptions"),
            ("web.app", "from .. import daemon", "web may not import daemon"),
            ("web.app", "from ..telemetry import metrics_from", "web may not import telemetry"),
            ("web.app", "import prometheus_client", "web may not import prometheus_client"),
            ("telemetry.counts", "from ..storage.memory import MemoryStorage", "telemetry may not import storage"),
            ("listening.listeners", "from ..telemetry import metrics_from", "listening may not import telemetry"),
            ("web.app", "from .. import StreamService", "web may not import the package itself"),
            ("config.layers", "from ..model import StorageLimits", "config may not import model"),
            ("startup", "from .daemon.service import Daemon", "startup may not import daemon"),
            ("daemon.service", "from ..tap import Options", "daemon may not import tap"),
            ("tap", "from .web.app import build_app", "tap may not import web"),
            ("gadgets", "import os", "gadgets is not in the table"),
        ):
            self.check(module, source, why)

    def test_every_form_of_an_upward_import_is_detected(self) -> None:
        for source in (
            "import durable_streams.server.web.answers",
            "import durable_streams.server.web.answers as answers",
            "from durable_streams.server.web import answers",
            "from durable_streams.server import web",
            "from ..web import answers",
            "from .. import web",
            "def f():\n    from ..web.answers import Answers",
            "if TYPE_CHECKING:\n    from ..web.answers import Answers",
            "try:\n    import durable_streams.server.web\nexcept ImportError:\n    pass",
        ):
            self.check("protocol.names", source, "protocol may not import web")

    def test_an_import_of_a_forbidden_library_is_detected(self) -> None:
        for module, source, why in (
            ("model", "import twisted", "model may not import twisted"),
            ("protocol.names", "from zope.interface import Interface", "protocol may not import zope.interface"),
            ("protocol.names", "from twisted.internet import defer", "protocol may not import twisted"),
            ("protocol.names", "import time", "rules may not import time"),
            ("protocol.names", "from os.path import join", "rules may not import os"),
            ("interfaces", "from twisted.web.server import Site", "interfaces may not import twisted.web"),
            ("config.layers", "from twisted.python import usage", "config may not import twisted"),
            ("storage.memory", "import klein", "storage may not import klein"),
            ("waiting", "import msgspec", "waiting may not import msgspec"),
            ("web.app", "import flask", "web may not import flask"),
            ("cli", "import treq", "cli may not import treq"),
            ("storage.readonly", "import click", "storage may not import click"),
            ("storage.memory", "from psycopg import pq", "only storage.postgres may import psycopg"),
            ("web.app", "import psycopg", "web may not import psycopg"),
        ):
            self.check(module, source, why)

    def test_allowed_imports_are_accepted(self) -> None:
        for module, source in (
            ("interfaces", "from twisted.internet.defer import Deferred\nfrom zope.interface import Interface"),
            ("protocol.sse", "from .messages import document\nfrom ..model import Offset\nimport json, msgspec"),
            ("storage.postgres.connection", "from psycopg import pq"),
            ("storage.file.journal", "from . import segments\nfrom .segments import Segment\nimport os, threading"),
            ("streams", "from .protocol.names import check_name\nfrom twisted.logger import Logger"),
            ("web.app", "from ..subscriptions import Subscriptions\nfrom ..streams import Streams\nimport klein"),
            ("daemon.service", "from ..storage.memory import MemoryStorage\nimport anything"),
        ):
            self.check(module, source, None)
        self.check("", "from .embedding import StreamService\nfrom .config.settings import Settings", None, True)

    def test_the_plugin_imports_no_server_module_before_it_is_used(self) -> None:
        source = (ROOT / "twisted" / "plugins" / "durable_streams_server.py").read_text()
        self.assertEqual(
            {"twisted", "zope"}, {name.partition(".")[0] for name in imported(source, "plugin", False, ())}
        )

    def test_importing_the_package_leaves_the_choice_of_the_reactor_to_the_program(self) -> None:
        code = f"import sys; from {PACKAGE} import *; sys.exit('twisted.internet.reactor' in sys.modules)"
        self.assertEqual(0, subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode)

    def test_a_start_imports_no_database_driver_and_no_supervisor_before_the_settings_need_them(self) -> None:
        unwanted = ("psycopg", f"{PACKAGE}.storage.postgres.storage", f"{PACKAGE}.daemon.workers.supervisor")
        code = f"import sys; import {PACKAGE}.tap; sys.exit(any(name in sys.modules for name in {unwanted!r}))"
        self.assertEqual(0, subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode)

    def test_a_start_imports_no_checker_of_credentials_before_the_settings_need_it(self) -> None:
        unwanted = ("jwt", f"{PACKAGE}.daemon.checkers", f"{PACKAGE}.identity.control", f"{PACKAGE}.web.access")
        parts = f"{PACKAGE}.daemon.service, {PACKAGE}.web.subscriptions"
        code = f"import sys, {parts}; print({{*{unwanted!r}}} & {{*sys.modules}})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False, capture_output=True, text=True
        )
        self.assertEqual((0, "set()\n"), (done.returncode, done.stdout))

    def test_a_server_on_a_given_reactor_leaves_the_choice_of_the_reactor_to_the_program(self) -> None:
        # The pages are laid out by Klein, which installs a reactor, when the server binds its ports.
        program = f"""
import sys
from {PACKAGE} import MemoryStorage, Settings, StreamService, build_resource, build_service
from twisted.internet.testing import MemoryReactorClock

settings = Settings.from_mapping({{"admin": {{"enabled": True, "bind_address": "127.0.0.1:0"}}}})
server = build_service(MemoryStorage(), settings, ["tcp:0"], MemoryReactorClock())
build_resource(StreamService(MemoryStorage(), MemoryReactorClock()))
assert "twisted.internet.reactor" not in sys.modules, "when the server was made"
server.privilegedStartService()
assert "klein" in sys.modules, "Klein is imported before the first request"
"""
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False, capture_output=True, text=True
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))


def settings_file() -> ConfigParser:
    """Read setup.cfg."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def files_below(folder: Path) -> Iterator[Path]:
    """Find all files, but those that Python and Twisted leave behind."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.name != "dropin.cache":
            yield path


class PackageTests(SynchronousTestCase):
    def test_the_namespace_package_contains_only_the_server(self) -> None:
        # durable_streams/__init__.py is the official client's, which may be installed into the same environment.
        self.assertEqual(["server"], sorted(set(os.listdir(SERVER.parent)) - {"__pycache__"}))

    def test_the_distribution_adds_only_the_plugin_to_twisted(self) -> None:
        found = [path.relative_to(ROOT).as_posix() for path in files_below(ROOT / "twisted")]
        self.assertEqual(["twisted/plugins/durable_streams_server.py"], found)

    def test_the_list_of_packages_is_complete(self) -> None:
        listed = settings_file()["options"]["packages"].split()
        existing = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in SERVER.rglob("*.py")}
        self.assertEqual(sorted(existing | {"twisted.plugins"}), sorted(listed))

    def test_each_package_has_an_init_module(self) -> None:
        folders = {path.parent for path in SERVER.rglob("*.py")}
        self.assertEqual([], [str(folder) for folder in folders if not (folder / "__init__.py").is_file()])

    def test_every_file_of_the_server_is_shipped(self) -> None:
        data = {package: patterns.split() for package, patterns in settings_file()["options.package_data"].items()}
        left_out = []
        for path in files_below(SERVER):
            package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
            patterns = ["*.py", *data.get(package, [])]
            if not any(fnmatch(path.name, pattern) for pattern in patterns):
                left_out.append(str(path))
        self.assertEqual([], left_out)
        self.assertIn("py.typed", data[PACKAGE])

    def test_a_wheel_contains_the_server_the_plugin_samples_and_metadata(self) -> None:
        names = self.wheel()
        described = [name for name in names if re.match(r"durable_streams_server-[^/]+\.dist-info/", name)]
        samples = [name for name in names if re.match(r"durable_streams_server-[^/]+\.data/", name)]
        shared = "data/share/durable-streams-server/"
        self.assertEqual(
            sorted(shared + path.name for path in (ROOT / "etc").iterdir()),
            sorted(name.partition(".data/")[2] for name in samples),
        )
        shipped = sorted(set(names) - set(described) - set(samples))
        expected = [path.relative_to(ROOT).as_posix() for path in files_below(SERVER)]
        self.assertEqual(sorted([*expected, "twisted/plugins/durable_streams_server.py"]), shipped)
        self.assertTrue(any(name.endswith("/METADATA") for name in described))
        self.assertTrue(any(name.endswith("/LICENSE") for name in described))

    def wheel(self) -> list[str]:
        """Build a wheel out of a copy of the tree, and list what is in it."""
        copy, out = Path(self.mktemp()), Path(self.mktemp())
        copy.mkdir()
        for name in ("durable_streams", "etc", "twisted"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        for path in ROOT.iterdir():
            if path.is_file() and path.suffix in ("", ".cfg", ".toml", ".rst", ".in") and path.name[0] != ".":
                shutil.copy(path, copy)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries=0", "--timeout=10"]
        command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(out.absolute()), str(copy.absolute())]
        try:
            built = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        except subprocess.TimeoutExpired:
            skip_not_installed("setuptools, to build a wheel,", "pip could not download it in time")
        said = built.stdout + built.stderr
        if built.returncode and re.search(r"No matching distribution found|No module named pip|Max retries", said):
            skip_not_installed("setuptools, to build a wheel,", "pip could not download it")
        self.assertEqual(0, built.returncode, said)
        [path] = out.iterdir()
        with zipfile.ZipFile(path) as wheel:
            return wheel.namelist()


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Find the classes and functions that others may use."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name[0] != "_":
            yield node


def without_docstring(source: str, name: str) -> list[str]:
    """Return the public names of a module without a docstring."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else [name]
    return found + [f"{name}.{node.name}" for node in public_definitions(tree) if not ast.get_docstring(node)]


#: A number that only means something to who can look it up in a tracker.
_TRACKER: Final = re.compile(
    r"\bissues?[ #]+[0-9]+\b|\bgh-[0-9]+\b|\bPR ?#?[0-9]+\b|/(?:issues|pull)/[0-9]+|(?<![\w&/#\"'])#[0-9]+\b(?!-)",
    re.IGNORECASE,
)
_TEXTS: Final = frozenset(
    {"", ".c", ".cfg", ".js", ".md", ".mjs", ".py", ".rst", ".sh", ".toml", ".txt", ".yaml", ".yml"}
)
_NOT_OURS: Final = frozenset({"__pycache__", "build", "dist", "node_modules"})


def our_texts() -> Iterator[Path]:
    """Find all the texts of the tree, but those that tools have put there."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in _NOT_OURS and not name.startswith((".", "_trial_temp")) and not name.endswith(".egg-info")
        ]
        for name in names:
            if name[0] != "." and Path(name).suffix in _TEXTS:
                yield Path(folder, name)


class TextTests(SynchronousTestCase):
    def test_everything_public_has_a_docstring(self) -> None:
        missing: list[str] = []
        for module, path in modules().items():
            missing += without_docstring(path.read_text(), module)
        self.assertEqual([], missing)

    def test_public_names_without_a_docstring_are_found(self) -> None:
        source = "def f(): ...\nasync def g(): ...\nclass C: ...\ndef _own(): ...\nclass D:\n    '''Has one.'''"
        self.assertEqual(["m", "m.f", "m.g", "m.C"], without_docstring(source, "m"))

    def test_no_text_refers_to_an_issue_tracker(self) -> None:
        texts = list(our_texts())
        self.assertIn(Path(__file__).resolve(), [path.resolve() for path in texts])
        found = []
        for path in texts:
            for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
                if _TRACKER.search(line):
                    found.append(f"{path}:{number}: {line.strip()}")
        self.assertEqual([], found)

    def test_issue_numbers_are_detected_and_other_numbers_are_not(self) -> None:
        number = "12"
        for text in (f"see #{number}", f"Issue {number}", f"fixes #{number}.", f"GH-{number}", f"x/issues/{number}"):
            self.assertIsNotNone(_TRACKER.search(text), text)
        for text in ("section 5.2", "RFC 9110", "# 12 bytes", "&#39;", "'#123456'", "issue of 3", "a#1", "PRs"):
            self.assertIsNone(_TRACKER.search(text), text)
