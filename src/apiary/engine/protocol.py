"""The seam: what a database must offer so that the platform can run functions in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from apiary.bundle import Migration
from apiary.runtime.call import Guard, Program
from apiary.runtime.session import NEVER, Call, Outcome, Queued, Record

LAST_ATTEMPT = 5
"""A queued call with so many attempts that came to no outcome leaves the queue."""
LAST_COMMIT = 12
COMMIT_SECONDS = 3600.0
"""A queued call leaves the queue when it was put there so long ago and so many attempts could not be committed."""
HORIZON_SECONDS = 60.0
"""What is due later than this is not held in memory: the table is looked at again in time."""
MAX_DEATHS = 3
"""A call whose process died so many times while it ran is given up, where nothing else can have been the reason."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a batch came to: an outcome for each call, the calls that they put into the queue, and lost records.

    Nothing of it may be told to anybody before `Engine.sync`, unless it is `durable` already: a batch that only read
    is, when it saw no commit that could still be lost. `snapshot` stands for what it saw. `doubt`: a connection was
    lost, and calls may be in the queue, now or soon, that are not in `queued`.
    """

    outcomes: Sequence[Outcome]
    queued: Sequence[Queued] = ()
    lost: Sequence[Record] = ()
    durable: bool = False
    snapshot: object = None
    doubt: bool = False


class Lane(Protocol):
    """One connection, used by one thread at a time. Queries have lanes of their own."""

    def open(self) -> None:
        """Get ready for the first batch, as far as that is possible now."""

    def begin(self) -> bool:
        """Begin what `run` commits, in a lane that writes; false where another process goes on writing for a second."""

    def run(self, calls: Sequence[Call], records: Sequence[Record] = ()) -> Committed:
        """Run calls, each in a part of its own, write `records` with them, and commit all at once.

        A call that cannot be committed has an outcome that says so.
        """

    def take_records(self) -> list[Record]:
        """Records of queries that ran on this lane since the last time, for a lane that writes."""

    def confirm(self, done: Committed) -> None:
        """What this batch saw has become durable."""

    def interrupt(self) -> None:
        """End the statement that runs now; called from another thread."""

    def close(self) -> None:
        """Give the connection back."""


class Engine(Protocol):
    """A database of one app.

    `dialect` names its kind of SQL; `writers` and `readers` say how many lanes of each kind it is used best with,
    `max_batch` how many calls at once. `most_steps`: so many functions of a workflow run in one transaction.
    """

    dialect: str
    writers: int
    readers: int
    max_batch: int
    most_steps: int

    def pending(self, migrations: Sequence[Migration]) -> list[str]:
        """The names of those that are not applied yet; `MigrationRefused` where one was changed or comes too late.

        Does not wait for another process that writes.
        """

    def migrate(self, migrations: Sequence[Migration], version: str) -> list[str]:
        """Apply what is new, all or nothing; returns the names. `MigrationRefused` where that cannot be."""

    def writer(self, program: Program, guard: Guard) -> Lane:
        """A lane for transactions."""

    def reader(self, program: Program, guard: Guard) -> Lane:
        """A lane for queries."""

    def collides(self, function: str) -> bool:
        """Whether calls of a function had better not run on several lanes now, as they kept each other from committing.

        May be asked of any function at any time, also of one that is not there.
        """

    def sync(self) -> None:
        """Wait until all that was committed before is durable; `OSError` where the disk fails."""

    def rewrite(self) -> None:
        """Make durable what a process before this one has left, wherever its disk had failed."""

    def find(self, identifier: bytes | None, key: str | None) -> Record | None:
        """The record of a call that is durable, by its id or by its idempotency key: as `WorkflowSession.find`."""

    def find_all(self, identifiers: Sequence[bytes]) -> list[Record]:
        """The records of those of these calls that have one that is durable."""

    def queued(
        self, limit: int, until: int = NEVER, version: str = "", *, plain: bool = True, queue: str | None = None
    ) -> list[Queued]:
        """What waits in the queue and is due until then (microseconds since 1970), the earliest first.

        Of workflows that have begun, those that end on this version; not `plain`: nothing else. Of what has not begun,
        as many of each queue, or of one `queue`, as the limit says; of each share and each priority the same number.
        """

    def begun(self) -> list[tuple[str, bytes]]:
        """The workflows that have begun and not ended and came from a queue: its name, and their ids."""

    def paused(self) -> list[str]:
        """The names of the queues that are paused."""

    def admit(self, queue: str, wanted: int, most: int, seconds: float) -> tuple[int, float]:
        """How many of so many calls of a queue may begin, of which `most` may begin within so many seconds.

        They count as begun from then on. Where none may, the seconds until one may; by the clock of the database.
        """

    def versions_due(self, version: str, until: int) -> list[str]:
        """The other versions that have workflows which are due until then."""

    def adopt(self, version: str, except_for: Iterable[bytes], others: Collection[str] | None) -> None:
        """Let workflows go on whose actions ran in a process that is gone: they are run again.

        Those of `version` but for `except_for`, whose process is still there; and those of all versions but for the
        `others`, which have processes of their own (`None`: all have).
        """

    def queued_call(self, identifier: bytes) -> Queued | None:
        """The call of this id, where it waits in the queue."""

    def scheduled(self, function: str, done: float | None, now: float) -> float:
        """Until when (seconds since 1970) all times of a schedule are `done`; `now`, where it is seen first."""

    def tell(self) -> None:
        """Let the process that runs the queue know that there may be something new in it."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed`, from another thread, whenever somebody else may have put calls into the queue."""

    def close(self) -> None:
        """Close everything; no call may be running."""
