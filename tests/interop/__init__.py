"""The official clients, run against real processes of this server."""
