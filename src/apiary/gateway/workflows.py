"""`/api/v1/workflows`: which there are, what became of them, and what is done to them from outside.

Administrators see and do everything. Who started a workflow may follow it, wait for its result, send to it and cancel
it; what its steps were given and returned is the app's business.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apiary.finite import no_number
from apiary.gateway.calls import ANONYMOUS, WORKFLOWS, Calls, check_type
from apiary.gateway.wire import PROBLEM, SECONDS, idempotency_key, read_body
from apiary.platform.messages import Answer, Invoke
from apiary.platform.platform import Caller, Platform
from apiary.runtime.advance import blocked
from apiary.runtime.control import PREFIX, RESULT, check_starter
from apiary.runtime.errors import Forbidden, NotFound, WrongArguments, from_problem
from apiary.runtime.failures import told
from apiary.runtime.ids import id_bytes, id_text, new_id

MAX_WAIT_SECONDS = 60.0
GRACE_SECONDS = 10.0
"""Beyond its wait, a host may take so long to say that a workflow goes on."""
MAX_KNOWN_APPS = 10_000
NUMBER = re.compile("[0-9]{1,15}")
FILTERS = ("function", "status", "caller", "before")


class Workflows:
    """The routes, and what they need."""

    def __init__(self, platform: Platform, calls: Calls) -> None:
        self._platform = platform
        self._calls = calls
        self._limit = platform.settings.max_request_bytes
        self._apps: dict[str, str] = {}

    def routes(self) -> list[Route]:
        """What is to be added to the others."""
        place = WORKFLOWS.decode() + "{workflow}"
        return [
            Route(WORKFLOWS.decode().rstrip("/"), self.every),
            Route(place, self.one),
            Route(f"{place}/result", self.result),
            Route(f"{place}/export", self.export),
            Route(f"{place}/messages", self.send, methods=["POST"]),
            Route(f"{place}/cancel", self.cancel, methods=["POST"]),
            Route(f"{place}/resume", self.resume, methods=["POST"]),
            Route(f"{place}/fork", self.fork, methods=["POST"]),
        ]

    async def every(self, request: Request) -> Response:
        """The workflows of an app, or of all, the latest first. Without the role `admin`, one's own."""
        caller = self._calls.caller(request.scope["headers"])
        given = dict(request.query_params)
        app = given.pop("app", None)
        asked = _asked(given)
        if "admin" not in caller.roles:
            if caller == ANONYMOUS or asked.get("caller", caller.name) != caller.name:
                raise Forbidden("this is for administrators", hint="use the admin key of the server")
            asked["caller"] = caller.name
        names = list(self._platform.apps) if app is None else [self._platform.app(app).app]
        found = [entry for name in names for entry in await self._of(name, asked)]
        found.sort(key=lambda entry: str(entry["id"]), reverse=True)
        return JSONResponse(found[: asked.get("limit", 50)])

    async def one(self, request: Request) -> Response:
        """Everything about one workflow. `after`, `limit`: a page of its steps."""
        caller = self._calls.caller(request.scope["headers"])
        given = dict(request.query_params)
        given.pop("app", None)
        page = {name: _number(name, value) for name, value in given.items()}
        if page.keys() - {"after", "limit"}:
            raise WrongArguments(f"a workflow is not asked for by {min(page.keys() - {'after', 'limit'})!r}")
        app, found = await self._find(request, "workflow", page)
        check_starter(found["caller"], caller.name, caller.roles)
        return JSONResponse({"app": app, **(found if "admin" in caller.roles else _for_starter(found))})

    async def export(self, request: Request) -> Response:
        """What a workflow did, whole, to be run again elsewhere."""
        self._check_admin(request)
        app, found = await self._find(request, "workflow_export", {})
        return JSONResponse({"app": app, **found})

    async def result(self, request: Request) -> Response:
        """The result of a workflow as its call has it, once it has ended; 202 if that is not within `wait` seconds."""
        caller = self._calls.caller(request.scope["headers"])
        wait = request.query_params.get("wait", "0")
        if not SECONDS.fullmatch(wait.encode()):
            raise WrongArguments(f"wait is a number of seconds, not {wait!r:.50}")
        app, found = await self._find(request, "workflow_end")
        check_starter(found["caller"], caller.name, caller.roles)
        identifier = id_text(id_bytes(request.path_params["workflow"]))
        if found["status"] == "blocked":
            raise blocked(found["function"], id_bytes(identifier))
        output, problem = found["output"], found["error"]
        if output is None and problem is None and float(wait) > 0:
            answer = await self._wait(app, identifier, caller, min(float(wait), MAX_WAIT_SECONDS))
            if answer is not None and not answer.begun:
                output = answer.output
                problem = None if answer.error is None else json.loads(answer.error)
        headers = {"apiary-call-id": identifier}
        if problem is not None:
            return JSONResponse(problem, problem["status"], headers, media_type=PROBLEM[1].decode())
        if output is None:
            return JSONResponse({"id": identifier, "status": found["status"]}, 202, {**headers, "retry-after": "1"})
        return Response(output, 200, headers, media_type="application/json")

    async def send(self, request: Request) -> Response:
        """Leave a message: `topic` and `value`."""
        given = await self._body(request, {"topic", "value"})
        if "topic" not in given:
            raise WrongArguments("a message has a topic", hint='send {"topic": "…", "value": …}')
        return await self._control(request, "send", given)

    async def cancel(self, request: Request) -> Response:
        """End it at its next step."""
        return await self._control(request, "cancel", await self._body(request, set()))

    async def resume(self, request: Request) -> Response:
        """Let it try again."""
        return await self._control(request, "resume", await self._body(request, set()))

    async def fork(self, request: Request) -> Response:
        """Begin a new one with what this one has recorded below `step`, on `version`."""
        given = await self._body(request, {"step", "version"})
        if given.get("version") is not None:
            self._check_admin(request)
            given["version"] = await self._version(await self._app_of(request), given["version"])
        return await self._control(request, "fork", given)

    def _check_admin(self, request: Request) -> None:
        if "admin" not in self._calls.caller(request.scope["headers"]).roles:
            raise Forbidden("this is for administrators", hint="use the admin key of the server")

    async def _of(self, app: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = await self._platform.ask_log(app, "workflows", **asked)
        return [{"app": app, **entry} for entry in found]

    async def _find(
        self, request: Request, question: str, page: Mapping[str, int] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The app that has a workflow, and what its log says; `NotFound` where none has it."""
        workflow = request.path_params["workflow"]
        known = request.query_params.get("app") or self._apps.get(workflow)
        missing = NotFound("there are no apps yet")
        for app in [known] if known is not None else list(self._platform.apps):
            asked = {} if page is None else {"visible": self._visible(app), **page}
            try:
                found = await self._platform.ask_log(app, question, workflow=workflow, **asked)
            except NotFound as error:
                missing = error
                continue
            if len(self._apps) >= MAX_KNOWN_APPS:
                self._apps.clear()
            self._apps[workflow] = app
            return app, found
        raise missing

    def _visible(self, app: str) -> dict[str, Any]:
        """The arguments that may be shown, by function, as the version says that serves."""
        functions = self._platform.app(app).manifest.get("functions", {})
        return {name: function["visible"] for name, function in functions.items()}

    async def _app_of(self, request: Request) -> str:
        apps = self._platform.apps
        return next(iter(apps)) if len(apps) == 1 else (await self._find(request, "workflow_end"))[0]

    async def _wait(self, app: str, workflow: str, caller: Caller, seconds: float) -> Answer | None:
        """What a workflow comes to within so many seconds, if its host says so."""
        given = json.dumps({"workflow": workflow}).encode()
        message = Invoke(new_id(), RESULT, given, caller.name, caller.roles, wait=seconds)
        answer = self._platform.app(app).call(message, within=seconds + GRACE_SECONDS)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), seconds + 1.0)
        except TimeoutError:
            return None

    async def _control(self, request: Request, operation: str, given: Mapping[str, Any]) -> Response:
        """Have the host of the app do something to a workflow, as a call of its own; the answer to that."""
        headers = request.scope["headers"]
        caller = self._calls.caller(headers)
        key = idempotency_key(headers)
        try:
            body = json.dumps({**given, "workflow": request.path_params["workflow"]}).encode()
        except RecursionError:
            raise WrongArguments("the body is nested too deeply") from None
        hosts = self._platform.app(await self._app_of(request))
        identifier = id_bytes(request.scope["apiary.call_id"])
        answer = await hosts.call(Invoke(identifier, PREFIX + operation, body, caller.name, caller.roles, key))
        if answer.error is not None:
            raise from_problem(json.loads(answer.error))
        answered = {"apiary-call-id": id_text(answer.replayed or identifier)}
        if answer.replayed is not None:
            answered["idempotency-replayed"] = "true"
        found = json.loads(answer.output)
        if found is None:
            return JSONResponse({"id": id_text(id_bytes(request.path_params["workflow"]))}, 200, answered)
        return JSONResponse(found, 201, {**answered, "location": WORKFLOWS.decode() + found["id"]})

    async def _body(self, request: Request, names: set[str]) -> dict[str, Any]:
        """The JSON object in the body of a request, which has no other members than these."""
        self._calls.caller(request.scope["headers"])
        body = await read_body(request.receive, self._limit)
        check_type(body, request.headers.get("content-type"))
        try:
            given = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise WrongArguments(f"the body is no JSON: {error}") from None
        if not isinstance(given, dict):
            raise WrongArguments("the body is no JSON object")
        if given.keys() - names:
            raise WrongArguments(f"the body has {min(given.keys() - names)!r:.50}, which is not known here")
        if found := no_number(body):
            raise WrongArguments(f"{found[1]:.30} is no number in JSON, or out of range")
        return given

    async def _version(self, app: str, wanted: Any) -> str:
        """The version that is meant, by its first digits."""
        if not isinstance(wanted, str) or not wanted:
            raise WrongArguments(f"a version is text, not {wanted!r:.50}")
        names = {version.version for version in await self._platform.versions(app)}
        fitting = [name for name in names if name.startswith(wanted)]
        if len(fitting) != 1:
            raise NotFound(f"{app} has {'no' if not fitting else 'more than one'} version {wanted!r:.50}")
        return fitting[0]


def _asked(given: Mapping[str, str]) -> dict[str, Any]:
    """Filters, as they stand in a query string."""
    asked: dict[str, Any] = {}
    for name, value in given.items():
        if name in FILTERS:
            asked[name] = value
        elif name == "limit":
            asked[name] = _number(name, value)
        elif name == "roots" and value in ("true", "false"):
            asked[name] = value == "true"
        else:
            raise WrongArguments(f"workflows cannot be asked for by {name:.50}={value!r:.50}")
    return asked


def _number(name: str, value: str) -> int:
    if not NUMBER.fullmatch(value):
        raise WrongArguments(f"{name:.50} is a number, not {value!r:.50}")
    return int(value)


def _for_starter(found: Mapping[str, Any]) -> dict[str, Any]:
    """What those may see of a workflow who started it."""
    hidden = {"input": None, "output": None, "error": None}
    error = found["error"]
    if found["status"] == "blocked":
        error = blocked(found["function"], id_bytes(found["id"])).problem()
    return {
        **found,
        "error": error and told(error),
        "lines": [],
        "steps": [{**step, **hidden} for step in found["steps"]],
    }
