"""Streams in PostgreSQL, which any number of nodes share.

:mod:`.schema` has the tables, :mod:`.heads` the row of a stream, and :mod:`.packing` the binary form of parameters and
results. :mod:`.connection` drives libpq by the reactor, :mod:`.pool` shares connections among readers, and
:mod:`.fence` gives each commit a certain outcome. :mod:`.storage` is the provider.
"""
