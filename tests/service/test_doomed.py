"""Workflows that end their process again and again, and actions that take long: with a real server and its hosts."""

import pytest

API = "/api/v1/workflows"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def doomed(request, tmp_path_factory, tools, new_postgres_database):
    """A server of this module with the app `doomed`."""
    if request.param == "sqlite":
        yield from serving(tools, tmp_path_factory, None)
    else:
        with new_postgres_database() as url:
            yield from serving(tools, tmp_path_factory, url)


def serving(tools, tmp_path_factory, database):
    server = tools.Server(tmp_path_factory.mktemp("doomed"), "--anonymous-calls", database=database).start()
    try:
        server.deployed(tools.APPS / "doomed")
        yield server
    finally:
        server.end()


@pytest.mark.parametrize("acting", [False, True], ids=["transaction", "action"])
def test_a_workflow_that_ends_its_process_is_given_up_and_undone(doomed, tools, acting):
    begun = doomed.http.post(
        "/apps/doomed/doomed", json={"key": f"x{acting}", "acting": acting}, headers={"Prefer": "respond-async"}
    )
    place = f"{API}/{begun.json()['id']}"
    tools.eventually(lambda: doomed.http.get(place).json()["ended"], 90)
    shown = doomed.http.get(place).json()
    assert (shown["status"], shown["code"]) == ("failed", "host_crashed")
    assert [step["function"] for step in shown["steps"] if step["undo"]] == ["unput"]
    assert doomed.http.get("/apps/doomed/effects").json() == []


@pytest.mark.parametrize("function", ["copies", "copying"])
def test_an_action_that_is_getting_on_is_not_ended(doomed, function):
    before = processes(doomed)
    answer = doomed.http.post(f"/apps/doomed/{function}", json={"parts": 20})
    assert (answer.status_code, answer.json()) == (200, 20)
    assert processes(doomed) == before


def processes(server) -> list[int]:
    return [host["pid"] for app in server.http.get("/api/v1/apps").json() for host in app["hosts"]]
