"""A database, processes that are killed on it, and what they leave: compared with what an undisturbed one left."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.crash.victim import Job, Request, look

from apiary.runtime.ids import id_text, new_id

ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TABLES = ("marks", "stock", "fibonacci")
SYSTEM = ("calls", "queue", "messages", "published")
PASSING = ("sleep", "now")
"""Kinds of steps whose results are times."""
LOOSE = "fibonacci"
"""What its workflows do depends on which of them come first; what comes of them does not."""

UNORDERED = ("family", "line_up")
"""Of its parts, which run beside each other, any may be the first."""

Lane = list[Request]


def lane(function: str, *more: Request, wait: float | None = None, **arguments: Any) -> Lane:
    """A call of a function, with a key and a flow of its own, and what follows it."""
    identifier = id_text(new_id())
    flow = f"{function} {identifier[-6:]}"
    given = json.dumps({"flow": flow, **arguments})
    return [Request(identifier, function, given, flow, wait), *more]


def approved() -> Lane:
    """A workflow that is begun, told something, and then waited for."""
    begun = lane("approval", wait=0.0)
    told = {"workflow": begun[0].id, "topic": "approval", "value": "yes"}
    sent = Request(id_text(new_id()), "apiary.send", json.dumps(told), f"sent {begun[0].key}")
    return [*begun, sent]


def flow_of(requests: Lane) -> str:
    """The name of what a lane does."""
    return str(json.loads(requests[0].arguments)["flow"])


@dataclass(frozen=True)
class Left:
    """What is left of one flow: rows of tables, answers, records, what was said outside and how often."""

    tables: dict[str, list[Any]]
    answers: list[Any]
    records: list[Any]
    outside: dict[str, int]

    @property
    def effects(self) -> tuple[Any, ...]:
        """What must be the same whatever happens. Outside, each key is told of at least once."""
        return self.tables, self.records, sorted(self.outside)

    def __bool__(self) -> bool:
        return bool(any(self.tables.values()) or self.answers or self.records or self.outside)


class Forker:
    """The process that forks the victims."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash.victim"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready\n"

    def run(self, job: Job) -> int:
        """Do a job; returns the exit status, or the signal as a negative number."""
        assert self.process.stdin is not None
        self.process.stdin.write(job.line() + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        """It ends with its input."""
        self.process.communicate(timeout=60)


class World:
    """A database of one engine. `database`: what `Job` wants; `reset`: makes it as it was in the beginning."""

    def __init__(
        self, name: str, folder: Path, forker: Forker, database: Any, place: str, reset: Callable[[], None]
    ) -> None:
        self.name = name
        self.folder = folder
        self.always_replay = False
        self._forker = forker
        self._database = database
        self._place = place
        self._reset = reset

    def begin(self) -> None:
        """Nothing has happened."""
        for name in ("answers", "outside", "points", "disk", "output"):
            (self.folder / name).unlink(missing_ok=True)
        self._reset()

    def undisturbed(self, lanes: Sequence[Lane]) -> tuple[dict[str, Left], list[str]]:
        """What is left of each flow, and the points that there were on the way."""
        self.begin()
        self.finish(lanes)
        return self.left(lanes), json.loads((self.folder / "points").read_text())

    def crash(self, lanes: Sequence[Lane], kind: str | None, number: int, *, power: bool = False) -> bool:
        """Begin, and be killed at a point; returns whether that was reached."""
        status = self._run(replace(self._job(lanes), kind=kind, number=number, power=power))
        assert status in (0, -signal.SIGKILL), self.output()
        if status and power:
            (self.folder / "disk").rename(f"{self._database}-wal")
            Path(f"{self._database}-shm").unlink()
        return status != 0

    def mishap(self, lanes: Sequence[Lane], when: str, number: int) -> bool:
        """Do everything, while one statement fails; returns whether there was such a statement."""
        self.begin()
        status = self._run(replace(self._job(lanes), mishap=when, number=number))
        assert status == 0, f"{status}: {self.output()}"
        return "mishap" in self.output()

    def finish(self, lanes: Sequence[Lane], *, forgetful: bool = False) -> None:
        """Ask for what is not answered yet, and let everything come to its end.

        `forgetful`: what had no answer is forgotten by its caller, unless he has more to say. What was said to have
        begun must end all the same.
        """
        answered = self.answered()
        kept = [one for one in lanes if not forgetful or len(one) > 1 or one[0].id in answered]
        status = self._run(self._job(kept))
        assert status == 0, f"{status}: {self.output()}"

    def answered(self) -> dict[str, list[Any]]:
        """What was answered, by the ids of calls."""
        file = self.folder / "answers"
        lines = file.read_text().splitlines() if file.exists() else []
        return {identifier: rest for identifier, *rest in map(json.loads, lines)}

    def output(self) -> str:
        """What the processes have written."""
        file = self.folder / "output"
        return file.read_text() if file.exists() else ""

    def look(self, statement: str) -> list[Any]:
        return look(self._place, statement)

    def left(self, lanes: Iterable[Lane]) -> dict[str, Left]:
        """What is left of each flow; nothing may be left in the queue."""
        assert self.look("select * from {log}queue") == []
        assert self.look("select * from {log}messages") == []
        lanes = list(lanes)
        answers = self.answered()
        records = self._records({request.id: f"{flow_of(one)} {at}" for one in lanes for at, request in enumerate(one)})
        outside: dict[str, Counter[str]] = {}
        for flow, word, _ in self._outside():
            outside.setdefault(flow, Counter())[word] += 1
        tables = {table: self.look(f"select * from {table} order by 1, 2, 3") for table in TABLES}
        found = {}
        for one in lanes:
            flow = flow_of(one)
            loose = one[0].function == LOOSE
            rows = {table: [tuple(row) for row in tables[table] if row[0] == flow] for table in TABLES}
            if one[0].function in UNORDERED:
                rows["marks"] = sorted(row[2] for row in rows["marks"])
            said = [answers.get(request.id) for request in one if request.id in answers]
            own = [] if loose else sorted(record for record in records if record.startswith(f'["{flow} '))
            found[flow] = Left(rows, said, own, dict(outside.get(flow, {})))
        return found

    def _outside(self) -> list[list[str]]:
        file = self.folder / "outside"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def _records(self, roots: dict[str, str]) -> list[str]:
        """The records of calls, by names for ids, without times; and what workflows have published."""
        columns = "id, parent, step, function, kind, status, input, output, error, lines, nested, key, caller"
        rows = [list(row) for row in self.look(f"select {columns} from {{log}}calls")]
        for row in rows:
            row[0], row[1] = text_of(row[0]), text_of(row[1])
        parents = {row[0]: row for row in rows}

        def name(identifier: str) -> str:
            if identifier in roots or identifier not in parents:
                return roots.get(identifier, "somebody")
            _, parent, step, function, kind, _, given, *_ = parents[identifier]
            if parent is None:
                return f"{function} {kind}"
            return f"{name(parent)}/{step}" if step is not None else f"{name(parent)}>{function} {given}"

        def plain(value: Any) -> Any:
            if isinstance(value, str):
                return ID.sub(lambda found: name(found[0]), value)
            return value

        found = []
        for identifier, _, _, function, kind, status, given, output, error, lines, nested, key, caller in rows:
            if kind in PASSING:
                output = None
            notes = [re.sub(r'"(at|duration)": ?\d+(\.\d+)?,? ?', "", one) if one else one for one in (lines, nested)]
            values = [function, kind, status, given, output, error, *notes, key, caller]
            found.append(json.dumps([name(identifier), *map(plain, values)]))
        for workflow, what, value in self.look("select workflow, name, value from {log}published"):
            found.append(json.dumps([name(str(text_of(workflow))), what, value]))
        return found

    def _job(self, lanes: Sequence[Lane]) -> Job:
        answered = self.answered()
        left = [[request for request in one if request.id not in answered] for one in lanes]
        return Job(
            str(self.folder),
            self._database,
            self._place,
            [one for one in left if one],
            always_replay=self.always_replay,
        )

    def _run(self, job: Job) -> int:
        return self._forker.run(job)


def text_of(identifier: Any) -> str | None:
    """An id in its usual form, whatever the database has it as."""
    if identifier is None:
        return None
    return id_text(bytes(identifier)) if not isinstance(identifier, UUID) else str(identifier)
