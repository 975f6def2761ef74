"""The official conformance suite, run against real processes of this server."""
