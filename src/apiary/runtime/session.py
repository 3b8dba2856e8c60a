"""What an engine must offer the runtime inside a transaction, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from apiary.runtime.machine import WHOLE, Step
from apiary.runtime.result import Result

NEVER = (1 << 63) - 1
"""When something is due that waits for an event only."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to run a function.

    `input` is a JSON object (UTF-8). `key` is the caller's idempotency key. `lax` says that the values come
    from a query string, where every value is text. `digest` stands for its secrets in the record, where it has a key:
    made before the call gets to a lane, because that is slow on purpose. `step`: the call is that step of the workflow
    `parent`.

    One that has a workflow go on names its `epoch`, and has the records of steps that `arrived`; one that begins it is
    `detached` where nobody waits for the end. `careful`: each of its steps is a run of its own, because one of them
    ended the transaction with all that was done before it. One of the queue that is not `claimed` may have got other
    arguments meanwhile, and another time: its row is looked at first.
    """

    id: bytes
    function: str
    input: bytes
    caller: str = ""
    roles: frozenset[str] = frozenset()
    key: str | None = None
    parent: bytes | None = None
    attempt: int = 1
    queued: bool = False
    lax: bool = False
    digest: str | None = None
    step: int | None = None
    epoch: int = 0
    arrived: tuple[Record, ...] = ()
    detached: bool = False
    careful: bool = False
    claimed: bool = True


def blamed(call: Call) -> bytes:
    """The id by which a call is known that may end its process: a step has that of its workflow."""
    return call.parent if call.step is not None and call.parent is not None else call.id


@dataclass(slots=True)
class Record:
    """The row that the log keeps of a call. Times in microseconds, `started` since 1970 (UTC).

    `status` is `ok`, `rejected`, `failed` (the function raised), `cancelled` (a workflow) or `stopped` (it was ended by
    the platform, which is no outcome: the call may run again). `lines` and `nested` are JSON lists: what the function
    logged, and the functions it called inside its own transaction. `queued` says that it came from the queue.
    `effects`: what it read and wrote, as its engine packs that.
    """

    id: bytes
    function: str
    kind: str
    version: str
    caller: str
    attempt: int
    started: int
    duration: int
    status: str
    input: bytes
    output: bytes | None = None
    error: str | None = None
    lines: str | None = None
    parent: bytes | None = None
    key: str | None = None
    nested: str | None = None
    queued: bool = False
    step: int | None = None
    effects: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A workflow has come as far as it can now. `actions` are to be run for it, `due` is when it is to go on.

    `of`: it is another workflow, begun before with the same idempotency key. `careful`: it goes on as it ran.
    `waiting`: the call, of whatever function, has not begun, and is not due before that.
    """

    due: int
    epoch: int
    actions: tuple[Call, ...] = ()
    of: bytes | None = None
    careful: bool = False
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: `output` (JSON) where `error` is none, or a `pause`, which is no end.

    `replayed` is the id of the earlier call whose recorded outcome this is, if so. `cause` is the
    exception of the user's code, for callers in the same process. `duration` is in microseconds.
    """

    output: bytes = b""
    error: dict[str, Any] | None = None
    replayed: bytes | None = None
    cause: BaseException | None = None
    duration: int = 0
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A call that waits in the queue until `due` (microseconds since 1970); at once, where it is not `delayed`.

    `attempts` came to no outcome: the platform ended them, or they were lost with their process, as `deaths` were.
    A workflow has the `version` on which it ends, once that is known, the `roles` of its caller, and the `epoch` of
    its lease, which other calls have not. Of the calls in a `queue`, those with the same `share` follow one another.
    Those with a higher `priority` are first. While a call of a function waits under the name `unique`, there is no
    other one; a `quiet` one gets the arguments and the time of those that come meanwhile.
    """

    id: bytes
    function: str
    input: bytes
    caller: str
    parent: bytes | None
    due: int
    attempts: int = 0
    deaths: int = 0
    version: str | None = None
    roles: tuple[str, ...] = ()
    step: int | None = None
    epoch: int = 0
    queue: str = ""
    share: str = ""
    priority: int = 0
    unique: str | None = None
    delayed: bool = False
    quiet: bool = False
    key: str | None = None


@dataclass(slots=True)
class Instance:
    """A workflow that has not ended, as its row in the queue has it. Times in microseconds since 1970 (UTC).

    One that waits in a queue for its beginning has no `version` yet. `epoch` grows whenever another process takes it
    over. Its operations are numbered from `first` on; those below `issued` are begun. `waits`: the step whose outcome
    it waits for, or `MESSAGE`, on a `topic`; `acting`: actions run for it. `deadline`: it is cancelled then. `state` is
    empty, `cancelling`, `undoing`, or `blocked` for the reason in `problem` (JSON).
    """

    id: bytes
    function: str
    version: str
    input: bytes
    caller: str
    roles: tuple[str, ...]
    key: str | None
    parent: bytes | None
    step: int | None
    started: int
    epoch: int = 1
    first: int = 0
    issued: int = 0
    waits: int | None = None
    acting: bool = False
    due: int = 0
    deadline: int = NEVER
    state: str = ""
    problem: str | None = None
    topic: str | None = None


OPEN = "open"
"""The status of what stands for the record of a workflow that has not ended."""

MESSAGE = -1
"""What a workflow waits for that waits for a message."""

Part = Literal["call", "nested"]
"""A part of a transaction that can be undone by itself. Undoing or releasing a call ends all that is nested in it."""


class Session(Protocol):
    """A transaction of some engine, as the runtime sees it. Where it is not `recording`, records are left out."""

    recording: bool

    def execute(self, sql: str, parameters: Mapping[str, Any], read_only: bool) -> Result:
        """Run one statement of the user's function; `RuleBroken` where it writes and `read_only` is set."""

    def execute_many(self, sql: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Run one statement once for each row; returns how many rows changed."""

    def savepoint(self, part: Part) -> None:
        """Begin a part that can be undone by itself."""

    def release(self, part: Part) -> None:
        """Keep the latest part of this kind."""

    def undo(self, part: Part) -> None:
        """Undo the latest part of this kind, what it put into the queue included, and end it."""

    def confine(self, body: Callable[[], Any]) -> Any:
        """Run the body of a query: whatever it calls, nothing is written meanwhile."""

    def enqueue(self, queued: Queued) -> bytes:
        """Put a call into the queue, in this transaction; the id of the one that waits there, which may be another.

        `Duplicate` where a workflow was begun with its idempotency key.
        """

    def send(self, workflow: bytes, topic: str, value: bytes, identifier: bytes) -> bool:
        """Leave a message for a workflow, once for each `identifier`; false where there is no such workflow."""

    def effects(self) -> bytes | None:
        """What the call read and wrote that runs, packed for its record; none where it did neither."""

    def draw(self, size: int) -> bytes:
        """Random bytes, which are noted with what the call read."""

    def conceal(self, secrets: Sequence[Any]) -> None:
        """What the call reads and writes of these values is not to be shown in its record."""

    def record(self, record: Record) -> None:
        """Write the record of a call, in this transaction; raises `Duplicate` where there is one already."""


class WorkflowSession(Session, Protocol):
    """A transaction in which workflows go on, too. `records` are written later, with what else is to be."""

    records: list[Record]
    enqueued: list[Queued]

    @property
    def lost(self) -> bool:
        """Whether the transaction has ended before its time, and with it all that was done in it."""

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        """The record of a call by its id or, failing that, by its idempotency key.

        Of a workflow that has the key and has not ended, one that is `OPEN`.
        """

    def instance(self, identifier: bytes | None, key: str | None) -> Instance | None:
        """The workflow of this id or, failing that, this idempotency key; nobody else can go on with it meanwhile."""

    def keep_instance(self, instance: Instance, *, fresh: bool) -> None:
        """Write where a workflow is; `Duplicate` where a `fresh` one is there already."""

    def drop_instance(self, identifier: bytes) -> None:
        """A workflow has ended: it leaves the queue, and the messages to it are forgotten."""

    def steps(self, workflow: bytes, first: int, end: int, most: int = WHOLE) -> Sequence[Step]:
        """The recorded steps of a workflow from `first` on, below `end`, in order.

        Where arguments or result have more than `most` bytes, both are left out, and it is said so.
        """

    def take_message(self, workflow: bytes, topic: str) -> bytes | None:
        """The earliest message on a topic (JSON), which is gone then."""

    def check_constraints(self) -> None:
        """`ConstraintViolated` where what was done in this transaction could not be committed as it is."""

    def publish(self, workflow: bytes, name: str, value: bytes) -> None:
        """Let everybody read a value (JSON) of a workflow by its name."""

    def wake(self, workflow: bytes, waits: int | None) -> None:
        """Let a workflow go on that waits for this (or whatever it waits for); it joins `enqueued` then."""

    def pause(self, queue: str, *, paused: bool) -> None:
        """Let no call of a queue begin from now on, or let them begin again."""
