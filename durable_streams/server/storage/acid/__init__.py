"""Streams in SQLite.

:mod:`.schema` lays out the tables, :mod:`.transactions` puts changes into them, :mod:`.storage` is the provider, and
:mod:`.checking` looks whether all is as it should be. ``docs/acid-format.rst`` describes the tables.
"""

from .storage import AcidStorage

__all__ = ["AcidStorage"]
