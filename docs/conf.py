"""Sphinx' settings: ``sphinx-build -W --keep-going -n docs build/docs`` builds the documentation."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Final

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
html_theme_options = {
    "description": "A Durable Streams server for Twisted",
    "page_width": "1080px",
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
