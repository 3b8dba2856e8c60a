"""A server drops what workflows did that ended long ago, as it or their app says; keys still answer."""

import pytest

from apiary import App, DeclarationError

API = "/api/v1/workflows"
KEPT_DAYS = 5 / 86400


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def test_what_workflows_did_is_dropped_in_time(kind, new_server, tools, request):
    url = request.getfixturevalue("postgres_database") if kind == "postgresql" else None
    server = new_server("--anonymous-calls", "--keep-workflows-days", str(KEPT_DAYS), database=url)
    server.deployed(tools.APPS / "flows")
    (app,) = server.http.get("/api/v1/apps").json()
    assert app["keep_workflows_days"] == pytest.approx(KEPT_DAYS)
    call = {"json": {"key": "a"}, "headers": {"Idempotency-Key": "k"}}
    kept = server.http.post("/apps/flows/five", **call)
    gone = server.http.post("/apps/flows/five", json={"key": "b"})
    running = server.http.post("/apps/flows/approval", json={"key": "c"}, headers={"Prefer": "respond-async"})
    assert server.http.get(f"{API}/{gone.headers['apiary-call-id']}").status_code == 200
    tools.eventually(lambda: 'apiary_workflows_dropped_total{app="flows"} 2.0' in server.http.get("/metrics").text)
    assert server.http.get(f"{API}/{gone.headers['apiary-call-id']}").status_code == 404
    assert server.http.get(f"{API}/{kept.headers['apiary-call-id']}").json()["steps"] == []
    again = server.http.post("/apps/flows/five", **call)
    assert (again.json(), again.headers["idempotency-replayed"]) == (kept.json(), "true")
    assert server.http.get(f"{API}/{running.json()['id']}").json()["status"] == "waiting"
    assert len(server.http.get(f"{API}/{running.json()['id']}").json()["steps"]) >= 2


@pytest.mark.parametrize("days", [-1, "7", float("nan"), True])
def test_a_time_that_cannot_be_is_refused(days):
    with pytest.raises(DeclarationError, match="keep_workflows_days"):
        App("kept", keep_workflows_days=days)
