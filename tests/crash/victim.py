"""Processes of their own for the tests, to be killed: each opens the app, runs calls, and tells what was answered.

`python -m tests.crash.victim` is their parent, which has loaded everything and has no threads: it forks one for each
job, a line of JSON on its input, and writes a line when that has ended: the signal or the exit status.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import apsw
import psycopg
from tests.crash.mishaps import Mishap
from tests.crash.points import Disk, Points, watch_actions, watch_postgres

from apiary import OpenApp
from apiary.bundle import load_from
from apiary.codec import convert_rows
from apiary.engine.places import replaying
from apiary.engine.postgres.connection import Target
from apiary.engine.postgres.engine import PostgresEngine
from apiary.engine.sqlite.engine import SqliteEngine
from apiary.runtime.errors import DatabaseUnavailable
from apiary.runtime.ids import id_bytes
from apiary.runtime.session import Call, Outcome

FORGE = Path(__file__).parent / "apps" / "forge"
OUTSIDE = "FORGE_OUTSIDE"
END_SECONDS = 60.0
MOST_SECONDS = 150
LOOK_SECONDS = 0.005
STRANDED, FAILED = 3, 4
"""Exit statuses: the queue has not become empty; the process failed by itself."""


@dataclass(frozen=True)
class Request:
    """One call. `wait` 0: its caller only wants to know that it has begun."""

    id: str
    function: str
    arguments: str
    key: str | None
    wait: float | None = None


@dataclass(frozen=True)
class Job:
    """What a process is to do: `lanes` of calls beside each other, those of a lane one after another; then to end.

    `database`: a path, or what `Target` is made of. `look`: how to look into it. `kind` and `number`: where to be
    killed. `power`: the disk loses what nobody had waited for. `mishap`: the statement of this number fails `before` or
    `after` it is applied, instead.
    """

    folder: str
    database: Any
    look: str
    lanes: list[list[Request]]
    kind: str | None = None
    number: int = 0
    power: bool = False
    mishap: str | None = None
    always_replay: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps(asdict(self))


def job_of(line: str) -> Job:
    """The job on a line."""
    given = json.loads(line)
    given["lanes"] = [[Request(**request) for request in lane] for lane in given["lanes"]]
    return Job(**given)


class Victim:
    """One process."""

    def __init__(self, job: Job, app: Any) -> None:
        self.folder = Path(job.folder)
        self.job = job
        os.environ[OUTSIDE] = str(self.folder / "outside")
        os.environ.update(job.environment)
        self.disk: Disk | None = None
        mishap = Mishap(job.mishap, job.number) if job.mishap is not None else None
        self.points = Points(job.kind, 0 if mishap else job.number, self.before_the_end)
        self.answers = os.open(self.folder / "answers", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        watch_actions(self.points)
        if isinstance(job.database, str):
            if mishap is not None:
                mishap.on_sqlite()
            self.disk = Disk(Path(f"{job.database}-wal"), self.points)
        else:
            watch_postgres(self.points)
            if mishap is not None:
                mishap.on_postgres()
        self.opened = self.open(app)
        self.left = sum(map(len, job.lanes))

    def open(self, app: Any) -> OpenApp:
        """Open the app; again, where the database does not let it."""
        job = self.job
        while True:
            made: Any = None
            try:
                if isinstance(job.database, str):
                    made = SqliteEngine(Path(job.database), convert_rows)
                else:
                    made = PostgresEngine(Target(**job.database), convert_rows, writers=2, readers=1)
                return OpenApp(app, replaying(made) if job.always_replay else made)
            except DatabaseUnavailable as error:
                print(f"cannot be opened: {error.message}", flush=True)
                if made is not None:
                    made.close()

    def before_the_end(self) -> None:
        if self.disk is not None and self.job.power:
            self.disk.lose_power()

    def run(self) -> int:
        """Ask for everything, wait until it is answered and nothing is left in the queue."""
        for lane in self.job.lanes:
            self.ask(lane)
        end = time.monotonic() + END_SECONDS
        while self.left or self.waiting():
            if time.monotonic() > end:
                columns = "function, state, due, waits, topic, acting, epoch, issued"
                print(f"{self.left} are not answered, at {time.time()}", flush=True)
                print(*look(self.job.look, f"select {columns} from {{log}}queue"), sep="\n", flush=True)
                return STRANDED
            time.sleep(LOOK_SECONDS)
        self.opened.close()
        (self.folder / "points").write_text(json.dumps(self.points.names))
        return 0

    def ask(self, lane: list[Request]) -> None:
        """Ask for the first of a lane, and when that is answered for the others."""
        if not lane:
            return
        first, *rest = lane
        call = Call(
            id_bytes(first.id), first.function, first.arguments.encode(), "tester", frozenset({"admin"}), first.key
        )

        def answered(_: Call, outcome: Outcome) -> None:
            problem = outcome.error
            if problem is not None and problem["status"] == 503:
                time.sleep(LOOK_SECONDS)
                self.ask(lane)
                return
            self.points.hit("answer")
            line = json.dumps(
                [first.id, outcome.pause is not None, outcome.output.decode(), problem and problem["code"]]
            )
            os.write(self.answers, line.encode() + b"\n")
            self.left -= 1
            self.points.hit("answered")
            self.ask(rest)

        self.opened._dispatcher.submit(call, answered, wait=first.wait)

    def waiting(self) -> int:
        return look(self.job.look, "select count(*) from {log}queue")[0][0]


def look(place: str, sql: str) -> list[Any]:
    """The rows of a statement, past the engine. `{log}` stands for where the platform's own tables are."""
    if place.startswith("postgresql"):
        with psycopg.connect(place, autocommit=True, options="-c search_path=forge") as connection:
            return connection.execute(sql.replace("{log}", "apiary_forge.").encode()).fetchall()
    connection = apsw.Connection(place)
    connection.set_busy_timeout(10_000)
    try:
        return list(connection.execute(sql.replace("{log}", "apiary_")).fetchall())
    finally:
        connection.close()


def serve(run: Callable[[Job], int]) -> None:
    """Fork a process for each job."""
    for line in sys.stdin:
        job = job_of(line)
        child = os.fork()
        if child == 0:
            signal.alarm(MOST_SECONDS)  # whatever becomes of the test
            output = os.open(Path(job.folder) / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = FAILED
            try:
                status = run(job)
            except BaseException:  # noqa: BLE001 - told to the parent by the exit status
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault(OUTSIDE, os.devnull)
    app = load_from(FORGE)
    print("ready", flush=True)
    serve(lambda job: Victim(job, app).run())


if __name__ == "__main__":
    main()
