"""The table of undocumented library parts agrees with the installed libraries, setup.cfg and the server's code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import twisted.web
from hpack import huffman_table
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Port, Server
from twisted.internet.testing import StringTransport
from twisted.internet.unix import Port as UNIXPort
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from durable_streams.server.library_internals import INTERNALS
from tests.support.tls import over_tls

ROOT: Final = Path(__file__).resolve().parent.parent
SERVER: Final = ROOT / "durable_streams" / "server"

#: Private names of the standard library.
_STANDARD: Final = frozenset({"_exit"})

#: The name of the distribution that an owner's module belongs to.
_DISTRIBUTIONS: Final = {"twisted": "Twisted[tls]", "hpack": "hpack"}


def instances() -> dict[str, object]:
    """Return modules, and an object of each class whose attributes are set by ``__init__`` or later."""
    protocol = over_tls(Factory.forProtocol(Protocol), Clock()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert isinstance(protocol, TLSMemoryBIOProtocol)
    protocol.makeConnection(StringTransport())
    server = Server.__new__(Server)
    # Server.__init__ needs a socket for the rest.
    FileDescriptor.__init__(server, Clock())
    return {
        "twisted.internet.tcp.Port": Port(0, Factory()),
        "twisted.internet.unix.Port": UNIXPort("unused", Factory()),
        "twisted.internet.tcp.Server": server,
        "twisted.internet.epollreactor.EPollReactor": EPollReactor,
        "twisted.protocols.tls.TLSMemoryBIOProtocol": protocol,
        "twisted.internet.base.DelayedCall": DelayedCall(0, print, (), {}, id, id, lambda: 0.0),
        "twisted.web.server.Request": Request(DummyChannel(), False),
        "hpack.huffman_table": huffman_table,
    }


def shape_of(value: object) -> tuple[str, ...] | str:
    """Describe a method by its parameters and any other value by the name of its type."""
    if inspect.isfunction(value) or inspect.ismethod(value) or inspect.isbuiltin(value):
        try:
            parameters = inspect.signature(value).parameters
        except ValueError:
            return ()
        return tuple(name for name in parameters if name not in ("self", "cls"))
    return type(value).__name__


def private_names(tree: ast.Module) -> Iterator[str]:
    """Find the private attributes that are used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node.attr
        # getattr(value, "_name", default)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from (
                each.value
                for each in node.args
                if isinstance(each, ast.Constant)
                and isinstance(each.value, str)
                and each.value.startswith("_")
                and not each.value.startswith("__")
            )


def own_names(tree: ast.Module) -> Iterator[str]:
    """Find the names that are defined: functions, classes, variables and attributes that are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        # An assignment to another object's attribute defines nothing.
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


class ShapeTests(SynchronousTestCase):
    def test_each_internal_exists_in_the_installed_library_and_has_the_expected_shape(self) -> None:
        objects = instances()
        for internal in INTERNALS:
            if internal.owner not in objects:
                continue
            found = objects[internal.owner]
            owner = found if isinstance(found, type) else type(found)
            value = inspect.getattr_static(owner, internal.name, None)
            shape = "property" if isinstance(value, property) else shape_of(getattr(found, internal.name))
            self.assertEqual(internal.shape, shape, f"{internal.owner}.{internal.name}")

    def test_a_stream_of_twisted_web_has_its_connection_as_conn(self) -> None:
        # Read, not imported: the module needs a library that nothing else does.
        source = (Path(str(twisted.web.__file__)).parent / "_http2.py").read_text()
        self.assertIn("self._conn = connection", source.partition("class H2Stream")[2])

    def test_every_owner_is_checked(self) -> None:
        owners = {internal.owner for internal in INTERNALS}
        self.assertEqual({"twisted.web._http2.H2Stream"}, owners - instances().keys())

    def test_each_owner_is_a_class_or_module_of_a_library_with_an_upper_bound(self) -> None:
        parser = ConfigParser()
        parser.read(ROOT / "setup.cfg")
        required = dict(line.split(">=") for line in parser["options"]["install_requires"].split("\n") if ">=" in line)
        for internal in INTERNALS:
            module, _, name = internal.owner.rpartition(".")
            self.assertIn(",<", required[_DISTRIBUTIONS[module.partition(".")[0]]])
            if internal.owner != "twisted.web._http2.H2Stream":
                self.assertIsInstance(getattr(import_module(module), name), (type, ModuleType))


class UseTests(SynchronousTestCase):
    def test_each_private_name_in_the_code_that_is_not_its_own_is_in_the_table(self) -> None:
        trees = {path: ast.parse(path.read_text()) for path in SERVER.rglob("*.py")}
        own = {name for tree in trees.values() for name in own_names(tree)} | _STANDARD
        listed = {(internal.used_by, internal.name) for internal in INTERNALS}
        for path, tree in trees.items():
            module = ".".join(path.relative_to(SERVER).with_suffix("").parts)
            for name in set(private_names(tree)) - own:
                self.assertIn((module, name), listed)

    def test_no_private_module_of_a_library_is_imported(self) -> None:
        for path in SERVER.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [str(node.module)]
                for name in names:
                    self.assertNotRegex(name, r"(^|\.)_[a-z]", str(path))

    def test_each_module_of_the_table_uses_the_name(self) -> None:
        for internal in INTERNALS:
            source = SERVER.joinpath(*internal.used_by.split(".")).with_suffix(".py").read_text()
            name = "DelayedCall(" if internal.name == "__init__" else internal.name
            self.assertIn(name, source, internal.used_by)

    def test_a_private_name_is_found_as_an_attribute_and_in_getattr(self) -> None:
        tree = ast.parse("a._b + getattr(c, '_d', None) + self.__e")
        self.assertEqual(["_b", "_d"], sorted(private_names(tree)))
