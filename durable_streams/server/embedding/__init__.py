"""Streams in another Twisted program: a service for Python code, a resource for a Site, and a whole server."""

from .access import build_access_control
from .readings import Reading
from .receivers import PendingStream, Work
from .service import StreamService
from .serving import DEFAULT_STREAM_BASE_PATH, StreamServer, build_admin_resource, build_resource, build_service
from .subscriptions import Subscriptions
from .tail import Tail
from .writing import StreamWriter

__all__ = [
    "DEFAULT_STREAM_BASE_PATH",
    "PendingStream",
    "Reading",
    "StreamServer",
    "StreamService",
    "StreamWriter",
    "Subscriptions",
    "Tail",
    "Work",
    "build_access_control",
    "build_admin_resource",
    "build_resource",
    "build_service",
]
