"""`/api/v1/log`: questions about what calls read and wrote. For administrators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apiary.gateway.calls import Calls
from apiary.platform.platform import Platform
from apiary.runtime.errors import Forbidden, NotFound, WrongArguments

WANTED: dict[str, set[str]] = {
    "sql": {"statement"},
    "history": {"table", "key"},
    "as_of": {"table", "key", "at"},
    "readers": {"table", "key"},
    "trace": {"call"},
    "downstream": set(),
    "leaks": {"table", "allowed"},
    "recording": {"call"},
}
"""The questions, and the parameters that each must have. Of which app a call is, need not be said."""
OPTIONS = {
    "sql": {"limit", "seconds"},
    "history": {"limit"},
    "readers": {"limit", "since"},
    "trace": {"depth", "limit"},
    "downstream": {"call", "table", "key", "depth", "limit"},
    "leaks": {"caller", "function", "since", "limit"},
}
"""The parameters that each may have."""


class Logs:
    """The routes, and what they need."""

    def __init__(self, platform: Platform, calls: Calls) -> None:
        self._platform = platform
        self._calls = calls

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route(f"/api/v1/log/{question.replace('_', '-')}", self._asking(question)) for question in WANTED]

    def _asking(self, question: str) -> Callable[[Request], Awaitable[Response]]:
        async def ask(request: Request) -> Response:
            self._check_admin(request)
            given: dict[str, Any] = dict(request.query_params)
            app = given.pop("app", None)
            known = WANTED[question] | OPTIONS.get(question, set())
            wrong = sorted(WANTED[question] - given.keys()) + sorted(given.keys() - known)
            if wrong:
                how = "needs" if wrong[0] in known else "has no parameter"
                raise WrongArguments(f"log {question} {how} {wrong[0]!r:.50}")
            if app is None and "call" in given:
                app, found = await self._platform.ask_logs(question, **given)
                return JSONResponse({"app": app, **found})
            return JSONResponse(await self._platform.ask_log(app or self._only_app(), question, **given))

        return ask

    def _only_app(self) -> str:
        names = list(self._platform.apps)
        if len(names) != 1:
            hint = f"name one of these: {', '.join(sorted(names))}" if names else "deploy one: apiary deploy PATH"
            raise NotFound("which app is meant is not clear" if names else "there are no apps yet", hint=hint)
        return names[0]

    def _check_admin(self, request: Request) -> None:
        if "admin" not in self._calls.caller(request.scope["headers"]).roles:
            raise Forbidden("this is for administrators", hint="use the admin key of the server")
