"""The filter that chooses sockets, interpreted as the kernel does."""

from __future__ import annotations

from struct import iter_unpack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.rules import MAX_WORKERS
from durable_streams.server.listening.steering import _program

#: The longest program that the kernel accepts (BPF_MAXINSNS).
MAX_INSTRUCTIONS = 4096


def interpret(program: bytes, random: int) -> int:
    """Run a program of the classic Berkeley Packet Filter."""
    instructions = list(iter_unpack("=HBBI", program))
    value = place = 0
    while True:
        code, if_true, if_false, constant = instructions[place]
        place += 1
        if code == 0x20:
            assert constant == 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM
            value = random
        elif code == 0x94:
            value %= constant
        elif code == 0x15:
            place += if_true if value == constant else if_false
        else:
            assert code == 0x06
            return int(constant)


class ProgramTests(SynchronousTestCase):
    @given(
        st.lists(st.integers(0, MAX_WORKERS - 1), min_size=1, max_size=MAX_WORKERS, unique=True),
        st.integers(0, 2**32 - 1),
    )
    def test_each_random_number_chooses_one_of_the_sockets_and_each_is_as_likely(
        self, chosen: list[int], random: int
    ) -> None:
        self.assertEqual(interpret(_program(chosen), random), chosen[random % len(chosen)])

    def test_the_program_for_the_largest_number_of_workers_is_accepted(self) -> None:
        self.assertLess(len(_program(range(MAX_WORKERS))) // 8, MAX_INSTRUCTIONS)
