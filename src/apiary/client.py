"""`apiary.Client`: calls over HTTP. What the server refuses is raised as the same errors that functions raise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload
from urllib.parse import quote, urlsplit

import httpx

from apiary.codec import FunctionCodec
from apiary.given import check_callable, given_key, write_given
from apiary.handle import WAIT_SECONDS, Ended, WorkflowHandle
from apiary.log.asking import AppLog
from apiary.runtime.declaration import Function
from apiary.runtime.errors import Error, HostCrashed, Unavailable, WrongArguments, from_problem
from apiary.runtime.ids import id_text, new_id
from apiary.runtime.transaction import Transaction
from apiary.runtime.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 90.0
RETRY_SECONDS = (0.1, 0.3, 1.0, 2.0)
PATIENT_SECONDS = (*RETRY_SECONDS, *[3.0] * 19)
"""Who waits for a workflow waits for a server that is started again, too: a minute."""
ACCEPTED = 202
OPERATIONS = {"send": "messages"}
"""Where what is done to workflows has another name than what does it."""

Decode = Callable[[Ended], Any]


class Unreachable(Unavailable):
    """No server answers at the URL."""

    code = "unreachable"


class Http:
    """Requests to one server, with its key; a problem document becomes an exception."""

    def __init__(self, url: str, key: str | None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
        if key and not key.isprintable():
            raise WrongArguments("a key has printable characters only", hint="is there a line end behind it?")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise WrongArguments(f"{url!r} is no URL: {error}", hint="write it like http://localhost:8000") from None
        except UnicodeEncodeError:
            raise WrongArguments("a key has ASCII characters only") from None

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of the answer to one request."""
        with self._errors():
            response = checked(self._client.request(method, path, **options))
        try:
            return response.json()
        except ValueError:
            raise Error(f"{self.url} answered something else than JSON", hint="is it an Apiary server?") from None

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """The answer to one POST."""
        with self._errors():
            return checked(self._client.post(path, content=body, headers=headers))

    def get(self, path: str, params: dict[str, str]) -> httpx.Response:
        """The answer to one GET."""
        with self._errors():
            return checked(self._client.get(path, params=params))

    @contextmanager
    def stream(self, method: str, path: str) -> Iterator[httpx.Response]:
        """An answer that is read in parts."""
        with self._errors(), self._client.stream(method, path) as response:
            if response.is_error:
                response.read()
            yield checked(response)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} did not answer in time ({error})") from None
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
            hint = "a call may have taken effect or not: with an idempotency key it can be sent again"
            raise Unreachable(f"the connection to {self.url} broke off ({error})", hint=hint) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            hint = "is the server running? start one: apiary serve, or apiary dev PATH"
            if "://" not in self.url:
                hint = f"write it like http://{self.url or 'localhost:8000'}"
            raise Unreachable(f"nothing answers at {self.url} ({error})", hint=hint) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Client:
    """Calls the functions of deployed apps.

    >>> shop = apiary.Client("http://localhost:8000", key=KEY, app="shop")
    >>> shop.call("cart", user=7)

    Without `app`, name it with the function: `client.call("shop.cart", user=7)`, or in the URL: `…/apps/shop`.
    """

    def __init__(
        self, url: str, key: str | None = None, *, app: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        parts = urlsplit(url)
        root, _, named = parts.path.partition("/apps/")
        self._app = app or named.strip("/") or None
        self._http = Http(parts._replace(path=root, query="", fragment="").geturl(), key, timeout)
        self._wait = min(WAIT_SECONDS, timeout / 2)

    @overload
    def call(self, function: str, /, *, idempotency_key: str | None = None, **arguments: Any) -> Any: ...
    @overload
    def call(
        self,
        function: Function[Concatenate[Transaction, P], R] | Function[Concatenate[Workflow, P], R],
        /,
        *args: P.args,
        **arguments: P.kwargs,
    ) -> R: ...
    @overload
    def call(self, function: Function[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    def call(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Call a function and return its result: JSON values for a name, the declared type for a function object.

        Every call bears an idempotency key (a fresh one where none is given), so that one whose answer was lost is
        sent again safely, a few times. A workflow is waited for as long as it takes.
        """
        response, decode = self._post(function, args, arguments, f"wait={self._wait:.3f}")
        if response.status_code == ACCEPTED:
            return self._handle(response, decode).result()
        return decode(Ended("", response.content))

    @overload
    def start(
        self, function: str, /, *, idempotency_key: str | None = None, **arguments: Any
    ) -> WorkflowHandle[Any]: ...
    @overload
    def start(
        self, function: Function[Concatenate[Workflow, P], R], /, *args: P.args, **arguments: P.kwargs
    ) -> WorkflowHandle[R]: ...
    @overload
    def start(
        self, function: Function[..., R], /, *args: Any, idempotency_key: str, **arguments: Any
    ) -> WorkflowHandle[R]: ...
    def start(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Begin a workflow, and return as soon as its beginning is durable: it runs to its end from there on.

        As with `call`, an answer that was lost does not begin a second one.
        """
        response, decode = self._post(function, args, arguments, "respond-async, handling=strict")
        return self._handle(response, decode)

    def workflow(self, workflow: str) -> WorkflowHandle[Any]:
        """A workflow, by its id. Its result is what JSON says."""
        return WorkflowHandle(_There(self), workflow, _plain)

    @property
    def log(self) -> AppLog:
        """The log of the app, to be asked what its calls did, with an admin key."""
        return AppLog(self._ask)

    def _ask(self, question: str, arguments: dict[str, Any]) -> Any:
        params = {"app": self._app, **arguments} if self._app else arguments
        path = f"/api/v1/log/{question.replace('_', '-')}"
        if question == "calls":
            path = "/api/v1/calls"
        elif question == "show":
            path, params = f"/api/v1/calls/{quote(params['call'], safe='')}", {"effects": "true"}
        return self._again(lambda: self._http.json("GET", path, params=params))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(
        self, function: Any, args: tuple[Any, ...], arguments: dict[str, Any], prefer: str
    ) -> tuple[httpx.Response, Decode]:
        """The answer to a call, and what makes its result a value."""
        check_callable(function)
        headers = _headers(given_key(arguments.pop("idempotency_key", None)), prefer)
        decode: Decode = _plain
        if isinstance(function, Function):
            codec = FunctionCodec(function)
            app, name, body = function.app.name, function.name, codec.encode_arguments(args, arguments)
            decode = partial(_typed, codec)
        elif args:
            raise WrongArguments("arguments are given by name: call('cart', user=7)")
        else:
            app, _, name = function.rpartition(".")
            body, _ = write_given(name, arguments)
        if not (app or self._app):
            raise WrongArguments("which app? Client(url, app='shop'), or call('shop.cart', …)")
        path = f"/apps/{quote(app or str(self._app), safe='')}/{quote(name, safe='')}"
        return self._again(lambda: self._http.post(path, body, headers)), decode

    def _handle(self, response: httpx.Response, decode: Decode) -> WorkflowHandle[Any]:
        return WorkflowHandle(_There(self), response.json()["id"], decode)

    def _again(self, request: Callable[[], T], pauses: Iterable[float] | None = None) -> T:
        """Send a request that may be repeated, after some pauses if that must be."""
        for wait in pauses or RETRY_SECONDS:
            try:
                return request()
            except HostCrashed:
                raise
            except Unavailable:
                time.sleep(wait)
        return request()


class _There:
    """The workflows of a server, as their handles reach them."""

    def __init__(self, client: Client) -> None:
        self._http = client._http
        self._again = client._again
        self._wait = client._wait

    def show(self, workflow: str, steps: int) -> dict[str, Any]:
        found: dict[str, Any] = self._again(lambda: self._http.json("GET", _path(workflow), params={"limit": steps}))
        return found

    def export(self, workflow: str) -> dict[str, Any]:
        found: dict[str, Any] = self._again(lambda: self._http.json("GET", _path(workflow, "/export")))
        return found

    def end(self, workflow: str, seconds: float) -> Ended | None:
        wait = f"{min(seconds, self._wait):.3f}"
        ask = partial(self._http.get, _path(workflow, "/result"), {"wait": wait})
        response = self._again(ask, PATIENT_SECONDS)
        return None if response.status_code == ACCEPTED else Ended("", response.content)

    def control(self, operation: str, workflow: str, arguments: dict[str, Any]) -> Any:
        given, _ = write_given(operation, {name: value for name, value in arguments.items() if value is not None})
        path, headers = _path(workflow, f"/{OPERATIONS.get(operation, operation)}"), _headers(None)
        return self._again(lambda: self._http.post(path, given, headers)).json()


def _headers(key: str | None, prefer: str = "") -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key or id_text(new_id())}
    return {**headers, "Prefer": prefer} if prefer else headers


def _path(workflow: str, rest: str = "") -> str:
    return f"/api/v1/workflows/{quote(workflow, safe='')}{rest}"


def _plain(ended: Ended) -> Any:
    return json.loads(ended.output)


def _typed(codec: FunctionCodec, ended: Ended) -> Any:
    return codec.decode_result(ended.output)


def checked(response: httpx.Response) -> httpx.Response:
    """The response, or the error that its problem document stands for."""
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        raise Error(f"the server answered {response.status_code}: {response.text[:200]}")
    error = from_problem(problem)
    error.call_id = response.headers.get("Apiary-Call-Id", error.call_id)
    raise error
