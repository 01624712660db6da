"""A MongoDB for the tests: a real server when MOONXD_TEST_MONGODB_URL names one, else SecantusDB, which speaks its
protocol, as a process of its own. (It is GPL: run like any other server, never imported, never shipped.)

Fixtures: `mongo_uri` (an empty database, dropped afterwards), `start_mongo` (a factory of servers of our own, for tests
that kill them), `mongo_client` (pymongo, synchronous, to look at what was written).
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.services import free_port, have, missing
from tests.services.redis import die_with_parent

URL_VARIABLE = "MOONXD_TEST_MONGODB_URL"
_READY_WITHIN_S = 30.0
#: pymongo's own tasks of a client that a test looks with must not wait for a server that was killed.
_SHORT = {"serverSelectionTimeoutMS": 2_000, "connectTimeoutMS": 2_000, "socketTimeoutMS": 10_000}


class MongoServer:
    """One SecantusDB in `folder`, always on the same port of 127.0.0.1. Started by the constructor."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._binary = Path(sys.executable).with_name("secantusd-py")
        if not self._binary.exists():
            missing("mongodb", f"no secantusd-py beside {sys.executable} (make setup), and no {URL_VARIABLE}")
        self._folder = folder
        self._arguments = arguments
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"127.0.0.1:{self._port}"
        self.log = folder / "server.log"
        self.start()

    def uri(self, database: str = "moonxd_test") -> str:
        return f"mongodb://{self.host}/{database}"

    def start(self, *arguments: str) -> None:
        """Start (again, on the same data) and block until it answers."""
        line = [str(self._binary), "--host", "127.0.0.1", "--port", str(self._port)]
        line += ["--storage-path", str(self._folder / "data"), *self._arguments, *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                line, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        give_up = time.monotonic() + _READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the MongoDB server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with MongoClient(self.host, serverSelectionTimeoutMS=500) as client:
                client.admin.command("hello")
        except PyMongoError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL: what a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM and wait: an orderly shutdown."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _forgive_pymongo() -> None:
    """It leaves a socket to the garbage collector when its client is closed while its monitor still connects.

    Holds for the test that is being set up: pytest puts the filters back after each.
    """
    warnings.filterwarnings("ignore", "unclosed <socket.socket", ResourceWarning)


def _note(uri: str) -> None:
    with MongoClient[dict[str, Any]](uri, **_SHORT) as client:
        modules = "a stand-in" if "secantus" in str(client.admin.command("hello").get("setName")) else "a real server"
        have("mongodb", f"{client.server_info()['version']} ({modules})")


@pytest.fixture(scope="session")
def _mongo_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Database name -> URI, on one server per test process."""
    given = os.environ.get(URL_VARIABLE)
    if given is not None:
        _note(given)
        parts = urlsplit(given)
        yield lambda name: parts._replace(path=f"/{name}").geturl()
        return
    server = MongoServer(tmp_path_factory.mktemp("mongo"))
    _note(server.uri())
    yield server.uri
    server.stop()


@pytest.fixture
def mongo_uri(_mongo_host: Callable[[str], str]) -> Iterator[str]:
    """The URI of a database of this test alone."""
    _forgive_pymongo()
    name = f"moonxd_test_{uuid4().hex[:12]}"
    uri = _mongo_host(name)
    yield uri
    with MongoClient[dict[str, Any]](uri, **_SHORT) as client:
        client.drop_database(name)
    gc.collect()


@pytest.fixture
def mongo_client(mongo_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongo_uri, tz_aware=True, **_SHORT) as client:
        yield client


@pytest.fixture
def start_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., MongoServer]]:
    """A factory of servers that belong to one test alone; takes the server's arguments."""
    _forgive_pymongo()
    servers: list[MongoServer] = []

    def start(*arguments: str) -> MongoServer:
        servers.append(MongoServer(tmp_path_factory.mktemp("mongo"), *arguments))
        if len(servers) == 1:
            _note(servers[0].uri())
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
    gc.collect()
