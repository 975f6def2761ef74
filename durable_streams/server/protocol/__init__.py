"""The protocol's rules as pure functions of bytes, numbers and the time: no clock, network, disk or Twisted."""
