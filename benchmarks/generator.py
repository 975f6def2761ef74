"""Build and run the load generator, ``load.c``, on its own core."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

SOURCE = Path(__file__).with_name("load.c")
HOST = "127.0.0.1"

#: The result of a sub-command: numbers by name. See ``load.c``.
Result = dict[str, float]

#: The value of an option of the generator.
Option = str | float | Path


class GeneratorFailed(Exception):
    """The generator failed or timed out; the message is its output."""


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """
    Pin this process, and the processes that it starts meanwhile, to one core.

    :param core: the core's number. One that this process may not use leaves it where it is.
    """
    before = os.sched_getaffinity(0)
    if core in before:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def build(folder: Path) -> Path:
    """
    Compile the generator if its source has changed.

    :param folder: where the program is put.
    :returns: the program.
    :raises subprocess.CalledProcessError: it does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "load"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-std=c11", "-Wall", "-Wextra", "-o", program, SOURCE], check=True)
    return program


def tally(file: Path) -> list[tuple[int, int]]:
    """
    Read the file that the generator's option ``tally`` wrote.

    :param file: the file.
    :returns: for each stream, how many appends were acknowledged, or found; and how many were not, or whether anything
        else was found.
    """
    lines = file.read_text(encoding="ascii").splitlines()
    return [(int(good), int(bad)) for good, bad in map(str.split, lines)]


@dataclass(frozen=True)
class Generator:
    """
    The compiled generator.

    :param program: the program, from :func:`build`.
    :param core: the core that it runs on.
    """

    program: Path
    core: int

    def run(
        self,
        command: str,
        port: int,
        path: str,
        *numbers: float,
        timeout: float = 120,
        **options: Option,
    ) -> Result:
        """
        Run a sub-command to its end.

        :param command: the sub-command, such as ``append``.
        :param port: the server's port on the loopback interface.
        :param path: the stream's path; ``{n}`` in it stands for the number of a stream.
        :param numbers: the sub-command's numbers, in order.
        :param timeout: seconds after which it is given up.
        :param options: the generator's options by name, such as ``streams=64``.
        :returns: the result that it prints.
        :raises GeneratorFailed: it gave up, or took too long.
        """
        with self.start(command, port, path, *numbers, **options) as running:
            return running.finish(timeout)

    @contextlib.contextmanager
    def start(
        self, command: str, port: int, path: str, *numbers: float, **options: Option
    ) -> "Iterator[RunningGenerator]":
        """
        Start a sub-command with the arguments of :meth:`run`. The end of the block kills it if it still runs.

        :returns: the running generator.
        """
        words = [str(self.program), command, HOST, str(port), path]
        words += [format(number, ".12g") for number in numbers]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        with pinned(self.core):
            running = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        try:
            yield RunningGenerator(running)
        finally:
            running.kill()
            running.communicate()


class RunningGenerator:
    """A running sub-command."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running
        self._stdin = cast(IO[str], running.stdin)
        self._stdout = cast(IO[str], running.stdout)

    def announcement(self) -> Result:
        """
        Wait for the line that ``idle`` and ``stall`` print when their tails are open.

        :returns: that line.
        :raises GeneratorFailed: it ended instead.
        """
        line = self._stdout.readline()
        if not line:
            self.finish(10)
            raise GeneratorFailed("it ended without a word")
        return cast(Result, json.loads(line))

    def tell(self, line: str) -> None:
        """
        Write a line to its stdin.

        :param line: the line, without its end.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended; finish() says why
            self._stdin.write(line + "\n")
            self._stdin.flush()

    def finish(self, timeout: float) -> Result:
        """
        Close its stdin and wait for its end.

        :param timeout: seconds after which it is given up.
        :returns: the result, its last line.
        :raises GeneratorFailed: it gave up, or took too long.
        """
        try:
            output, complaint = self._running.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise GeneratorFailed(f"no result within {timeout:g} seconds") from None
        if self._running.returncode != 0 or not output.strip():
            raise GeneratorFailed(complaint.strip() or f"exit status {self._running.returncode}")
        return cast(Result, json.loads(output.splitlines()[-1]))
