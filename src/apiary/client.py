"""`apiary.Client`: calls over HTTP. What the server refuses is raised as the same errors that functions raise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload
from urllib.parse import quote, urlsplit

import httpx

from apiary.codec import FunctionCodec
from apiary.given import given_key, write_given
from apiary.runtime.declaration import Function
from apiary.runtime.errors import Error, HostCrashed, Unavailable, WrongArguments, from_problem
from apiary.runtime.ids import id_text, new_id
from apiary.runtime.transaction import Transaction

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT_SECONDS = 90.0
RETRY_SECONDS = (0.1, 0.3, 1.0, 2.0)


class Unreachable(Unavailable):
    """No server answers at the URL."""

    code = "unreachable"


class Http:
    """Requests to one server, with its key; a problem document becomes an exception."""

    def __init__(self, url: str, key: str | None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
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
            raise Unreachable(f"the connection to {self.url} broke off ({error})") from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            hint = "is the server running? start one: apiary serve, or apiary dev PATH"
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

    @overload
    def call(self, function: str, /, *, idempotency_key: str | None = None, **arguments: Any) -> Any: ...
    @overload
    def call(
        self, function: Function[Concatenate[Transaction, P], R], /, *args: P.args, **arguments: P.kwargs
    ) -> R: ...
    @overload
    def call(self, function: Function[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    def call(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Call a function and return its result: JSON values for a name, the declared type for a function object.

        Every call bears an idempotency key (a fresh one where none is given), so that one whose answer was lost is
        sent again safely, a few times.
        """
        idempotency_key = given_key(arguments.pop("idempotency_key", None))
        if isinstance(function, Function):
            codec = FunctionCodec(function)
            body = codec.encode_arguments(args, arguments)
            return codec.decode_result(self._post(function.app.name, function.name, body, idempotency_key).content)
        if args:
            raise WrongArguments("arguments are given by name: call('cart', user=7)")
        app, _, name = function.rpartition(".")
        body, _ = write_given(name, arguments)
        return self._post(app or self._app, name, body, idempotency_key).json()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, app: str | None, function: str, body: bytes, key: str | None) -> httpx.Response:
        if app is None:
            raise WrongArguments("which app? Client(url, app='shop'), or call('shop.cart', …)")
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or id_text(new_id())}
        path = f"/apps/{quote(app, safe='')}/{quote(function, safe='')}"
        for wait in RETRY_SECONDS:
            try:
                return self._http.post(path, body, headers)
            except HostCrashed:
                raise
            except Unavailable:
                time.sleep(wait)
        return self._http.post(path, body, headers)


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
