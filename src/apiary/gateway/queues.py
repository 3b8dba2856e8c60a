"""`/api/v1/apps/{app}/queues`: what waits, what runs; and a queue can be paused. For administrators."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from apiary.gateway.calls import Calls
from apiary.platform.messages import Invoke
from apiary.platform.platform import Platform
from apiary.runtime.control import PREFIX
from apiary.runtime.errors import Error, Forbidden, from_problem
from apiary.runtime.ids import id_bytes, id_text


class Queues:
    """The routes, and what they need."""

    def __init__(self, platform: Platform, calls: Calls) -> None:
        self._platform = platform
        self._calls = calls

    def routes(self) -> list[Route]:
        """What is to be added to the others."""
        place = "/api/v1/apps/{app}/queues"
        return [
            Route(place, self.every),
            Route(f"{place}/{{queue}}/pause", self.pause, methods=["POST"]),
            Route(f"{place}/{{queue}}/resume", self.resume, methods=["POST"]),
        ]

    async def every(self, request: Request) -> Response:
        """The queues of an app."""
        self._admin(request)
        return JSONResponse(await self._platform.queues(request.path_params["app"]))

    async def pause(self, request: Request) -> Response:
        """Begin no more of its calls; those that run go on."""
        return await self._control(request, "pause")

    async def resume(self, request: Request) -> Response:
        """Begin its calls again."""
        return await self._control(request, "unpause")

    async def counted(self) -> dict[str, list[dict[str, Any]]]:
        """The queues of all apps that declare some, by app, as far as their databases can be asked."""
        found = {}
        for name, hosts in list(self._platform.apps.items()):
            if hosts.manifest.get("queues"):
                try:
                    found[name] = await self._platform.queues(name)
                except Error:
                    continue
        return found

    async def _control(self, request: Request, operation: str) -> Response:
        caller = self._admin(request)
        hosts = self._platform.app(request.path_params["app"])
        identifier = id_bytes(request.scope["apiary.call_id"])
        queue = request.path_params["queue"]
        body = json.dumps({"queue": queue}).encode()
        answer = await hosts.call(Invoke(identifier, PREFIX + operation, body, caller.name, caller.roles))
        if answer.error is not None:
            raise from_problem(json.loads(answer.error))
        paused = {"queue": queue, "paused": operation == "pause"}
        return JSONResponse(paused, headers={"apiary-call-id": id_text(identifier)})

    def _admin(self, request: Request) -> Any:
        caller = self._calls.caller(request.scope["headers"])
        if "admin" not in caller.roles:
            raise Forbidden("this is for administrators", hint="use the admin key of the server")
        return caller
