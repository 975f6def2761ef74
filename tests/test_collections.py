"""The garbage collector of the daemon's process."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.daemon.process import _freeze_survivors


class FreezingTests(SynchronousTestCase):
    def setUp(self) -> None:
        gc.callbacks.append(_freeze_survivors)
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.callbacks.remove, _freeze_survivors)

    def is_collected(self, kept: object) -> bool:
        """Return whether collections still visit an object."""
        return any(each is kept for each in gc.get_objects())

    def test_objects_that_survive_a_full_collection_are_not_collected(self) -> None:
        kept = [object()]
        gc.collect(1)
        self.assertTrue(self.is_collected(kept))
        gc.collect()
        self.assertFalse(self.is_collected(kept))
