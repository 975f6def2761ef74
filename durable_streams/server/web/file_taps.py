"""The sink of a body that passes on what another body sends, where the front can send from files."""

from __future__ import annotations

from collections.abc import Callable

from ..model import FileRange
from .answers import FileSink, Sink


class FileTap:
    """
    Passes on what is sent from files to the sink of a front, and everything else to a body that stands before it.

    :param body: the sink of everything else.
    :param sink: the front's.
    :param count: is called with the number of bytes that were sent from a file.
    """

    __slots__ = ("_count", "_sink", "abort", "finish", "write")

    def __init__(self, body: Sink, sink: FileSink, count: Callable[[int], None]) -> None:
        self._sink = sink
        self._count = count
        self.write = body.write
        self.finish = body.finish
        self.abort = body.abort

    def send_file(self, part: FileRange) -> int:
        """
        Send bytes of a file.

        :returns: how many were sent.
        """
        sent = self._sink.send_file(part)
        if sent:
            self._count(sent)
        return sent
