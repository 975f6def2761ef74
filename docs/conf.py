"""Sphinx' settings: ``sphinx-build -W --keep-going -n docs build/docs`` builds the documentation."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE / "_extensions")]

_metadata = ConfigParser()
_metadata.read(_HERE.parent / "setup.cfg")

project = "durable-streams-server"
version = release = _metadata["metadata"]["version"]
# The licence is Apache 2.0; the footer says nothing about copyright.
html_show_copyright = False

extensions = ["sphinx.ext.autodoc", "interface_reference", "repository_links"]
exclude_patterns = ["examples"]
# The theme comes with Sphinx, so the build needs no other package and no network.
html_theme = "alabaster"
html_static_path = ["_static"]
html_theme_options = {
    "description": "A Durable Streams server for Twisted",
    "page_width": "1200px",
    "body_max_width": "none",
    "sidebar_width": "260px",
    "fixed_sidebar": True,
    "show_related": True,
}
# Blocks are commands, answers and files of several languages: none is highlighted unless it says so.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": False}
# Types of other packages have no page to link to, nor have those of modules that are not public: annotations have such.
nitpick_ignore_regex = [(r"py:.*", r"(?!durable_streams|\.).*"), (r"py:class", r"durable_streams\.server\.[a-z_]+\..*")]


def _skip_field(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """
    Leave out the fields of structs, which are in the signature and in the docstring.

    As entries of their own they would be targets: a field called ``bytes`` would be where every ``bytes`` links to.
    """
    # In place of the value of a slot, autodoc has a mark, in Sphinx 9 of a class of its own.
    is_slot = type(obj) is object or type(obj).__module__.startswith("sphinx.")
    return True if what == "class" and is_slot else None


def setup(app: Any) -> None:
    """Connect what the settings cannot express."""
    app.connect("autodoc-skip-member", _skip_field)
