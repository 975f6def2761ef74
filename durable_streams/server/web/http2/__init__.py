"""HTTP/2 connections of the daemon, on an engine of its own."""
