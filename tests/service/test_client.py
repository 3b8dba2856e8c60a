"""`apiary.Client` against a real server: results, errors as exceptions, and answers that were lost."""

import importlib.util
import os
import signal
import sys
import threading
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType

import pytest

import apiary


@pytest.fixture(scope="module")
def zoo_app(tools) -> ModuleType:
    """The module of the app, imported here too, so that calls can be made with its functions."""
    spec = importlib.util.spec_from_file_location("zoo_of_the_client", tools.APPS / "zoo" / "zoo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def client(zoo, tools):
    with apiary.Client(zoo.url, tools.KEY, app="zoo") as client:
        yield client


def test_calls_by_name(zoo, tools, client):
    name = uuid.uuid4().hex
    assert client.call("bump", name=name, by=2) == 2
    with apiary.Client(zoo.url, tools.KEY) as other:
        assert other.call("zoo.bump", name=name) == 3
        with pytest.raises(apiary.WrongArguments, match="which app"):
            other.call("bump", name=name)
    with apiary.Client(zoo.url + "/apps/zoo/") as anonymous:
        assert anonymous.call("count", name=name) == 3
        with pytest.raises(apiary.Forbidden):
            anonymous.call("for_admins")
    with pytest.raises(apiary.WrongArguments, match="by name"):
        client.call("bump", name)


def test_calls_by_function_are_typed(client, zoo_app):
    model = zoo_app.Model(name="bee", parent=zoo_app.Model(name="queen"))
    found = client.call(
        zoo_app.structures,
        model,
        zoo_app.Point(1.5),
        pair={"left": 1, "right": "r"},
        either="x",
        blob=b"\x00\xff",
        price=Decimal("1.10"),
    )
    assert isinstance(found, zoo_app.Everything)
    assert found.model == model
    assert found.point == zoo_app.Point(1.5, 0.0)
    assert (found.blob, found.price) == (b"\x00\xff", Decimal("1.10"))
    with pytest.raises(apiary.WrongArguments):
        client.call(zoo_app.bump, "x", by="three")
    with pytest.raises(apiary.WrongArguments):
        client.call(zoo_app.bump, "x", nothing=1)


def test_errors_are_exceptions(client):
    with pytest.raises(apiary.Rejected) as refused:
        client.call("refuse", name="a")
    assert (refused.value.code, refused.value.details) == ("not_today", {"name": "a"})
    assert refused.value.call_id
    for function, arguments, kind in [
        ("bump", {}, apiary.WrongArguments),
        ("bmup", {}, apiary.UnknownFunction),
        ("fail", {}, apiary.InternalError),
        ("spin", {"name": "client"}, apiary.DeadlineExceeded),
    ]:
        with pytest.raises(kind):
            client.call(function, **arguments)


def test_a_server_that_is_not_there_is_told(zoo):
    with (
        apiary.Client("http://127.0.0.1:1/apps/zoo") as client,
        pytest.raises(apiary.Unavailable, match="nothing answers"),
    ):
        client.call("bump", name="x")
    with apiary.Client(zoo.url, "wrong", app="zoo") as client, pytest.raises(apiary.NotAuthenticated):
        client.call("bump", name="x")


def test_a_key_of_ones_own(client):
    name = uuid.uuid4().hex
    for _ in range(2):
        assert client.call("bump", name=name, idempotency_key=name) == 1
    with pytest.raises(apiary.KeyReused):
        client.call("bump", name=name, by=2, idempotency_key=name)


def test_what_cannot_be_sent_is_refused_before_it_is(zoo, tools, client):
    def undecorated() -> None: ...

    with pytest.raises(apiary.WrongArguments, match="an idempotency key is text"):
        client.call("bump", name="x", idempotency_key="a\nb")
    for function in (undecorated, 5, None):
        with pytest.raises(apiary.WrongArguments, match="is no function of an app"):
            client.call(function, name="x")
    for nothing in ("", " ", None):
        with pytest.raises(apiary.WrongArguments, match="the id of a workflow is text"):
            client.workflow(nothing)
    with pytest.raises(apiary.WrongArguments, match="a timeout is a number"):
        client.workflow("0198f1c2-0000-7000-8000-000000000000").result(float("nan"))
    with pytest.raises(apiary.WrongArguments, match="a key has printable characters only"):
        apiary.Client(zoo.url, f"{tools.KEY}\n")


def test_a_function_that_ends_its_host_is_not_tried_again(zoo, client):
    before = zoo.http.get("/metrics").text.split('apiary_host_deaths_total{app="zoo"} ')[1].split()[0]
    with pytest.raises(apiary.Unavailable, match="died"):
        client.call("kill_host")
    after = zoo.http.get("/metrics").text.split('apiary_host_deaths_total{app="zoo"} ')[1].split()[0]
    assert float(after) - float(before) == 3


def test_calls_outlive_a_restart_of_the_server(new_server, tools, monkeypatch):
    monkeypatch.setattr("apiary.client.RETRY_SECONDS", (0.1, *[0.3] * 200))  # a busy machine takes long to start
    server = new_server()
    server.deployed(tools.APPS / "zoo")
    names = [uuid.uuid4().hex for _ in range(4)]
    stop = threading.Event()
    counts = dict.fromkeys(names, 0)
    errors: list[BaseException] = []

    def calls(name: str) -> None:
        with apiary.Client(server.url, tools.KEY, app="zoo") as client:
            while not stop.is_set():
                try:
                    counts[name] += 1
                    assert client.call("bump", name=name) == counts[name]
                except BaseException as error:  # noqa: BLE001 - shown by the test
                    errors.append(error)
                    return

    threads = [threading.Thread(target=calls, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for how in (server.kill, server.stop):
        before = min(counts.values())
        tools.eventually(lambda before=before: min(counts.values()) > before + 5 or errors)
        how()
        server.start()
    os.kill(server.host(), signal.SIGKILL)
    before = min(counts.values())
    tools.eventually(lambda: min(counts.values()) > before + 5 or errors)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert [server.call("count", name=name) for name in names] == [counts[name] for name in names]


def test_the_log_is_asked(client):
    name = uuid.uuid4().hex
    begun = datetime.now(UTC)
    for by in (1, 2):
        client.call("bump", name=name, by=by)
    client.call("count", name=name)
    key = {"name": name}
    first, second = client.log.history("counters", key)
    assert (first["after"]["value"], second["after"]["value"]) == (1, 3)
    assert client.log.as_of("counters", key, datetime.now(UTC))["row"]["value"] == 3
    assert client.log.as_of("counters", key, begun) is None
    assert client.log.show(second["call"])["writes"][0]["before"]["value"] == 1
    assert client.log.trace(second["call"], depth=1)["writes"][0]["after"]["value"] == 3
    assert [call["id"] for call in client.log.calls(text=name, function="bump", since=begun)] == [
        second["call"],
        first["call"],
    ]
    graph = client.log.downstream(table="counters", key=key)
    assert {call["id"] for call in graph["calls"]} >= {first["call"], second["call"]}
    assert client.log.downstream(second["call"], limit=1)["calls"][0]["id"] == second["call"]
    assert client.log.sql("select count(*) as calls from calls", limit=1, seconds=5.0).columns == ("calls",)
    assert {read["function"] for read in client.log.readers("counters", key, since=begun)} <= {"count"}
    assert client.log.leaks("counters", "true", caller="nobody", since=begun)["reads"] == []
    with pytest.raises(apiary.NotFound):
        client.log.show("0198f1c2-0000-7000-8000-000000000000")
