"""Real Kafka brokers for the tests: Apache Kafka in KRaft mode, its jars from Maven Central (`make kafka`).

`KafkaServer` starts, kills, freezes and restarts one broker on the same data and the same ports. Like `RedisServer` it
is synchronous and must be started from the test's own thread. Every broker listens on plain TCP, SASL, TLS, SASL over
TLS, and TLS that asks for a certificate; topics appear on first use with PARTITIONS partitions.

Fixtures: `kafka_server` (one per test process), `start_kafka` (a factory of brokers that belong to one test).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trustme
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.services import ROOT, free_port, have, missing
from tests.services.redis import TlsFiles, die_with_parent

POM = ROOT / "tests" / "kafka" / "pom.xml"
PARTITIONS = 4
USER = "moonxd"
PASSWORD = "kafka-secret-of-the-tests"
LISTENERS = {
    "PLAIN": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "SASLTLS": "SASL_SSL",
    "MUTUAL": "SSL",
}
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_READY_WITHIN_S = 60.0
_JVM = (
    "-Xmx256m", "-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData",
    "-Dfile.encoding=UTF-8", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)  # fmt: skip
_SETTINGS = """
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=PLAIN
ssl.keystore.type=PEM
ssl.truststore.type=PEM
ssl.endpoint.identification.algorithm=
listener.name.mutual.ssl.client.auth=required
num.network.threads=1
num.io.threads=2
background.threads=1
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
num.partitions=4
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.bytes=8388608
log.index.size.max.bytes=65536
log.cleaner.dedupe.buffer.size=2097152
metadata.log.segment.bytes=8388608
"""


def kafka_version() -> str:
    found = ElementTree.parse(POM).find("{*}properties/{*}kafka.version")
    assert found is not None
    assert found.text is not None
    return found.text


def kafka_cache() -> Path:
    """Outside the repository: a clean clone does not fetch 100 MB again."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "moonxd-tests" / f"kafka-{kafka_version()}"


def _classpath() -> str:
    jars = kafka_cache() / "libs"
    if shutil.which("java") is None:
        missing("kafka", "no java on PATH (apt install default-jre-headless), needed by Apache Kafka")
    if not (jars / ".complete").exists():
        missing("kafka", "the jars of Apache Kafka are not in the cache (make kafka; it needs mvn and Maven Central)")
    return f"{jars}/*"


class KafkaServer:
    """One broker in `directory`. Started by the constructor; `settings` are lines added to server.properties.

    With `behind`, clients of the plain listener are sent to that port, where the test has something in between.
    """

    def __init__(self, directory: Path, *, settings: str = "", behind: int | None = None) -> None:
        self.directory = directory
        self.version = kafka_version()
        self._java = ["java", *_JVM, "-cp", _classpath()]
        directory.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in (*LISTENERS, "CONTROLLER")}
        self.behind = behind
        self.tls = self._certificates()
        self.client_tls = self._client_certificate()
        self._configuration = directory / "server.properties"
        self._configuration.write_text(self._properties(directory / "data", settings))
        self._format()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def address(self, listener: str = "PLAIN") -> str:
        """host:port of a listener of LISTENERS."""
        return f"localhost:{self.ports[listener]}"

    # ---- what it is started with

    def _certificates(self) -> TlsFiles:
        self._authority = trustme.CA()
        ca, cert, key = (self.directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self._authority.cert_pem.write_to_path(ca)
        issued = self._authority.issue_cert("localhost", "127.0.0.1")
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        # Java reads PKCS#8 only.
        key.write_bytes(
            load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
        )
        (self.directory / "keystore.pem").write_bytes(key.read_bytes() + cert.read_bytes())
        return TlsFiles(ca, cert, key)

    def _client_certificate(self) -> TlsFiles:
        cert, key = self.directory / "client.pem", self.directory / "client.key"
        issued = self._authority.issue_cert("client@moonxd.example")
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return TlsFiles(self.tls.ca, cert, key)

    def _properties(self, data: Path, settings: str) -> str:
        ports = self.ports
        names = [*LISTENERS, "CONTROLLER"]
        protocols = {**LISTENERS, "CONTROLLER": "PLAINTEXT"}
        seen = {**ports, "PLAIN": self.behind or ports["PLAIN"]}
        lines = [
            f"log.dirs={data}",
            f"controller.quorum.voters=1@localhost:{ports['CONTROLLER']}",
            "listeners=" + ",".join(f"{name}://localhost:{ports[name]}" for name in names),
            "advertised.listeners=" + ",".join(f"{name}://localhost:{seen[name]}" for name in LISTENERS),
            "listener.security.protocol.map=" + ",".join(f"{name}:{protocols[name]}" for name in names),
            f"ssl.keystore.location={self.directory / 'keystore.pem'}",
            f"ssl.truststore.location={self.tls.ca}",
        ]
        package = "org.apache.kafka.common.security"
        for name in ("sasl", "sasltls"):
            plain = f'{package}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            lines.append(f"listener.name.{name}.plain.sasl.jaas.config={plain}")
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                scram = f"{package}.scram.ScramLoginModule required;"
                lines.append(f"listener.name.{name}.{mechanism}.sasl.jaas.config={scram}")
        return _SETTINGS + "\n".join(lines) + "\n" + settings

    def _format(self) -> None:
        """A formatted storage with the SCRAM user, made once by Kafka's own tool and copied from then on."""
        template = kafka_cache() / "formatted"
        if not (template / "meta.properties").exists():
            scratch = self.directory / "formatted"
            configuration = self.directory / "format.properties"
            configuration.write_text(self._properties(scratch, ""))
            scram = [f"--add-scram={m}=[name={USER},password={PASSWORD}]" for m in _MECHANISMS if m != "PLAIN"]
            command = [*self._java, "kafka.tools.StorageTool", "format", "-t", "bW9vbnhkLXRlc3RzLWth"]
            subprocess.run([*command, "-c", configuration, *scram], check=True, capture_output=True, timeout=60)
            mine = template.with_name(f"formatted-{os.getpid()}")
            shutil.copytree(scratch, mine)
            try:
                mine.rename(template)
            except OSError:  # another test process was faster
                shutil.rmtree(mine)
        shutil.copytree(template, self.directory / "data", dirs_exist_ok=True)

    # ---- life

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same data and ports, unless it runs; return once it answers for a whole cluster."""
        if self._process is not None:
            return
        with (self.directory / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._configuration)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self.directory / "kafka.log").read_text("utf-8", "replace")
                raise RuntimeError(f"Kafka did not start:\n{text[-3000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether its metadata (version 0 of request 3) names a broker: then it is registered and serves."""
        request = struct.pack(">hhih4si", 3, 0, 1, 4, b"test", 0)
        try:
            with socket.create_connection(("localhost", self.ports["PLAIN"]), 1) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                answer = connection.recv(12, socket.MSG_WAITALL)
        except OSError:
            return False
        return len(answer) == 12 and struct.unpack(">iii", answer)[2] > 0

    def kill(self) -> None:
        """SIGKILL: what a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: the connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # ---- a word with it

    def create_topic(self, name: str, partitions: int = PARTITIONS, **configs: str) -> None:
        """With settings of its own, as max_message_bytes="1000"; blocks."""

        async def create(admin: AIOKafkaAdminClient) -> None:
            topic_configs = {key.replace("_", "."): value for key, value in configs.items()}
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=topic_configs)])

        self.ask(create)

    def java(self, tool: str, *options: str, text: str = "") -> str:
        """Run one of Kafka's own command-line clients with `text` on its standard input; what it printed. Blocks."""
        command = [*self._java, f"org.apache.kafka.tools.{tool}", "--bootstrap-server", self.address(), *options]
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def ask(self, question: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, Any]]) -> Any:
        """Ask over the admin API, on a loop and in a thread of its own; blocks."""
        answers: list[Any] = []

        async def main() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address())
            await admin.start()
            try:
                answers.append(await question(admin))
            finally:
                await admin.close()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join(30)
        assert answers, "Kafka's admin API did not answer"
        return answers[0]


def _note(server: KafkaServer) -> None:
    out = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True, timeout=20).stderr
    java = re.search(r'"([^"]+)"', out)
    have("kafka", f"Apache Kafka {server.version} (KRaft), Java {java[1] if java else '?'}")


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One broker per test process. Tests that break their broker use `start_kafka`."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    _note(server)
    yield server
    server.kill()


@pytest.fixture
def start_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., KafkaServer]]:
    """A factory of brokers that belong to one test alone; takes KafkaServer's keyword arguments."""
    servers: list[KafkaServer] = []

    def start(**options: Any) -> KafkaServer:
        server = KafkaServer(tmp_path_factory.mktemp("kafka"), **options)
        servers.append(server)
        if len(servers) == 1:
            _note(server)
        return server

    yield start
    for server in servers:
        server.kill()
