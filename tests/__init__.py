"""The tests of the server; they mirror its packages."""

from hypothesis import HealthCheck, settings

# How fast examples are generated depends on the machine, and no test asserts its speed.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
