"""The tests of the server; they mirror its packages."""

import signal
from contextlib import suppress

# Programs in the environments of the official clients are in this package too: they run without hypothesis.
with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # How fast examples are generated depends on the machine, and no test asserts its speed.
    settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any-machine")

# A shell without job control, such as a script, starts its jobs in the background with SIGINT ignored, and processes
# inherit that. Tests send SIGINT to the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
