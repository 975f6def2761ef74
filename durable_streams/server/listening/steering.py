"""Selection of the sockets of one TCP port that get new connections, by a filter in the kernel (Linux 4.6 and later).

Without it, the kernel also puts connections into the queue of a socket whose process has ended, where they wait until
another process accepts. The filter chooses at random among the sockets of the processes that serve.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Sequence
from struct import pack
from typing import Final

#: From <linux/socket.h>; the module ``socket`` does not have it.
SO_ATTACH_REUSEPORT_CBPF: Final = 51

# Instructions of the classic Berkeley Packet Filter, from <linux/filter.h>.
_LOAD: Final = 0x20
_MODULO: Final = 0x94
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
#: A pseudo-address of the packet at which there is a random number.
_RANDOM: Final = 0xFFFFF000 + 56


def steer(descriptor: int, chosen: Sequence[int]) -> None:
    """
    Give new connections to some of the sockets that are bound to one port with SO_REUSEPORT.

    :param descriptor: one of the sockets; all listen.
    :param chosen: the indexes of the sockets, in the order in which they began to listen; at least one.
    :raises OSError: the system has no such filter.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
    program = _program(chosen)
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and their address.
    filter_of_port = pack("HP", len(program) // 8, ctypes.addressof(instructions))
    with socket.socket(fileno=os.dup(descriptor)) as one:
        one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter_of_port)


def _program(chosen: Sequence[int]) -> bytes:
    """Return a filter that returns one of some numbers at random."""
    *others, last = chosen
    instructions = [(_LOAD, 0, 0, _RANDOM), (_MODULO, 0, 0, len(chosen))]
    for number, index in enumerate(others):
        # Otherwise skip one instruction.
        instructions += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, index)]
    instructions.append((_RETURN, 0, 0, last))
    return b"".join(pack("=HBBI", *instruction) for instruction in instructions)
