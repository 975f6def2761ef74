"""A clock with the turns of a reactor."""

from __future__ import annotations

from twisted.internet.task import Clock


class Reactor(Clock):
    """A clock that goes round as a reactor does: what a call puts off until later is not done in the same turn."""

    def turn(self, seconds: float = 0) -> None:
        """Let some time go by, and go round once."""
        self.rightNow += seconds
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
