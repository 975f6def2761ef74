"""All pages for operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...operations import Operations
from ..app import Routes
from .counts import add_counts
from .details import add_details
from .exports import Exports
from .imports import Imports
from .listing import add_list


def add_admin_pages(
    app: Routes, base_path: str, operations: Operations, connections: Callable[[], int | None], reactor: Any
) -> None:
    """
    Add the pages for operators. They are protected by an :class:`.AdminGuard` of the same base path.

    :param base_path: the path above them.
    :param connections: returns how many connections there are; None if that is not known.
    :param reactor: runs the threads of exports and imports.
    """
    streams, live = operations.streams, operations.live
    add_list(app, base_path, streams)
    add_details(app, base_path, streams, live, operations.settings.names)
    add_counts(app, base_path, streams, live, connections)
    Exports(streams, reactor).add(app, base_path)
    Imports(streams, operations.settings, reactor).add(app, base_path)
