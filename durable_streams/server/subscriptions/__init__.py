"""Subscriptions: durable cursors over streams that wake workers (PROTOCOL sections 6 and 7).

:mod:`.machine` decides what happens to one subscription; it is pure. :mod:`.model` has its values, :mod:`.records`
    their stored form, :mod:`.patterns` the patterns of names and their index.
"""
