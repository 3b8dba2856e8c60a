"""Everything that is not a call: the platform's own API, OpenAPI documents, docs pages, web pages, health, metrics."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from apiary.bundle import MAX_BUNDLE_BYTES, Bundle, disk_failed
from apiary.gateway.calls import Calls
from apiary.gateway.log import Logs
from apiary.gateway.metrics import Metrics
from apiary.gateway.openapi import document
from apiary.gateway.queues import Queues
from apiary.gateway.wire import Disconnected, problem_body, problem_headers, read_body
from apiary.gateway.workflows import Workflows
from apiary.platform.hosts import AppHosts
from apiary.platform.memory import resident_bytes
from apiary.platform.platform import Caller, Platform
from apiary.platform.process import HostProcess
from apiary.runtime.errors import (
    Error,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Unavailable,
    WrongArguments,
)

MAX_REQUIREMENTS_BYTES = 64 * 1024
PART_BYTES = 256 * 1024


class Api:
    """The routes, and what they need."""

    def __init__(self, platform: Platform, calls: Calls, metrics: Metrics) -> None:
        self._platform = platform
        self._calls = calls
        self._metrics = metrics
        self._queues = Queues(platform, calls)

    def starlette(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/healthz", self.health),
                Route("/metrics", self.metrics),
                Route("/", self.index),
                Route("/apps/{app}/openapi.json", self.openapi),
                Route("/apps/{app}/docs", self.docs),
                Route("/apps/{app}/web", self.to_web),
                Route("/apps/{app}/web/{path:path}", self.web),
                Mount("/static/docs", StaticFiles(packages=[("swagger_ui", "static")])),
                Route("/api/v1/apps", self.apps, methods=["GET"]),
                Route("/api/v1/apps", self.deploy, methods=["POST"]),
                Route("/api/v1/apps/{app}", self.app),
                Route("/api/v1/apps/{app}/versions", self.versions),
                Route("/api/v1/apps/{app}/rollback", self.rollback, methods=["POST"]),
                Route("/api/v1/calls", self.logged_calls),
                Route("/api/v1/calls/{call}", self.logged_call),
                *self._queues.routes(),
                *Workflows(self._platform, self._calls).routes(),
                *Logs(self._platform, self._calls).routes(),
                Route("/api/v1/servers", self.servers),
                Route("/api/v1/backup", self.backup),
            ],
            exception_handlers={
                Error: _problem,
                HTTPException: _http_problem,
                Disconnected: _nobody,
                OSError: _system_failure,
                Exception: _failure,
            },
        )

    async def health(self, request: Request) -> Response:
        """Whether the server answers, and which apps do not."""
        down = sorted(name for name, hosts in self._platform.apps.items() if hosts.active is None)
        return JSONResponse({"status": "degraded" if down else "ok", "apps_down": down})

    async def metrics(self, request: Request) -> Response:
        """All metrics, for Prometheus."""
        self._metrics.queues = await self._queues.counted()
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def index(self, request: Request) -> Response:
        """A page that leads to the apps."""
        items = "".join(
            f"<li><b>{name}</b>"
            + (f'<a href="/apps/{name}/web/">pages</a>' if hosts.manifest.get("web") else "")
            + f'<a href="/apps/{name}/docs">functions</a>'
            for name, hosts in sorted(self._platform.apps.items())
        )
        return HTMLResponse(_html("index.html", items=items or "<p>No apps yet: apiary deploy PATH</p>"))

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document of an app."""
        hosts = self._running(request)
        return JSONResponse(document(hosts.manifest, str(request.base_url).rstrip("/")))

    async def docs(self, request: Request) -> Response:
        """The interactive docs page of an app (Swagger UI, served from here)."""
        name = self._running(request).app
        return HTMLResponse(_html("docs.html", app=name))

    async def to_web(self, request: Request) -> Response:
        """Relative links of the app's pages need the slash."""
        return RedirectResponse(f"/apps/{request.path_params['app']}/web/")

    async def web(self, request: Request) -> Response:
        """A file of the app's `web/` folder."""
        folder = self._running(request).manifest.get("web")
        if folder is None:
            raise NotFound("the app has no web pages", hint="put them into web/ beside its module")
        file = _page(Path(folder), request.path_params["path"])
        if file is None:
            raise NotFound(f"there is no page {request.path_params['path']!r}")
        return FileResponse(file)

    async def apps(self, request: Request) -> Response:
        """The apps that are deployed."""
        self._admin(request)
        return JSONResponse([self._described(hosts) for _, hosts in sorted(self._platform.apps.items())])

    async def app(self, request: Request) -> Response:
        """One app: its functions and its processes."""
        self._admin(request)
        return JSONResponse(self._described(self._hosts(request)))

    async def deploy(self, request: Request) -> Response:
        """Deploy the bundle in the body. `module` (query): what to import."""
        caller = self._admin(request)
        module = request.query_params.get("module", "")
        if not module.isidentifier():
            raise WrongArguments("the query parameter `module` must name the module to import")
        content = await read_body(request.receive, MAX_BUNDLE_BYTES + MAX_REQUIREMENTS_BYTES)
        app, version, migrated = await self._platform.deploy(Bundle(module, content), caller)
        return JSONResponse({"app": app, "version": version, "migrations": migrated}, status_code=201)

    async def versions(self, request: Request) -> Response:
        """The versions of an app."""
        self._admin(request)
        found = await self._platform.versions(self._hosts(request).app)
        return JSONResponse([version.model_dump(mode="json") for version in found])

    async def rollback(self, request: Request) -> Response:
        """Let an older version serve again: `version` (query), or the one before the present."""
        caller = self._admin(request)
        app = self._hosts(request).app
        version = await self._platform.rollback(app, request.query_params.get("version"), caller)
        return JSONResponse({"app": app, "version": version})

    async def logged_calls(self, request: Request) -> Response:
        """The latest calls of an app, or of all."""
        self._admin(request)
        given = dict(request.query_params)
        app = given.pop("app", None)
        arguments: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("function", "status", "caller", "text"):
                arguments[name] = value
            elif name in ("limit", "before", "after", "since", "until") and re.fullmatch("[0-9]{1,18}", value):
                arguments[name] = int(value)
            else:
                raise WrongArguments(f"calls cannot be asked for by {name}={value!r}")
        if app is not None:
            return JSONResponse(await self._calls_of(app, arguments))
        every = [call for name in self._platform.apps for call in await self._calls_of(name, arguments)]
        every.sort(key=lambda call: call["started"], reverse=True)
        return JSONResponse(every[: arguments.get("limit", 50)])

    async def logged_call(self, request: Request) -> Response:
        """Everything about one call; with `effects=true` also what it read and wrote."""
        self._admin(request)
        effects = request.query_params.get("effects", "false")
        if effects not in ("true", "false"):
            raise WrongArguments(f"effects is true or false, not {effects!r:.50}")
        call = request.path_params["call"]
        app, found = await self._platform.ask_logs("show", call=call, effects=effects == "true")
        return JSONResponse({"app": app, **found})

    async def servers(self, request: Request) -> Response:
        """The servers that share the database, with their hosts."""
        self._admin(request)
        return JSONResponse(await self._platform.servers())

    async def backup(self, request: Request) -> Response:
        """All databases in one tar file."""
        self._admin(request)
        archive = await self._platform.backup()
        headers = {"content-length": str(archive.tell())}
        return StreamingResponse(_parts(archive), media_type="application/x-tar", headers=headers)

    async def _calls_of(self, app: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        found = await self._platform.ask_log(app, "calls", **arguments)
        return [{"app": app, **call} for call in found]

    def _admin(self, request: Request) -> Caller:
        caller = self._calls.caller(request.scope["headers"])
        if "admin" not in caller.roles:
            raise Forbidden("this is for administrators", hint="use the admin key of the server")
        return caller

    def _described(self, hosts: AppHosts) -> dict[str, Any]:
        return _described(hosts, self._platform.retention.days(hosts))

    def _hosts(self, request: Request) -> AppHosts:
        return self._platform.app(request.path_params["app"])

    def _running(self, request: Request) -> AppHosts:
        hosts = self._hosts(request)
        if hosts.active is None:
            raise Unavailable(f"the app {hosts.app} is not running at the moment")
        return hosts


def _described(hosts: AppHosts, days: float | None) -> dict[str, Any]:
    running = [(host, "serving") for host in (hosts.active,) if host] + [(host, "draining") for host in hosts.draining]
    running += [(host, "migrating") for host in (hosts.migrating,) if host]
    return {
        "app": hosts.app,
        "version": hosts.version,
        "functions": {name: function["kind"] for name, function in hosts.manifest.get("functions", {}).items()},
        "migrating": _migrating(hosts.migrating),
        "keep_workflows_days": days,
        "hosts": [
            {
                "version": host.version,
                "pid": host.pid,
                "state": state,
                "held": host.held,
                "in_flight": len(host.in_flight),
                "resident_bytes": resident_bytes(host.pid),
            }
            for host, state in running
        ],
    }


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while part := file.read(PART_BYTES):
            yield part


def _migrating(host: HostProcess | None) -> dict[str, Any] | None:
    if host is None or host.migrating_since is None:
        return None
    seconds = time.monotonic() - host.migrating_since
    return {"version": host.version, "migrations": host.pending, "seconds": seconds}


def _html(page: str, **values: str) -> str:
    """One of the platform's own pages."""
    text = files("apiary.gateway").joinpath(page).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _page(folder: Path, path: str) -> Path | None:
    """The file of a page, or none where there is none in the folder."""
    base = folder.resolve()
    try:
        file = (base / (path or "index.html")).resolve()
        if file.is_dir():
            file /= "index.html"
        return file if file.is_relative_to(base) and file.is_file() else None
    except (OSError, ValueError):  # a path that no file can have: too long, or with a NUL in it
        return None


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    headers = {name.decode(): value.decode() for name, value in problem_headers(error)}
    return Response(problem_body(error, request.scope["apiary.call_id"]), error.status, headers)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _system_failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if not disk_failed(error):
        return await _failure(request, error)
    return await _problem(request, Unavailable(f"a file of the server cannot be written: {error.strerror}"))


async def _failure(request: Request, error: Exception) -> Response:
    traceback.print_exception(error, file=sys.stderr)
    hint = "this is a fault of the server, whose output has the traceback"
    return await _problem(request, InternalError("the server failed to answer this request", hint=hint))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET")
        return await _problem(request, MethodNotAllowed(f"{request.method} is not for this address", allow=allow))
    hint = "calls go to /apps/APP/FUNCTION, the platform's own API is at /api/v1/"
    return await _problem(request, NotFound(f"there is nothing at {request.scope['path']}", hint=hint))
