"""A Clock that runs calls in turns, as a reactor does."""

from __future__ import annotations

from twisted.internet.task import Clock


class Reactor(Clock):
    """A Clock with turns: a call that is scheduled during a turn runs in a later one."""

    def turn(self, seconds: float = 0) -> None:
        """Advance the time and run one turn."""
        self.rightNow += seconds
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
