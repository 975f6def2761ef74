"""A second reader of JSON's structure: a byte at a time, with no library's help."""

from __future__ import annotations


def split_messages(wire: bytes) -> list[bytes]:
    """Cut messages in wire form after each comma that is neither in a string nor in a container; commas stay."""
    messages: list[bytes] = []
    begin = depth = at = 0
    in_string = False
    while at < len(wire):
        byte = wire[at : at + 1]
        if in_string:
            if byte == b"\\":
                at += 1
            elif byte == b'"':
                in_string = False
        elif byte == b'"':
            in_string = True
        elif byte in (b"[", b"{"):
            depth += 1
        elif byte in (b"]", b"}"):
            depth -= 1
        elif byte == b"," and depth == 0:
            messages.append(wire[begin : at + 1])
            begin = at + 1
        at += 1
    if begin != len(wire):
        raise ValueError(wire)
    return messages
