"""Streams in files: one journal for all, synced once for all that come together, and files that it is emptied into.

The way of a change: :mod:`.storage` accepts it, :mod:`.journal` writes it (in :mod:`.frames`), :mod:`.moving` brings
its bytes to their :mod:`.places` and writes a :mod:`.checkpoint`, after which the journal is cut. :mod:`.opening` takes
up what is there, by what :mod:`.recovery` reads. ``docs/file-format.rst`` says what every file looks like.
"""

from .storage import FileSettings, FileStorage

__all__ = ["FileSettings", "FileStorage"]
