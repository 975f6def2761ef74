"""A Durable Streams server for Twisted.

The map, in the order in which an append goes through it:

- :mod:`.web.channel` (or :mod:`.web.resource`, inside another Site) frames HTTP,
- :mod:`.web.requests` reads it, :mod:`.web.operations` calls the service, :mod:`.web.answers` writes the answer,
- :mod:`.streams` is that service, for callers in Python as well,
- :mod:`.storage` keeps streams by the rules of :mod:`.protocol`,
- :mod:`.waiting` wakes who waits, and :mod:`.web.live` reads on for them.

:mod:`.model` has the values that pass between these, :mod:`.interfaces` the contracts, :mod:`.errors` what can go
wrong. :mod:`.service` puts it all together.
"""
