"""Workflows by `apiary.Client`: the same handles as in process, answers that were lost, servers that are away."""

import importlib.util
import socket
import sys
import threading
import time
import uuid
from types import ModuleType

import pytest

import apiary
from apiary import WorkflowHandle


@pytest.fixture(scope="module")
def flows(tmp_path_factory, tools):
    server = tools.Server(tmp_path_factory.mktemp("flows")).start()
    try:
        server.deployed(tools.APPS / "flows")
        yield server
    finally:
        server.end()


@pytest.fixture
def client(flows, tools):
    with apiary.Client(flows.url, tools.KEY, app="flows") as client:
        yield client


@pytest.fixture(scope="module")
def module(tools) -> ModuleType:
    """The module of the app, imported here too, so that workflows can be started with its functions."""
    spec = importlib.util.spec_from_file_location("flows_of_the_client", tools.APPS / "flows" / "flows.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def waiting(tools, handle):
    tools.eventually(lambda: handle.status() == "waiting")
    return handle


def test_a_workflow_is_started_and_followed(client, tools, name):
    handle = client.start("approval", key=name)
    assert isinstance(handle, WorkflowHandle)
    waiting(tools, handle)
    assert handle.published("state") == {"waits": True}
    assert handle.published("other") is None
    assert handle.show()["waits_for"]["topic"] == "answer"
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(0.2)
    handle.send("answer", {"yes": [1, None]})
    assert handle.result() == {"yes": [1, None]}
    assert handle.status() == "ok"
    assert client.workflow(handle.id).result(0) == {"yes": [1, None]}


def test_workflows_by_function_are_typed(client, module, name):
    assert client.call(module.five, name) == 10
    handle = client.start(module.five, key=name)
    assert handle.result() == 10
    assert (
        client.start(module.five, name, idempotency_key=name).id
        == client.start("five", key=name, idempotency_key=name).id
    )
    with pytest.raises(apiary.WrongArguments):
        client.start(module.five, 7)


def test_what_a_workflow_raises_is_raised(client, tools, name):
    handle = client.start("refuse", key=name)
    for _ in range(2):
        with pytest.raises(apiary.Rejected) as refused:
            handle.result()
    assert (refused.value.code, refused.value.details, refused.value.call_id) == ("not_today", {"key": name}, handle.id)
    with pytest.raises(apiary.InternalError):
        client.start("fail").result()
    cancelled = waiting(tools, client.start("approval", key=name))
    cancelled.cancel()
    with pytest.raises(apiary.Cancelled):
        cancelled.result()
    for what in (cancelled.cancel, cancelled.resume, lambda: cancelled.send("answer")):
        with pytest.raises(apiary.Conflict):
            what()
    with pytest.raises(apiary.NotFound):
        client.workflow("0198f1c2-0000-7000-8000-000000000000").result()
    with pytest.raises(apiary.WrongArguments):
        cancelled.send("", 1)


def test_what_cannot_be_started_is_refused_before_it_runs(client, name):
    with pytest.raises(apiary.WrongArguments, match="no workflow"):
        client.start("put", key=name)
    with pytest.raises(apiary.UnknownFunction):
        client.start("fvie", key=name)
    assert client.call("effects", key=name) == []


def test_a_fork_is_a_handle(client, name):
    handle = client.start("five", key=name)
    handle.result()
    fork = handle.fork(2)
    assert fork.result() == 10
    assert [step["step"] for step in fork.show()["steps"]] == [0, 1, 2, 3, 4]


def test_a_call_waits_for_a_workflow_as_long_as_it_takes(flows, tools, name):
    """Also where that is longer than the patience for one answer."""
    with apiary.Client(flows.url, tools.KEY, app="flows", timeout=0.5) as client:
        began = time.monotonic()
        assert client.call("nap", seconds=1.5) == 1.5
        assert time.monotonic() - began >= 1.5
        assert client.start("nap", seconds=1.0).result() == 1.0


def test_answers_that_are_lost_begin_and_tell_once(flows, tools, name):
    """Between client and server, each second connection ends before the answer."""
    lost = []

    def relay(connection: socket.socket, number: int) -> None:
        with connection, socket.create_connection(("127.0.0.1", flows.port)) as server:
            connection.settimeout(30)
            server.settimeout(30)
            try:
                while data := tools.read_response(connection):
                    server.sendall(data)
                    answer = tools.read_response(server)
                    if number % 2 == 0:
                        lost.append(answer[:15])
                        return
                    connection.sendall(answer)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for number in range(1000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=relay, args=(connection, number), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with apiary.Client(url, tools.KEY, app="flows") as client:
            handle = client.start("approval", key=name)
            client._http._client.close()  # each of these begins with a connection of its own
        with apiary.Client(url, tools.KEY, app="flows") as client:
            client.workflow(handle.id).send("answer", 1)
        with apiary.Client(url, tools.KEY, app="flows") as client:
            assert client.workflow(handle.id).result() == 1
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)
    assert len(lost) >= 3
    with apiary.Client(flows.url, tools.KEY, app="flows") as client:
        assert client.call("effects", key=name) == [7]
        assert client.workflow(handle.id).show()["messages"] == {}


def test_a_result_is_waited_for_across_restarts_of_the_server(new_server, tools, name):
    server = new_server()
    server.deployed(tools.APPS / "flows")
    got, errors = [], []

    def wait() -> None:
        try:
            with apiary.Client(server.url, tools.KEY, app="flows") as client:
                got.append(client.start("approval", key=name).result())
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    with apiary.Client(server.url, tools.KEY, app="flows") as client:
        handle = tools.eventually(lambda: started(client))
        waiting(tools, handle)
        for how in (server.kill, server.stop):
            how()
            server.start()
            waiting(tools, handle)
        handle.send("answer", "at last")
        assert handle.result() == "at last"
    thread.join(60)
    assert (got, errors) == (["at last"], [])


def started(client):
    found = client._http.json("GET", "/api/v1/workflows")
    return client.workflow(found[0]["id"]) if found else None
