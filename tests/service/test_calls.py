"""Calls over HTTP: results, idempotency keys, and what wrong requests are answered with."""

import json
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.service.conftest import new_client

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def name() -> str:
    return uuid.uuid4().hex


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which must be a complete one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert ID.match(response.headers["apiary-call-id"])
    found = dict(response.json())
    assert (found["status"], found["code"]) == (status, code)
    assert found["type"] == f"urn:apiary:error:{code}"
    assert found["title"]
    assert found["detail"]
    assert ID.match(found["call_id"])
    return found


def test_a_call_returns_its_result_and_its_id(zoo):
    response = zoo.post("bump", {"name": name(), "by": 3})
    assert (response.status_code, response.json()) == (200, 3)
    assert response.headers["content-type"] == "application/json"
    call = response.headers["apiary-call-id"]
    assert ID.match(call)
    shown = zoo.http.get(f"/api/v1/calls/{call}").json()
    assert (shown["function"], shown["output"], shown["status"]) == ("bump", 3, "ok")


def test_a_query_is_called_with_get_too(zoo):
    counter = name()
    zoo.call("bump", name=counter, by=5)
    assert zoo.http.get("/apps/zoo/count", params={"name": counter}).json() == 5
    found = zoo.http.get("/apps/zoo/scalars?integer=7&numbers=1&numbers=2&flag=true&text=&colour=blue").json()
    assert found == {"integer": 7, "number": 0.5, "text": "", "flag": True, "name": "bee", "colour": "blue"}


def test_a_repeated_key_has_the_first_outcome(zoo):
    counter = name()
    first = zoo.post("bump", {"name": counter}, key=counter)
    again = zoo.post("bump", {"name": counter}, key=counter)
    assert (first.json(), again.json()) == (1, 1)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert zoo.call("count", name=counter) == 1


def test_a_repeated_key_ignores_the_order_and_the_spaces_of_the_arguments(zoo):
    counter = name()
    headers = {"Idempotency-Key": counter}
    zoo.http.post("/apps/zoo/bump", content=f'{{"name": "{counter}", "by": 2}}', headers=headers)
    again = zoo.http.post("/apps/zoo/bump", content=f'{{"by":2,   "name":"{counter}"}}', headers=headers)
    assert (again.status_code, again.json()) == (200, 2)


def test_a_key_of_another_call_is_refused(zoo):
    counter = name()
    zoo.post("bump", {"name": counter}, key=counter)
    found = problem(zoo.post("bump", {"name": counter, "by": 2}, key=counter), 422, "idempotency_key_reused")
    assert ID.match(found["first_call_id"])
    problem(zoo.post("effect", {"key": counter}, key=counter), 422, "idempotency_key_reused")
    assert zoo.call("count", name=counter) == 1


@pytest.mark.parametrize(
    ("function", "status", "code"), [("refuse", 422, "not_today"), ("fail", 500, "internal_error")]
)
def test_a_failure_is_an_outcome_too(zoo, function, status, code):
    key = name()
    first = problem(zoo.post(function, {"name": key}, key=key), status, code)
    again = zoo.post(function, {"name": key}, key=key)
    assert problem(again, status, code)["detail"] == first["detail"]
    assert again.headers["idempotency-replayed"] == "true"
    assert zoo.call("count", name=key) == 0
    assert "secret" not in again.text


def test_what_an_application_refuses_reaches_the_caller_as_it_is(zoo):
    found = problem(zoo.post("refuse", {"name": "bear"}), 422, "not_today")
    assert (found["detail"], found["name"]) == ("no, thank you", "bear")


@pytest.mark.parametrize("body", [b"\x00", b"{", b"[]", b'"text"', b"\xff"])
def test_a_used_key_with_a_body_that_is_wrong_is_refused(zoo, body):
    key = name()
    zoo.post("bump", {"name": key}, key=key)
    response = zoo.http.post("/apps/zoo/bump", content=body, headers={"Idempotency-Key": key})
    assert response.status_code in (400, 422), response.text
    assert zoo.call("count", name=key) == 1


def test_concurrent_duplicates_run_once(zoo):
    for _ in range(10):
        key = name()
        start = threading.Barrier(8)

        def send(key: str = key, start: threading.Barrier = start) -> httpx.Response:
            with new_client(base_url=zoo.url) as http:
                start.wait()
                return http.post("/apps/zoo/effect", json={"key": key}, headers={"Idempotency-Key": key})

        with ThreadPoolExecutor(8) as pool:
            answers = [done.result() for done in [pool.submit(send) for _ in range(8)]]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 7
        assert zoo.call("effects", prefix=key) == {key: 1}


@pytest.mark.parametrize("key", ["", "a\tb", "ä", "x" * 256])
def test_a_key_that_cannot_be_one_is_refused(zoo, key):
    response = zoo.http.post(
        "/apps/zoo/bump", json={"name": "keys"}, headers={"Idempotency-Key": key.encode("latin-1")}
    )
    problem(response, 400, "wrong_arguments")


@pytest.mark.parametrize("path", ["/apps/zoo/bump", "/api/v1/workflows/0198f1c2-0000-7000-8000-000000000000/cancel"])
def test_of_two_keys_none_is_dropped(zoo, path):
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    problem(zoo.http.post(path, json={}, headers=headers), 400, "wrong_arguments")


def test_a_key_of_the_greatest_length_is_taken(zoo):
    key = (name() * 8)[:255]
    assert zoo.post("bump", {"name": key}, key=key).json() == 1
    assert zoo.post("bump", {"name": key}, key=key).json() == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "missing"),
        (b"", "missing"),
        (b"[]", ""),
        (b"null", ""),
        (b"7", ""),
        (b'"name"', ""),
        (b"{", ""),
        (b'{"name": "a"', ""),
        (b'{"name": "a"}x', ""),
        (b"{'name': 'a'}", ""),
        (b'{"name": "\xff"}', ""),
        (b'\xff\xfe{"name": "a"}', ""),
        (b'{"name": "\\ud800"}', ""),
        (b'{"name": 7}', "name"),
        (b'{"name": null}', "name"),
        (b'{"name": ["a"]}', "name"),
        (b'{"name": "a", "by": "1"}', "by"),
        (b'{"name": "a", "by": 1.5}', "by"),
        (b'{"name": "a", "by": true}', "by"),
        (b'{"name": "a", "by": NaN}', "by"),
        (b'{"name": "a", "by": Infinity}', "by"),
        (b'{"name": "a", "by": 1e999}', "by"),
        (b'{"name": "a", "by": 9223372036854775808}', "by"),
        (b'{"name": "a", "by": ' + b"9" * 5000 + b"}", ""),
        (b'{"name": "a", "bye": 1}', "did you mean 'by'"),
        (b'{"name": "a", "tx": 1}', "no such argument"),
        (b'{"name": ' + b"[" * 100_000, ""),
        (b"[" * 100_000 + b"]" * 100_000, ""),
        (b'{"name": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, ""),
    ],
    ids=lambda value: value[:30].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_wrong_arguments_are_refused_with_the_reason(zoo, body, says):
    response = zoo.http.post("/apps/zoo/bump", content=body, headers={"Content-Type": "application/json"})
    found = problem(response, 400, "wrong_arguments")
    assert "bump" in found["hint"]
    assert says in found["detail"]


def test_a_key_twice_in_an_object_counts_once(zoo):
    counter = name()
    body = f'{{"name": "x", "name": "{counter}"}}'.encode()
    for _ in range(2):
        response = zoo.http.post("/apps/zoo/bump", content=body, headers={"Idempotency-Key": counter})
        assert (response.status_code, response.json()) == (200, 1)


def test_values_that_a_database_can_and_cannot_hold(zoo):
    key = name()
    assert zoo.call("store", key=key, value=2**63 - 1, text="\x00'\";--\U0001f41d") == 1
    assert zoo.call("store", key=key, value=-(2**63)) == 2
    problem(zoo.post("bump", {"name": name(), "by": 2**64}), 400, "wrong_arguments")


@pytest.mark.parametrize(
    "query",
    [
        "name=a&name=b&x=1",
        "a",
        "name",
        "=",
        "%",
        "name=%ff",
        "name=%ED%A0%80",
        "&&&",
        "name=a;b&c",
        "nmae=a",
        "name=%00",
        "integer=x",
        "name=" + "[" * 50_000,
        "name=" + '{"a":' * 5_000,
        "name=[1",
    ],
    ids=lambda value: value[:20],
)
def test_query_strings_of_any_kind_are_no_fault_of_the_server(zoo, query):
    response = zoo.http.get("/apps/zoo/count?" + query)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        problem(response, 400, "wrong_arguments")


def test_query_strings_whose_values_are_structures(zoo):
    deep = "[" * 50_000
    for query in (f"integer={deep}", f"integer=1&numbers={deep}", "integer=1&numbers={}", f"integer={'9' * 5000}"):
        problem(zoo.http.get("/apps/zoo/scalars?" + query), 400, "wrong_arguments")


def test_unknown_names_are_answered_with_the_nearest(zoo):
    found = problem(zoo.post("bmup", {}), 404, "unknown_function")
    assert "bump" in found["hint"]
    found = problem(zoo.post("bump", {}, app="zooo"), 404, "unknown_app")
    assert "zoo" in found["hint"]
    found = problem(zoo.post("qqqqqqqq", {}), 404, "unknown_function")
    assert "bump" in found["hint"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_refused_with_those_that_are_allowed(zoo, method):
    for function, allowed in (("count", "GET, POST"), ("bump", "POST")):
        response = zoo.http.request(method, f"/apps/zoo/{function}")
        assert response.status_code == 405, response.text
        assert response.headers["allow"] == allowed
        assert ID.match(response.headers["apiary-call-id"])
        if method != "HEAD":
            problem(response, 405, "method_not_allowed")


def test_a_transaction_is_not_called_with_get(zoo):
    response = zoo.http.get("/apps/zoo/bump?name=a")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_a_body_that_does_not_say_that_it_is_json_is_refused(zoo, kind):
    response = zoo.http.post("/apps/zoo/bump", content=b'{"name": "a"}', headers={"Content-Type": kind})
    problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.zoo+json", None]
)
def test_a_body_of_json_is_taken(zoo, kind):
    counter = name()
    headers = {"Content-Type": kind} if kind else {}
    response = zoo.http.post("/apps/zoo/bump", content=json.dumps({"name": counter}).encode(), headers=headers)
    assert (response.status_code, response.json()) == (200, 1)


def test_roles_are_asked_for(zoo):
    assert zoo.call("for_admins") == "admin"
    assert zoo.post("for_keepers").status_code == 200
    with new_client(base_url=zoo.url) as anonymous:
        assert anonymous.post("/apps/zoo/bump", json={"name": name()}).status_code == 200
        problem(anonymous.post("/apps/zoo/for_admins"), 403, "forbidden")
        problem(anonymous.post("/apps/zoo/for_keepers"), 403, "forbidden")


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "", "Bearer \xff\xfe", "Bearer " + "x" * 10_000]
)
def test_a_wrong_key_is_refused_even_where_none_is_needed(zoo, value):
    with new_client(base_url=zoo.url) as http:
        response = http.post("/apps/zoo/bump_default", headers={"Authorization": value.encode("latin-1")})
    problem(response, 401, "not_authenticated")
    assert response.headers["www-authenticate"] == "Bearer"


def test_large_results_arrive(zoo):
    assert len(zoo.call("large_result", megabytes=8)) == 8 * 2**20


def test_what_a_call_raises_leaves_the_app_in_order(zoo):
    problem(zoo.post("recurse", {}), 500, "internal_error")
    problem(zoo.post("fail", {}), 500, "internal_error")
    for how in ("MemoryError", "RecursionError", "StopIteration"):
        problem(zoo.post("leave", {"how": how}), 500, "internal_error")
    assert zoo.call("count", name="leave") == 0
