"""The network of the remote peers: it delays what passes, both ways, loses nothing, and carries a crowd."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import network, provision
from bench.network import DELAY_US, Network

SIZE = 3_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program is compiled."""
    provision.compiler()
    return tmp_path_factory.mktemp("network")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_round_trip_takes_twice_the_delay_longer(folder: Path) -> None:
    seen = network.quality(folder)
    assert seen.added_us > 2 * (DELAY_US - 50)
    assert seen.crowd_round_trips_per_second > 1_000  # of 20 connections; no more than 40,000 are possible


def test_everything_arrives_in_order_and_the_end_too(folder: Path, listener: socket.socket) -> None:
    sent = bytes(range(256)) * (SIZE // 256)
    received = bytearray()

    def take() -> None:
        while not received:  # the first connection only looks whether the network is there
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    received.extend(data)

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    way = Network(folder, listener.getsockname()[1], folder / "log")
    try:
        with socket.create_connection(("127.0.0.1", way.port)) as connection:
            connection.sendall(sent)
        taker.join(20)
    finally:
        way.close()
    assert received == sent


def test_nobody_there_is_a_closed_connection(folder: Path, listener: socket.socket) -> None:
    way = Network(folder, listener.getsockname()[1], folder / "log")
    listener.close()
    try:
        with socket.create_connection(("127.0.0.1", way.port)) as connection:
            assert connection.recv(1) == b""
    finally:
        way.close()
