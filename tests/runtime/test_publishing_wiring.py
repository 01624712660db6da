"""Every KAFKA_* variable reaches the part that obeys it; those that no part can obey are said to have no effect."""

from __future__ import annotations

from collections import deque

from moonxd.adapters.island.kafka.settings import KafkaSettings
from moonxd.adapters.memory.ledger import MemoryLedger
from moonxd.agents.relay import Patience
from moonxd.config import load_config
from moonxd.config.legacy import EFFECTLESS, old_variables
from moonxd.publishing import Publishing, topics_of
from moonxd.telemetry import Telemetry
from moonxd.wiring import WallClock
from moonxd.wiring.events import kafka_settings

VARIABLES = {
    "KAFKA_BROKERS": "k1:9092,k2:9093",
    "KAFKA_CLIENT_ID": "sync-worker-publisher",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
    "KAFKA_SASL_USERNAME": "ku",
    "KAFKA_SASL_PASSWORD": "kp",
    "KAFKA_SSL": "true",
    "KAFKA_CONNECTION_TIMEOUT": "1500",
    "KAFKA_REQUEST_TIMEOUT": "5500",
    "KAFKA_RETRY_INITIAL_DELAY": "250",
    "KAFKA_RETRY_MAX_DELAY": "2500",
    "KAFKA_RETRY_RETRIES": "7",
    "KAFKA_COMPRESSION": "zstd",
    "KAFKA_TOPIC_PORTFOLIO_UPDATES": "one",
    "KAFKA_TOPIC_SYNC_EVENTS": "one",
    "KAFKA_TOPIC_SYSTEM_ALERTS": "one",
    "KAFKA_TOPIC_USER_ACTIVITIES": "one",
    "KAFKA_TOPIC_EVENTS": "one",
}


def test_each_variable_of_the_contract_arrives_where_it_counts() -> None:
    known = {name for name in (*old_variables(), *EFFECTLESS) if name.startswith("KAFKA_")}
    spare = {"KAFKA_USERNAME", "KAFKA_PASSWORD"}
    assert set(VARIABLES) == known - spare - set(EFFECTLESS)
    config = load_config(None, {"HOME": "/", **VARIABLES}).config
    assert kafka_settings(config) == KafkaSettings(
        brokers=("k1:9092", "k2:9093"),
        client_id="sync-worker-publisher",
        mechanism="SCRAM-SHA-256",
        username="ku",
        password="kp",
        tls=True,
        connect_timeout_s=1.5,
        request_timeout_s=5.5,
        compression="zstd",
    )
    assert set(topics_of(config.kafka).values()) == {"one"}, "all topics may be the same"
    publication = MemoryLedger(WallClock()).publication()
    publishing = Publishing(config.kafka, publication, None, Telemetry(), deque())
    assert publishing._relay._patience == Patience(first_s=0.25, longest_s=2.5, failures=7)


def test_the_second_names_of_the_login() -> None:
    environ = {"HOME": "/", "KAFKA_USERNAME": "ku", "KAFKA_PASSWORD": "kp"}
    settings = kafka_settings(load_config(None, environ).config)
    assert (settings.username, settings.password, settings.brokers) == ("ku", "kp", ("localhost:9092",))
