"""
Sphinx extension: links between files of the repository.

The pages link to each other by path, so that they can be read on a code host. In a build, a link to a page becomes a
link to its HTML page, and a link to another file of the repository a download. A link to a file that does not exist is
a warning.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

_LOG = logging.getLogger(__name__)

#: Pages outside ``docs``, each with the page of the build that includes it.
_INCLUDED = {
    "CONTRIBUTING.rst": "contributing",
    "NEWS.rst": "news",
    "README.rst": "readme",
    "benchmarks/README.rst": "benchmarks",
}


class RepositoryLinks(SphinxTransform):
    """Replaces the links of a page that are paths."""

    # After docutils has resolved references (640), and before the collectors of Sphinx see the document.
    default_priority = 700

    def apply(self, **options: Any) -> None:
        """Replace the links of the document that is being read."""
        for node in list(self.document.findall(nodes.reference)):
            target = node.get("refuri", "")
            if target and "://" not in target and not target.startswith(("#", "mailto:")):
                self._replace(node, target)

    def _replace(self, node: nodes.reference, target: str) -> None:
        """Replace a link to a path, which is relative to the file in which the link is, also if that is included."""
        docs = Path(self.app.srcdir)
        path = (self._file_of(node).parent / target).resolve()
        if not path.exists():
            _LOG.warning("the linked file %s does not exist", target, location=node)
            return
        name = path.relative_to(docs.parent).as_posix()
        page = _INCLUDED.get(name) or (_page_of(path, docs) if path.suffix == ".rst" else None)
        # A link whose text is a path gets the title of the page.
        options = {"refdoc": self.env.docname, "refexplicit": not node.astext().endswith(".rst")}
        replacement: nodes.Element
        if page is not None:
            replacement = addnodes.pending_xref("", refdomain="std", reftype="doc", reftarget=f"/{page}", **options)
        elif path.is_dir():
            node.replace_self(nodes.literal("", name))
            return
        else:
            inside = "/" + os.path.relpath(path, docs)
            replacement = addnodes.download_reference("", reftarget=inside, refdomain="", reftype="download", **options)
        replacement.source, replacement.line = node.source, node.line
        replacement += nodes.inline("", node.astext())
        node.replace_self(replacement)

    def _file_of(self, node: nodes.Node) -> Path:
        """Return the file in which a node is: that of its nearest ancestor that knows it."""
        found: nodes.Node | None = node
        while found is not None:
            if found.source and Path(found.source).is_file():
                return Path(found.source)
            found = found.parent
        return Path(self.env.doc2path(self.env.docname))


def _page_of(path: Path, docs: Path) -> str:
    """Return the name of a page in ``docs``."""
    return path.relative_to(docs).with_suffix("").as_posix()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_transform(RepositoryLinks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
