"""Sphinx extension: ``autointerface`` documents a zope interface from its docstrings, as ``autoclass`` does a class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles
from zope.interface.interface import InterfaceClass, Method

#: An interface in a signature, as its ``repr``.
_INTERFACE = re.compile(r"<InterfaceClass (?:[A-Za-z_]+\.)*([A-Za-z_]+)>")


class AutoInterface(SphinxDirective):
    """Documents the interface of the argument, ``PACKAGE.NAME``, with its methods and attributes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Render the interface as reStructuredText, and parse that."""
        module, _, name = self.arguments[0].rpartition(".")
        interface = getattr(import_module(module), name)
        source = f"docstring of {self.arguments[0]}"
        holder = nodes.container()
        nested_parse_with_titles(self.state, StringList(list(_lines(module, interface)), source=source), holder)
        return holder.children


def _lines(module: str, interface: InterfaceClass) -> Iterator[str]:
    """Render an interface."""
    canonical = f"{interface.__module__}.{interface.getName()}"
    yield from (f".. py:class:: {module}.{interface.getName()}", f"   :canonical: {canonical}", "")
    yield from _indented(interface.getDoc(), 3)
    for name in interface.names():
        member = interface.direct(name)
        if isinstance(member, Method):
            kind, title = "method", f"{name}{member.getSignatureString()}"
        else:
            kind, title = "attribute", name
        yield from (f"   .. py:{kind}:: {title}", "")
        yield from _indented(member.getDoc(), 6)


def _indented(text: str, width: int) -> Iterator[str]:
    """Indent a docstring."""
    for line in cleandoc(text).splitlines():
        yield " " * width + line if line else ""
    yield ""


def _shorten(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Write interfaces in signatures by their names."""
    shown = [None if text is None else _INTERFACE.sub(r"\1", text) for text in (signature, result)]
    return shown[0], shown[1]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("autointerface", AutoInterface)
    app.connect("autodoc-process-signature", _shorten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
