"""OpenAPI documents: valid, true to what the functions answer, and no request made from them is a server's fault."""

import re
from pathlib import Path

import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from apiary.gateway.openapi import IDEMPOTENCY_KEY

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLES_EACH = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HARMFUL = re.compile(
    "kill|segfault|leave|spin|block|regex|recurse|large|descriptors|fork|print|slow|later_run|fail|later$"
    "|approval|parent|shifty|nap|guard"  # these wait
)


@pytest.fixture(scope="module")
def server(tmp_path_factory, tools):
    server = tools.Server(tmp_path_factory.mktemp("openapi"), "--anonymous-calls").start()
    server.deployed(tools.APPS / "zoo")
    server.deployed(tools.APPS / "names")
    server.deployed(tools.APPS / "flows")
    for name in ("shop", "nectar", "retwis"):
        server.deployed(EXAMPLES / name)
    yield server
    server.end()


def document(server, app: str) -> dict:
    return server.http.get(f"/apps/{app}/openapi.json").json()


def checks(server, operation, mode) -> None:
    """Send what Hypothesis makes of the schema of an operation, and look at the answers."""

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=EXAMPLES_EACH,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def check(case: Case) -> None:
        response = case.call(base_url=server.url)
        case.validate_response(response, checks=CHECKS)

    check()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("app", ["zoo", "names", "flows", "shop", "nectar", "retwis"])
def test_no_request_is_a_fault_of_the_server(server, app, mode):
    found = document(server, app)
    found["paths"] = {path: item for path, item in found["paths"].items() if not HARMFUL.search(path.rsplit("/", 1)[1])}
    schema = schemathesis.openapi.from_dict(found)
    for operation in schema.get_all_operations():
        try:
            checks(server, operation.ok(), mode)
        except hypothesis.errors.Unsatisfiable:
            continue


@pytest.mark.parametrize("app", ["zoo", "names", "flows", "shop", "nectar", "retwis"])
def test_documents_are_complete(server, app):
    found = document(server, app)
    assert found["openapi"] == "3.1.0"
    schemas = found["components"]["schemas"]
    text = str(found)
    for name in re.findall(r"#/components/schemas/([^'\"]+)", text):
        assert name in schemas
    assert "$defs" not in text
    operations = [operation for item in found["paths"].values() for operation in item.values()]
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_workflows_may_be_answered_before_they_end(server):
    found = document(server, "flows")["paths"]
    post = found["/apps/flows/approval"]["post"]
    assert {parameter["name"] for parameter in post["parameters"]} == {"Idempotency-Key", "Prefer"}
    begun = post["responses"]["202"]
    assert {"Location", "Apiary-Call-Id"} <= begun["headers"].keys()
    answer = server.http.post("/apps/flows/approval", json={}, headers={"Prefer": "respond-async"})
    assert jsonschema_rs.validator_for(begun["content"]["application/json"]["schema"]).is_valid(answer.json())
    assert "get" not in found["/apps/flows/approval"]
    assert "202" not in found["/apps/flows/put"]["post"]["responses"]


@pytest.mark.parametrize(
    ("key", "fits"), [("a", True), ("schedule tick 9", True), ("~!", True), (" ", False), (" a", False), ("a\n", False)]
)
def test_the_pattern_of_an_idempotency_key_is_what_the_server_takes(key, fits):
    assert (re.search(IDEMPOTENCY_KEY["schema"]["pattern"].replace("$", r"\Z"), key) is not None) is fits


def test_types_of_one_name_keep_apart(server):
    found = document(server, "names")

    def arguments(function: str) -> dict:
        body = found["paths"][f"/apps/names/{function}"]["post"]["requestBody"]
        return {**body["content"]["application/json"]["schema"], "components": found["components"]}

    first, second = (jsonschema_rs.validator_for(arguments(name)) for name in ("take_first", "take_second"))
    assert first.is_valid({"item": {"size": 1}})
    assert not first.is_valid({"item": {"colour": "red"}})
    assert second.is_valid({"item": {"colour": "red"}})
    assert not second.is_valid({"item": {"size": 1}})
    # What is optional on the way in may be promised on the way out.
    assert jsonschema_rs.validator_for(arguments("through")).is_valid({"item": {}})
    assert server.post("through", {"item": {}}, app="names").json() == {"size": 3}


def test_the_index_leads_to_the_apps(server):
    page = server.http.get("/").text
    for app in ("zoo", "shop", "nectar", "retwis"):
        assert f'href="/apps/{app}/docs"' in page
    assert 'href="/apps/nectar/web/"' in page
    assert "zoo" in server.http.get("/apps/zoo/web/").text
    redirect = server.http.get("/apps/zoo/web")
    assert redirect.status_code in (302, 307)
    assert redirect.headers["location"].endswith("/apps/zoo/web/")
