"""`Workflow`: what the first argument of a workflow can do. What it asks for is done by a `Driver` (`advance.py`)."""

from __future__ import annotations

import random
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from apiary.runtime.errors import RuleBroken
from apiary.runtime.ids import id_text
from apiary.runtime.machine import Step
from apiary.runtime.messages import receiver
from apiary.runtime.transaction import Transaction

if TYPE_CHECKING:
    from apiary.runtime.declaration import Function

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_running: ContextVar[bool] = ContextVar("apiary_workflow", default=False)


def in_workflow() -> bool:
    """Whether this code is the body of a workflow."""
    return _running.get()


class Driver(Protocol):
    """Does what a workflow asks for."""

    id: bytes
    seed: bytes
    caller: str

    def start(self, function: Function[..., Any], args: Sequence[Any], kwargs: dict[str, Any], undo: Any) -> int:
        """Begin an operation that runs a function; its number.

        `undo`: should the workflow fail, a function to call with the result, or a tuple of one and its arguments.
        """

    def wait(self, number: int) -> Step:
        """The outcome of a function that was begun. Leaves the body where it is not there yet."""

    def settle(self, number: int) -> Any:
        """The result of a function that was begun, once it is there; raises what that raised."""

    def now(self) -> int:
        """The time, in microseconds since 1970 (UTC), recorded."""

    def sleep(self, seconds: float) -> None:
        """Go on after so many seconds."""

    def receive(self, topic: str, timeout: float | None) -> Any:
        """The next message on a topic; `None` where none has come in time."""

    def send(self, workflow: bytes, topic: str, value: Any) -> None:
        """Leave a message for another workflow."""

    def publish(self, name: str, value: Any) -> None:
        """Let everybody read a value."""

    def log(self, message: str, fields: dict[str, Any]) -> None:
        """Add a line to the record of the workflow."""

    def continue_as(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Leave the body, and begin it again with other arguments and without what is recorded."""


class Future(Generic[R]):
    """The result of a function that a workflow has started."""

    __slots__ = ("_driver", "_number")

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver = driver
        self._number = number

    def result(self) -> R:
        """The result, once it is there; raises what the function raised."""
        result: R = self._driver.settle(self._number)
        return result


class Workflow:
    """A function that runs to completion, in which each function that it runs takes effect exactly once.

    Its body is run again from what is recorded whenever it has to wait or was interrupted, so it must ask for the same
    things in the same order: time, chance and the world outside come from here and from the functions that it runs.
    """

    __slots__ = ("_driver", "_random")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._random: random.Random | None = None

    @property
    def random(self) -> random.Random:
        """Numbers drawn by chance, the same ones whenever the body is run again."""
        if self._random is None:
            self._random = random.Random(self._driver.seed)
        return self._random

    @property
    def id(self) -> str:
        """The id of the workflow (a UUID)."""
        return id_text(self._driver.id)

    @property
    def caller(self) -> str:
        """Who started it: the name of a key, or `anonymous`."""
        return self._driver.caller

    @property
    def now(self) -> datetime:
        """The time (UTC) when this line ran first."""
        return datetime.fromtimestamp(self._driver.now() / 1_000_000, UTC)

    def uuid(self) -> str:
        """A new UUID (version 4), the same one whenever the body is run again."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    @overload
    def run(
        self,
        function: Function[Concatenate[Transaction, P], R] | Function[Concatenate[Workflow, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def run(self, function: Function[P, R], /, *args: Any, **kwargs: Any) -> R: ...
    def run(self, function: Any, /, *args: Any, undo: Any = None, **kwargs: Any) -> Any:
        """Run a function of the app as a step, and return its result; raises what it raises.

        `undo`: a function that is called with the result, should the workflow fail or be cancelled; or a tuple of a
        function and the arguments to call it with. What was done last is undone first.
        """
        return self._start(function, args, kwargs, undo).result()

    @overload
    def start(
        self,
        function: Function[Concatenate[Transaction, P], R] | Function[Concatenate[Workflow, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[R]: ...
    @overload
    def start(self, function: Function[P, R], /, *args: Any, **kwargs: Any) -> Future[R]: ...
    def start(self, function: Any, /, *args: Any, undo: Any = None, **kwargs: Any) -> Any:
        """Start a function of the app as a step, and go on. Actions and workflows run beside each other."""
        return self._start(function, args, kwargs, undo)

    def gather(self, futures: Iterable[Future[T]]) -> list[T]:
        """The results of all, in their order, once all are there."""
        waiting = list(futures)
        for future in waiting:
            if not isinstance(future, Future) or future._driver is not self._driver:
                raise RuleBroken(
                    f"{future!r:.80} is nothing that this workflow has started", hint="gather what wf.start returns"
                )
        for future in reversed(waiting):  # to wait costs a run of the body, and the last is the last to be there
            self._driver.wait(future._number)
        return [future.result() for future in waiting]

    def map(self, function: Function[..., R], items: Iterable[Any], *, at_most: int = 50) -> Iterator[R]:
        """The results of a function for each of `items`, in their order, with `at_most` begun and open at a time.

        Items are taken as they are needed, and must come in the same order whenever the body is run again.
        """
        if not isinstance(at_most, int) or at_most < 1:
            raise RuleBroken(f"at_most is a number from 1 on, not {at_most!r}")
        return self._map(function, items, at_most)

    def _map(self, function: Function[..., R], items: Iterable[Any], at_most: int) -> Iterator[R]:
        begun: deque[Future[R]] = deque()
        for item in items:
            begun.append(self._start(function, (item,), {}, None))
            if len(begun) >= at_most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def sleep(self, seconds: float) -> None:
        """Go on after so many seconds, however long: meanwhile the workflow is a row in a table, and no more."""
        self._driver.sleep(seconds)

    def receive(self, topic: str, timeout: float | None = None) -> Any:
        """The next message on a topic, a JSON value. `None` where none has come within `timeout` seconds."""
        return self._driver.receive(topic, timeout)

    def send(self, workflow: str, topic: str, value: Any = None) -> None:
        """Leave a message for another workflow of the app, by its id; `NotFound` where that has ended."""
        self._driver.send(receiver(workflow), topic, value)

    def publish(self, name: str, value: Any) -> None:
        """Let everybody who may see the workflow read a value by its name, from now on."""
        self._driver.publish(name, value)

    def log(self, message: str, /, **fields: Any) -> None:
        """Add a line to the record of the workflow."""
        self._driver.log(message, fields)

    def continue_as(self, *args: Any, **kwargs: Any) -> None:
        """Begin again with other arguments and an empty history; for workflows that go on for ever. Does not return.

        Actions that were started come to their end before; what was done so far is not undone any more.
        """
        self._driver.continue_as(args, kwargs)

    def _start(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], undo: Any) -> Future[Any]:
        return Future(self._driver, self._driver.start(function, args, kwargs, undo))
