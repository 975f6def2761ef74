"""When the supervisor replaces workers, gives up, and ends. The processes are those of a reactor in memory."""

from __future__ import annotations

import os
import signal
from typing import Any

from msgspec.structs import replace
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.sections import ObservabilitySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon import process as process_module
from durable_streams.server.daemon.logs import Logs
from durable_streams.server.daemon.workers import supervisor as supervisor_module
from durable_streams.server.daemon.workers.messages import (
    Abort,
    Assignment,
    Channel,
    Failed,
    Message,
    Ping,
    Pong,
    Reload,
    Reloaded,
    Serving,
    Stop,
    ToWorker,
    encode,
)
from durable_streams.server.daemon.workers.supervisor import (
    ABORT_TIMEOUT,
    MAX_EARLY_ENDS,
    MAX_UNANSWERED,
    PING_INTERVAL,
    RELOAD_TIMEOUT,
    STEADY_SECONDS,
    Supervisor,
)
from durable_streams.server.startup import StartupError


class Process:
    """A process that a reactor in memory has started."""

    pid = 4711

    def __init__(self, protocol: Any, arguments: list[str], environment: dict[str, str], descriptors: Any) -> None:
        self.pipes = {0: self}
        self.number = int(arguments[4])
        self.environment = environment
        self.descriptors = descriptors
        self.received: list[Message] = []
        self.killed = False
        self.protocol = protocol
        self._channel = Channel(ToWorker, self.received.append, lambda: None)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        self._channel.dataReceived(data)

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        self.killed = True

    def send(self, message: Message) -> None:
        self.protocol.childDataReceived(3, encode(message))

    def end(self, status: int = 0, number: int | None = None) -> None:
        self.pipes = {}
        clean = status == 0 and number is None
        reason: Exception = ProcessDone(0) if clean else ProcessTerminated(status or None, number, 1)
        self.protocol.processEnded(Failure(reason))


class ProcessReactor(MemoryReactorClock):
    """A reactor in memory that starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.refusal: OSError | None = None
        self.stopped = False

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> Process:
        if self.refusal is not None:
            raise self.refusal
        self.processes.append(Process(protocol, args, env, childFDs))
        return self.processes[-1]

    def callWhenRunning(self, function: Any, *arguments: Any) -> None:  # type: ignore[override]
        function(*arguments)

    def stop(self) -> None:
        self.stopped = True


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.statuses: list[int] = []
        for module in (process_module, supervisor_module):
            self.patch(module, "exit_with", self.statuses.append)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.lines: list[str] = []
        self.patch(process_module.StartupStderr, "write_line", lambda _, line: self.lines.append(line))
        self.reactor = ProcessReactor()

    def start(self, workers: int = 2) -> Supervisor:
        settings = Settings.from_mapping({"server.bind_address": "127.0.0.1:0"})
        settings = replace(settings, server=replace(settings.server, workers=workers))
        self.level = "info"
        self.supervisor = supervisor = Supervisor(settings, self.reactor, Logs(ObservabilitySettings()), self.load)
        self.addCleanup(supervisor._stderr.close)
        supervisor.privilegedStartService()
        self.addCleanup(supervisor._listeners.stop)
        supervisor.startService()
        return supervisor

    def load(self) -> Settings:
        return Settings.from_mapping({"observability.log_level": self.level})

    def serve(self, workers: int = 2) -> Supervisor:
        supervisor = self.start(workers)
        for process in self.reactor.processes:
            process.send(Serving())
        return supervisor

    def calls(self) -> list[Any]:
        """Return the delayed calls, without that of the next ping."""
        return [call for call in self.reactor.getDelayedCalls() if call.func != self.supervisor._ping]  # type: ignore[attr-defined]

    def numbers(self) -> list[int]:
        return [process.number for process in self.reactor.processes]

    # Start

    def test_each_worker_gets_its_number_the_settings_and_a_socket_of_its_own(self) -> None:
        os.environ["NOTIFY_SOCKET"] = "/none"
        self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
        self.start(3)
        self.assertEqual(self.numbers(), [1, 2, 3])
        sockets = set()
        for process in self.reactor.processes:
            (assignment,) = process.received
            assert isinstance(assignment, Assignment)
            self.assertEqual(assignment.worker, process.number)
            self.assertEqual(assignment.settings.server.workers, 3)
            (descriptor,) = assignment.sockets
            sockets.add(process.descriptors[descriptor])
            self.assertNotIn("NOTIFY_SOCKET", process.environment)
        self.assertEqual(len(sockets), 3)

    def test_an_error_of_a_start_ends_the_daemon_once(self) -> None:
        self.start()
        for process in self.reactor.processes:
            process.send(Failed("open_storage", "Cannot open it. Change it."))
            process.end(1)
        self.assertEqual(self.lines, ["[open_storage] Cannot open it. Change it."])
        self.assertTrue(self.reactor.stopped)
        self.assertIn(1, self.statuses)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_a_worker_that_ends_early_without_an_error_is_started_some_times(self) -> None:
        self.start(1)
        for number in range(1, MAX_EARLY_ENDS):
            self.reactor.processes[-1].end(number=9)
            self.reactor.advance(60)
            self.assertEqual(len(self.reactor.processes), number + 1)
        self.reactor.processes[-1].end(number=9)
        (line,) = self.lines
        self.assertIn(f"[start_server] Worker 1 has ended {MAX_EARLY_ENDS} times before all workers served", line)
        self.assertIn("killed by SIGKILL", line)
        self.assertTrue(self.reactor.stopped)

    def test_an_interpreter_that_cannot_be_run_is_an_error_of_the_start(self) -> None:
        self.reactor.refusal = OSError(13, "Permission denied")
        self.start(3)
        (line,) = self.lines
        self.assertTrue(line.startswith("[start_server] Cannot start a worker (server.workers) with /"), line)
        self.assertIn(": Permission denied. ", line)
        self.assertTrue(self.reactor.stopped)

    def test_a_process_that_cannot_be_started_counts_as_one_that_has_ended(self) -> None:
        self.serve(1)
        self.reactor.refusal = OSError(11, "Resource temporarily unavailable")
        self.reactor.processes[0].end(number=9)
        self.reactor.advance(1)
        self.reactor.refusal = None
        self.reactor.advance(60)
        self.assertEqual(self.numbers(), [1, 1])

    # Replacement

    def test_a_worker_that_ends_is_replaced_at_once(self) -> None:
        self.serve()
        self.reactor.processes[1].end(number=9)
        self.reactor.advance(0.25)
        self.assertEqual(self.numbers(), [1, 2, 2])
        self.assertFalse(self.reactor.stopped)

    def test_the_delay_grows_to_half_a_minute_until_a_worker_has_served_for_some_time(self) -> None:
        self.serve()
        delays = []
        for _ in range(12):
            self.reactor.processes[-1].end(1)
            (call,) = self.calls()
            delays.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(31)
        self.assertLess(delays[0], 0.25)
        self.assertTrue(all(29 < delay < 31 for delay in delays[-2:]), delays)
        self.assertEqual(sorted(delays[:8]), delays[:8])
        self.reactor.processes[-1].send(Serving())
        self.reactor.advance(STEADY_SECONDS)
        self.reactor.processes[-1].end(1)
        (call,) = self.calls()
        self.assertLess(call.getTime() - self.reactor.seconds(), 0.25)

    def test_an_error_of_a_replacement_does_not_end_the_daemon(self) -> None:
        self.serve()
        self.reactor.processes[1].end(number=9)
        self.reactor.advance(1)
        self.reactor.processes[2].send(Failed("validate_config", "A file is missing."))
        self.reactor.processes[2].end(1)
        self.reactor.advance(60)
        self.assertEqual(self.numbers(), [1, 2, 2, 2])
        self.assertFalse(self.reactor.stopped)
        self.assertEqual(self.lines, [])

    def test_a_worker_that_does_not_answer_is_killed_and_replaced(self) -> None:
        self.serve()
        one, other = self.reactor.processes
        for _ in range(MAX_UNANSWERED):
            self.reactor.advance(PING_INTERVAL)
            other.send(Pong())
        self.assertEqual([one.received[1:], one.killed], [[Ping()] * MAX_UNANSWERED, False])
        self.reactor.advance(PING_INTERVAL)
        self.assertEqual([one.killed, other.killed], [True, False])
        one.end(number=9)
        self.reactor.advance(1)
        self.assertEqual(self.numbers(), [1, 2, 1])

    def test_a_late_answer_is_an_answer(self) -> None:
        self.serve(1)
        (process,) = self.reactor.processes
        for _ in range(3 * MAX_UNANSWERED):
            for _ in range(MAX_UNANSWERED):
                self.reactor.advance(PING_INTERVAL)
            process.send(Pong())
        self.assertFalse(process.killed)

    def test_a_worker_that_does_not_serve_yet_is_not_pinged(self) -> None:
        self.serve()
        self.reactor.processes[1].end(number=9)
        self.reactor.advance(1)
        self.reactor.advance(PING_INTERVAL)
        self.assertEqual(len(self.reactor.processes[2].received), 1)
        self.reactor.processes[2].send(Serving())
        self.reactor.advance(PING_INTERVAL)
        self.assertEqual(self.reactor.processes[2].received[1:], [Ping()])

    def test_a_message_that_is_not_valid_kills_the_process(self) -> None:
        self.serve()
        self.reactor.processes[0].protocol.childDataReceived(3, b"\0\0\0\x02{}")
        self.assertEqual([process.killed for process in self.reactor.processes], [True, False])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    # Reload

    def test_a_reload_is_sent_to_all_workers_and_remembered_for_later_ones(self) -> None:
        supervisor = self.serve()
        self.level = "error"
        supervisor._reload()
        for process in self.reactor.processes:
            self.assertEqual(process.received[1:], [Reload("error", True)])
            process.send(Reloaded())
        self.assertEqual(self.calls(), [])
        self.reactor.processes[0].end(number=9)
        self.reactor.advance(1)
        (assignment,) = self.reactor.processes[2].received
        assert isinstance(assignment, Assignment)
        self.assertEqual(assignment.log_level, "error")

    def test_settings_that_are_not_valid_are_not_sent(self) -> None:
        supervisor = self.serve()

        def refuse() -> Settings:
            raise StartupError("validate_config", "It is wrong.")

        supervisor._load_settings = refuse
        supervisor._reload()
        for process in self.reactor.processes:
            self.assertEqual(process.received[1:], [Reload(None, True)])

    def test_a_reload_does_not_wait_for_ever(self) -> None:
        supervisor = self.serve()
        supervisor._reload()
        self.reactor.processes[0].send(Reloaded())
        self.reactor.advance(RELOAD_TIMEOUT)
        self.assertEqual(self.calls(), [])
        supervisor._reload()
        for process in self.reactor.processes:
            process.send(Reloaded())
        self.assertEqual(self.calls(), [])

    # Stop

    def test_a_stop_waits_for_all_workers(self) -> None:
        supervisor = self.serve()
        stopped = supervisor.stopService()
        for process in self.reactor.processes:
            self.assertEqual(process.received[-1], Stop())
            self.assertNoResult(stopped)
            process.end()
        self.successResultOf(stopped)
        self.assertEqual(self.statuses, [])
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_a_worker_that_fails_to_stop_makes_the_status_1(self) -> None:
        supervisor = self.serve()
        stopped = supervisor.stopService()
        self.reactor.processes[0].end(1)
        self.reactor.processes[1].end()
        self.successResultOf(stopped)
        self.assertEqual(self.statuses, [1])

    def test_sigterm_of_a_process_that_starts_is_no_failure(self) -> None:
        supervisor = self.start()
        stopped = supervisor.stopService()
        for process in self.reactor.processes:
            process.end(number=signal.SIGTERM)
        self.successResultOf(stopped)
        self.assertEqual(self.statuses, [])

    def test_a_stop_cancels_the_start_of_replacements(self) -> None:
        supervisor = self.serve()
        self.reactor.processes[0].end(number=9)
        stopped = supervisor.stopService()
        self.reactor.processes[1].end()
        self.successResultOf(stopped)
        self.assertEqual(self.calls(), [])

    def test_a_second_signal_aborts_and_kills_what_does_not_end(self) -> None:
        supervisor = self.serve()
        supervisor._end(0)
        self.assertTrue(self.reactor.stopped)
        stopped = supervisor.stopService()
        supervisor._end(0)
        for process in self.reactor.processes:
            self.assertEqual(process.received[-1], Abort())
        self.reactor.processes[0].end()
        self.reactor.advance(ABORT_TIMEOUT)
        self.assertEqual([process.killed for process in self.reactor.processes], [False, True])
        self.reactor.processes[1].end(number=9)
        self.successResultOf(stopped)
