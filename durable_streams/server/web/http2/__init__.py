"""HTTP/2 connections of the daemon, on the h2 library."""
