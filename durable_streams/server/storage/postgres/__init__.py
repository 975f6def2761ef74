"""Streams in PostgreSQL, which any number of nodes share.

:mod:`.schema` has the tables, :mod:`.heads` the row of a stream, and :mod:`.packing` the binary form of parameters and
results.
"""
