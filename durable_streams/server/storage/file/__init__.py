"""Streams in files: a journal that all streams share, with group commit, and files that checkpoints move bytes to.

The path of a change: :mod:`.storage` accepts it, :mod:`.journal` writes it (in :mod:`.frames`), :mod:`.checkpointer`
moves its bytes to their :mod:`.places` and writes a :mod:`.checkpoint`, after which the journal is cut. :mod:`.content`
reads bytes that have left memory. :mod:`.opening` loads a data directory and :mod:`.checking` checks one; both read it
with :mod:`.checkpoint_reader`, :mod:`.journal_reader` and :mod:`.rebuilding`. ``docs/file-format.rst`` describes every
file.
"""

from .settings import FileSettings
from .storage import FileStorage

__all__ = ["FileSettings", "FileStorage"]
