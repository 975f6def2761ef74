"""Tests of :class:`.MemoryServer`, and of its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import treq
from twisted.internet import error, reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from durable_streams.server.config.sections import HttpSettings, LimitSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.testing import MemoryServer


class MemoryServerTests(TestCase):
    def request(self, method: str, url: str, body: bytes | None = None) -> Deferred[Any]:
        headers = Headers({"content-type": ["text/plain"]})
        return treq.request(method, url, headers=headers, data=body, agent=Agent(reactor))

    async def ask(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        response = await self.request(method, url, body)
        return response.code, await response.content()

    async def test_a_memory_server_serves_streams(self) -> None:
        async with MemoryServer() as server:
            self.assertEqual((await self.ask("PUT", f"{server.url}/greetings", b"hello"))[0], 201)
            self.assertEqual((await self.ask("POST", f"{server.url}/greetings", b" world"))[0], 204)
            self.assertEqual(await self.ask("GET", f"{server.url}/greetings"), (200, b"hello world"))

    async def test_the_service_reads_data_that_a_client_has_written(self) -> None:
        async with MemoryServer() as server:
            await self.ask("PUT", f"{server.url}/greetings", b"hello")
            self.assertEqual((await server.streams.read("greetings")).data, b"hello")

    async def test_a_client_reads_data_that_the_service_has_written(self) -> None:
        async with MemoryServer() as server:
            await server.streams.create("greetings", "text/plain", b"hello")
            await server.streams.append("greetings", b" world")
            self.assertEqual(await self.ask("GET", f"{server.url}/greetings"), (200, b"hello world"))

    async def test_treq_with_its_default_pool_leaves_the_reactor_clean(self) -> None:
        # With treq's own pool, which keeps connections that a server leaves open; trial fails on what it leaves behind.
        for _ in range(3):
            async with MemoryServer() as server:
                response = await treq.put(f"{server.url}/greetings", b"hello")
                self.assertEqual(response.code, 201)
                self.assertEqual(await (await treq.get(f"{server.url}/greetings")).content(), b"hello")
                await treq.get(f"{server.url}/greetings?offset=-1&live=sse", unbuffered=True)

    async def test_two_memory_servers_share_no_streams(self) -> None:
        async with MemoryServer() as one, MemoryServer() as other:
            self.assertNotEqual(one.url, other.url)
            await self.ask("PUT", f"{one.url}/greetings", b"hello")
            self.assertEqual((await self.ask("GET", f"{other.url}/greetings"))[0], 404)

    async def test_a_memory_server_accepts_settings(self) -> None:
        limits = LimitSettings(max_request_body_bytes=10)
        async with MemoryServer(Settings(limits=limits, http=HttpSettings(stream_base_path="/logs"))) as server:
            self.assertTrue(server.url.endswith("/logs"), server.url)
            self.assertEqual((await self.ask("PUT", f"{server.url}/greetings", b"hello"))[0], 201)
            self.assertEqual((await self.ask("POST", f"{server.url}/greetings", b"x" * 11))[0], 413)

    async def test_a_memory_server_can_serve_streams_at_the_root(self) -> None:
        async with MemoryServer(Settings(http=HttpSettings(stream_base_path="/"))) as server:
            self.assertEqual((await self.ask("PUT", f"{server.url}/greetings", b"hello"))[0], 201)

    async def test_a_stopped_memory_server_does_not_listen(self) -> None:
        server = MemoryServer()
        await server.start()
        url = server.url
        await server.stop()
        await self.assertFailure(self.request("GET", f"{url}/greetings"), error.ConnectionRefusedError)

    async def test_a_stop_answers_waiting_readers(self) -> None:
        server = MemoryServer()
        await server.start()
        await self.ask("PUT", f"{server.url}/greetings", b"hello")
        waiting = self.request("GET", f"{server.url}/greetings?offset=now&live=long-poll")
        while not list(server.streams.streams._waiting.watched()):
            await self.ask("GET", f"{server.url}/greetings")
        await server.stop()
        response = await waiting
        self.assertEqual((response.code, await response.content()), (204, b""))

    async def test_a_restarted_memory_server_is_empty(self) -> None:
        server = MemoryServer()
        for _ in range(2):
            await server.start()
            self.assertEqual((await self.ask("PUT", f"{server.url}/greetings", b"hello"))[0], 201)
            await server.stop()

    async def test_starting_a_running_memory_server_is_an_error(self) -> None:
        async with MemoryServer() as server:
            with self.assertRaises(RuntimeError):
                await server.start()

    async def test_url_and_streams_of_a_stopped_memory_server_are_errors(self) -> None:
        server = MemoryServer()
        self.assertRaises(RuntimeError, lambda: server.url)
        self.assertRaises(RuntimeError, lambda: server.streams)
        with self.assertRaises(RuntimeError):
            await server.stop()


class ImportTests(SynchronousTestCase):
    def run_python(self, program: str) -> str:
        checkout = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": checkout},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout.strip() or done.stderr

    def test_memory_server_can_be_imported_without_hypothesis(self) -> None:
        program = """
import sys
sys.modules["hypothesis"] = None
from durable_streams.server.testing import MemoryServer, StorageContract, storage_machine
try:
    storage_machine(None)
except ImportError as error:
    print(error.name)
"""
        self.assertEqual(self.run_python(program), "hypothesis")

    def test_importing_memory_server_does_not_install_a_reactor(self) -> None:
        program = """
import sys
import durable_streams.server.testing
print("twisted.internet.reactor" in sys.modules, "hypothesis" in sys.modules, "twisted.trial" in sys.modules)
"""
        self.assertEqual(self.run_python(program), "False False False")

    def test_importing_the_contract_does_not_run_its_tests(self) -> None:
        program = """
from twisted.trial.runner import TestLoader
import durable_streams.server.testing
print(TestLoader().loadModule(durable_streams.server.testing).countTestCases())
"""
        self.assertEqual(self.run_python(program), "0")
