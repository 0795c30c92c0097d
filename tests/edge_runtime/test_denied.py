"""A broker that refuses the station, or some of its messages: an operator hears of it at the station."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kenpin.config import MqttSection
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.broker_address import BrokerAddress
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.outbox import Outbox
from kenpin.edge_runtime.publisher import Publisher
from kenpin.edge_runtime.result_inbox import ResultInbox
from kenpin.edge_runtime.roles import publisher_vitals
from kenpin.edge_runtime.site import NoNews, Site, in_own_processes
from kenpin.edge_runtime.sources import make_source
from kenpin.edge_runtime.station import Station
from kenpin.edge_runtime.vitals import Vitals, write_vitals
from kenpin.edge_runtime.watch import Watch
from tests.edge_runtime.publishing_line import FAST, PublishingLine, RawBroker

KEY = "comms_denied"
AT_ONCE = [replace(alarm, on_delay_s=0.0, off_delay_s=0.0) for alarm in CATALOGUE if alarm.key == KEY]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PublishingLine]:
    made = PublishingLine(tmp_path / "station.db")
    yield made
    made.stop(drain_s=0)
    made.store.close()


class Doorkeeper:
    """A broker with a list of users."""

    def __init__(self, root: Path, make_mosquitto: Callable[..., Any]) -> None:
        self._users = root / "users"
        self._users.touch(0o600)
        self.password = root / "password"
        self.password.touch(0o600)
        self.password.write_text("secret")
        self._broker = make_mosquitto(f"allow_anonymous false\npassword_file {self._users}")
        self._broker.start()
        self.port: int = self._broker.port

    def let_in(self, user: str) -> None:
        subprocess.run(["mosquitto_passwd", "-b", self._users, user, "secret"], check=True)
        self._broker.send(signal.SIGHUP)

    def address(self, **more: Any) -> BrokerAddress:
        url = f"mqtt://127.0.0.1:{self.port}"
        section = MqttSection(url=url, username="st1", password_file=self.password, **more)
        return BrokerAddress.from_config(section, client_id="st1")


@pytest.fixture
def door(tmp_path: Path, make_mosquitto: Callable[..., Any]) -> Doorkeeper:
    return Doorkeeper(tmp_path, make_mosquitto)


def transitions(line: PublishingLine) -> list[str]:
    with closing(sqlite3.connect(line.path)) as connection:
        rows = connection.execute("SELECT body FROM outbox WHERE topic = 'event/alarm' ORDER BY seq")
        return [json.loads(body)["transition"] for (body,) in rows]


class Rules:
    """A broker that lets the station speak at some topics alone."""

    def __init__(self, root: Path, make_mosquitto: Callable[..., Any]) -> None:
        self._acl = root / "acl"
        self._broker = make_mosquitto(f"acl_file {self._acl}")

    def allow(self, *topics: str) -> int:
        """Start the broker; its port."""
        self._acl.write_text("".join(f"topic readwrite plant/line/st1/{topic}\n" for topic in topics))
        self._broker.start()
        return int(self._broker.port)

    def allow_all(self) -> None:
        """From now on everybody may do everything."""
        self._acl.write_text("topic readwrite #\n")
        self._broker.send(signal.SIGHUP)


@pytest.fixture
def rules(tmp_path: Path, make_mosquitto: Callable[..., Any]) -> Rules:
    return Rules(tmp_path, make_mosquitto)


def test_a_refused_login_is_an_alarm_that_outlives_a_restart_and_is_told_when_it_is_over(
    line: PublishingLine, door: Doorkeeper, wait_for: Any
) -> None:
    with closing(connect(line.path)) as connection:

        def come_round(publisher: Publisher) -> None:
            denied = publisher.is_denied
            board.come_round({KEY: [None if denied is None else float(denied)]})

        board = AlarmBoard(connection, Identity("st1"), AT_ONCE)
        publisher = line.publish(door.port, broker=door.address())
        wait_for(lambda: publisher.is_denied, "the refusal")
        come_round(publisher)
        assert transitions(line) == ["raise"]
        line.stop(drain_s=0)

        board = AlarmBoard(connection, Identity("st1"), AT_ONCE)  # a new start, which knows nothing yet
        publisher = line.publish(door.port, broker=door.address())
        come_round(publisher)
        wait_for(lambda: publisher.is_denied, "the refusal again")
        come_round(publisher)
        assert transitions(line) == ["raise"]
        assert line.waiting() == 1

        door.let_in("st1")
        wait_for(lambda: publisher.is_denied is False, "the broker to let it in")
        come_round(publisher)
        line.publisher.wake()  # type: ignore[union-attr]
        wait_for(lambda: line.waiting() == 0, "both events at the broker")
        assert transitions(line) == ["raise", "return"]


def test_one_refused_topic_is_enough_and_others_that_pass_do_not_hide_it(
    line: PublishingLine, rules: Rules, wait_for: Any
) -> None:
    port = rules.allow("status", "kpi", "event/alarm", "reply/#")
    line.commit(1)
    with closing(connect(line.path)) as connection, transaction(connection):
        for topic in ("event/alarm", "reply/ack"):
            Outbox(connection).append(topic, '{"ts_ms": 1}')
    publisher = line.publish(port, replace(FAST, refused_s=600))  # so it is refused before they pass
    wait_for(lambda: publisher.traffic.acked == 2, "those that may pass")
    assert publisher.traffic.refused == {"event/anomaly"}
    assert publisher.is_denied
    line.stop(drain_s=0)
    publisher = line.publish(port)
    wait_for(lambda: publisher.is_denied, "the refusal")
    rules.allow_all()
    wait_for(lambda: publisher.is_denied is False, "the permission")
    wait_for(lambda: line.waiting() == 0, "the note of it")


def test_alerts_arrive_where_the_rules_forgot_the_audit(
    line: PublishingLine, rules: Rules, wait_for: Any
) -> None:
    port = rules.allow("status", "event/anomaly")
    with closing(connect(line.path)) as connection, transaction(connection):
        for _ in range(20):  # one in each hour
            Outbox(connection).append("event/audit", '{"ts_ms": 1}')
    publisher = line.publish(port, replace(FAST, refused_s=600))
    wait_for(lambda: publisher.traffic.rejected, "the refusal")
    line.commit(30)
    wait_for(lambda: publisher.traffic.acked == 30, "every alert")
    assert line.waiting() == 20
    line.stop(drain_s=0)


def test_whether_a_broker_is_there_is_told_though_no_event_waits(
    line: PublishingLine, make_mosquitto: Any, wait_for: Any, tmp_path: Path
) -> None:
    broker = make_mosquitto()
    broker.start()
    publisher = line.publish(broker.port)
    inbox = ResultInbox(tmp_path)

    def told() -> float:
        return publisher_vitals(publisher, Identity("st1"), Watch({}), inbox).numbers["broker_connected"]

    wait_for(lambda: told() == 1, "the connection")
    broker.kill()
    wait_for(lambda: told() == 0, "its loss")
    inbox.close()
    line.stop(drain_s=0)


def test_a_broker_that_is_away_refuses_nobody(line: PublishingLine, free_port: int, wait_for: Any) -> None:
    publisher = line.publish(free_port)
    wait_for(lambda: publisher._connection.has_failed, "the first attempt")
    assert publisher.is_denied is None


def test_a_refused_retained_topic_counts_too(line: PublishingLine, rules: Rules, wait_for: Any) -> None:
    port = rules.allow("status", "event/#")
    with closing(connect(line.path)) as connection:
        AlarmBoard(connection, Identity("st1"), AT_ONCE).come_round({})
    publisher = line.publish(port)
    wait_for(lambda: publisher.is_denied, "the refusal of alarm/comms_denied")
    rules.allow_all()
    wait_for(lambda: publisher.is_denied is False, "the permission")


def test_a_refused_status_counts_too(line: PublishingLine, rules: Rules, wait_for: Any) -> None:
    port = rules.allow("event/#")
    publisher = line.publish(port, replace(FAST, status_s=0.3))
    wait_for(lambda: publisher.is_denied, "the refusal of the status")
    rules.allow_all()
    wait_for(lambda: publisher.is_denied is False, "the permission")


def test_what_is_larger_than_the_broker_takes_is_refused_and_does_not_end_the_connection(
    line: PublishingLine, make_mosquitto: Any, wait_for: Any
) -> None:
    broker = make_mosquitto("max_packet_size 1500")
    broker.start()
    with closing(connect(line.path)) as connection, transaction(connection):
        Outbox(connection).append("event/audit", json.dumps({"ts_ms": 1, "new": "x" * 1500}))
    publisher = line.publish(broker.port)
    wait_for(lambda: publisher.is_denied, "the refusal")
    wait_for(lambda: publisher.traffic.rejected >= 2, "another attempt")
    assert (publisher.traffic.connections, publisher.is_unstable) == (1, False)
    broker.kill()
    broker._config.write_text(broker._config.read_text().replace("max_packet_size", "#"))
    broker.start()
    wait_for(lambda: publisher.is_denied is False, "a broker that takes it")
    wait_for(lambda: line.waiting() == 0, "the event at the broker")


class StrictBroker(RawBroker):
    """Ends the connection of a client that publishes where it may not, and says why, as several brokers do."""

    def _talk(self, connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(bytes([0x20, 3, 0, 0, 0]))
        connection.recv(4096)
        connection.sendall(bytes([0xE0, 2, 0x87, 0]))


def test_a_broker_that_ends_the_connection_for_what_is_not_allowed_counts_too(
    line: PublishingLine, wait_for: Any
) -> None:
    with closing(StrictBroker()) as broker:
        publisher = line.publish(broker.port)
        wait_for(lambda: publisher.traffic.connections and publisher.is_denied, "the refusal")
        line.stop(drain_s=0)


@pytest.mark.parametrize("lacks", ["retain_available false", "max_qos 0"])
def test_a_broker_that_cannot_carry_a_station_refuses_it(
    line: PublishingLine, make_mosquitto: Callable[..., Any], lacks: str, wait_for: Any
) -> None:
    broker = make_mosquitto(lacks)
    broker.start()
    publisher = line.publish(broker.port)
    wait_for(lambda: publisher.is_denied, "the refusal")


def test_the_station_asks_the_publisher_in_its_own_process(workshop: Any) -> None:
    workshop.port = 1
    workshop.folder.run.mkdir(parents=True)
    news = in_own_processes().news(workshop.config("folder:x"), Identity("st1"), lambda: None)  # type: ignore[arg-type, return-value]
    assert news.is_denied is None
    for told, expected in (({}, None), ({"broker_denied": 1}, True), ({"broker_denied": 0}, False)):
        write_vitals(workshop.folder.run, Vitals(role="publisher", pid=1, numbers=told))
        assert news.is_denied is expected


def test_without_a_broker_nobody_refuses(workshop: Any) -> None:
    workshop.folder.run.mkdir(parents=True)
    write_vitals(workshop.folder.run, Vitals(role="publisher", pid=1, numbers={"broker_denied": 1}))
    news = in_own_processes().news(workshop.config("folder:x"), Identity("st1"), lambda: None)  # type: ignore[arg-type, return-value]
    assert news.is_denied is False  # from a time when there was one


@pytest.mark.parametrize("denied", [None, False, True])
def test_the_condition_reaches_the_alarms(workshop: Any, denied: bool | None) -> None:
    class News(NoNews):
        is_denied = denied  # type: ignore[assignment]

    workshop.ready()
    config = workshop.config(f"folder:{workshop.pictures(10)}")
    site = Site(lambda c, _f: [make_source(c.source.url)], lambda *_: News())
    with Station(config, site=site) as station:
        assert station._conditions()[KEY] == denied


@pytest.mark.parametrize("insecure", [False, True])
def test_the_status_says_whether_others_may_read_and_forge_it(
    line: PublishingLine, door: Doorkeeper, wait_for: Any, insecure: bool
) -> None:
    door.let_in("st1")
    publisher = line.publish(door.port, broker=door.address(insecure=insecure))
    wait_for(lambda: publisher.traffic.connections, "the connection")
    where = ["-h", "127.0.0.1", "-p", str(door.port), "-u", "st1", "-P", "secret"]
    command = ["mosquitto_sub", *where, "-t", "plant/line/st1/status", "-C", "1", "-W", "10"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["insecure"] is insecure
    assert json.loads(publisher._herald.last_will())["insecure"] is insecure
