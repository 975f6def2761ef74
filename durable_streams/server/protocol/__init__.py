"""The rules of the protocol, as functions of bytes, numbers and "now". No clock, no network, no disk, no Twisted."""
