"""Functions that take all the memory of their process: each fails alone, and what runs beside it runs once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.service.conftest import WAIT_SECONDS


@pytest.fixture
def glutton(new_server, tools):
    server = new_server("--host-memory-mb", "256", "--anonymous-calls")
    server.deployed(tools.APPS / "glutton")
    return server


class Waiting:
    """An action that runs until `end`."""

    def __init__(self, server, tools, file) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._file = file
        self._answer = self._pool.submit(server.post, "wait", {"file": str(file)}, app="glutton")
        tools.eventually(file.exists)

    def end(self) -> None:
        assert not self._answer.done()
        self._file.with_suffix(".end").touch()
        response = self._answer.result(WAIT_SECONDS)
        assert (response.status_code, response.json()) == (200, 1), response.text
        assert self._file.read_text() == "begun\n"
        self._pool.shutdown()


def test_a_function_that_takes_all_memory_fails_alone(glutton, tools, tmp_path):
    host = glutton.host("glutton")
    waiting = Waiting(glutton, tools, tmp_path / "waits")
    for _ in range(3):
        for function, arguments in (("bite", {"megabytes": 1500}), ("gorge", {}), ("gorge_outside", {})):
            response = glutton.post(function, arguments, app="glutton")
            assert (response.status_code, response.json()["code"]) == (500, "internal_error"), response.text
            assert glutton.call("bite", app="glutton", megabytes=64) == 64 * 2**20
    waiting.end()
    assert glutton.host("glutton") == host


def test_memory_that_functions_keep_is_given_back_by_another_process(glutton, tools, tmp_path):
    host = glutton.host("glutton")
    waiting = Waiting(glutton, tools, tmp_path / "waits")
    response = glutton.post("hoard", app="glutton")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error"), response.text
    tools.eventually(lambda: glutton.host("glutton") != host)
    assert glutton.call("bite", app="glutton", megabytes=64) == 64 * 2**20
    waiting.end()
    tools.eventually(lambda: len(glutton.hosts("glutton")) == 1)
    assert "died" not in glutton.text()
    assert 'apiary_host_deaths_total{app="glutton"} 0.0' in glutton.http.get("/metrics").text
