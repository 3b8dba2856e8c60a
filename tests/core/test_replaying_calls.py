"""Queries and transactions, run again from their record: the same comes, whatever they read, drew or met with."""

import json
import os
import random
import secrets
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import eventually

import apiary
from apiary import App, Conflict, Nondeterministic, OpenApp, Rejected, Transaction
from apiary.runtime.errors import ConstraintViolated, DatabaseError, InternalError
from apiary.testing import replay

TABLES = """
create table things (name text primary key, size decimal, data blob, seen timestamptz, ratio real, open boolean);
create table marks (id integer primary key, thing text not null references things, mark text not null);
insert into things values ('a', 1.50, x'00ff', '2026-01-02 03:04:05+00:00', 9e999, 'true'),
                          ('b', 2, null, null, 0.5, 0);
insert into marks (thing, mark) values ('a', 'first'), ('a', 'second');
"""


def thing_app(folder: Path, change: str = "") -> App:  # noqa: C901 - many small functions
    folder.mkdir(exist_ok=True)
    (folder / "001-tables.sql").write_text(TABLES)
    app = App("things", migrations=folder)

    @app.query
    def everything(tx: Transaction) -> list[Any]:
        columns = "name" if change == "fewer columns" else "*"
        rows = tx.execute(f"select {columns} from things order by name").all()
        assert change or rows[0].data == b"\0\xff"
        assert change or rows[0].ratio == float("inf")
        return [[str(value) for value in row] for row in rows]

    @app.query
    def marks_of(tx: Transaction, thing: str) -> list[str]:
        if change == "another thing":
            thing = "b"
        found = tx.execute("select mark from marks where thing = :thing order by id", thing=thing).scalars()
        if change == "another answer":
            found.append("third")
        if change == "one more":
            tx.execute("select 1")
        return found

    @app.transaction
    def mark(tx: Transaction, thing: str, words: list[str]) -> list[Any]:
        made = []
        for word in words:
            insert = "insert into marks (thing, mark) values (:thing, :mark) returning id"
            made.append(tx.execute(insert, thing=thing, mark=word).scalar())
        if change != "one less":
            tx.execute("update things set seen = :now where name = :thing", now=tx.now, thing=thing)
        many = tx.execute_many("update marks set mark = mark || :more where id = :id", [{"more": "!", "id": 1}] * 2)
        return [made, many, tx.now.isoformat(), tx.id, tx.caller]

    @app.transaction
    def careful(tx: Transaction) -> list[str]:
        met = []
        statements = ["insert into things (name) values ('a')", "selekt", "select no from things"]
        for statement in (*statements, "select '\ud800'", "select '\0'"):
            try:
                tx.execute(statement)
            except (ConstraintViolated, DatabaseError) as error:
                met.append(f"{type(error).__name__}: {error}")
        for value in (2**70, -(2**63) - 1, "\ud800", float("nan"), object()):
            try:
                tx.execute("select :value", value=value)
            except (apiary.Error, TypeError) as error:
                met.append(f"{type(error).__name__}: {error}".replace("\ud800", "half"))
        try:
            tx.execute_many("insert into things (name) values (:name)", [{"name": "n"}, {"name": "a"}])
        except ConstraintViolated as error:
            met.append(str(error))
        try:
            undone(tx)
        except Rejected as error:
            met.append(error.code)
        met.append(str(tx.execute("select count(*) from things").scalar()))
        return met

    @app.transaction
    def undone(tx: Transaction) -> None:
        tx.execute("insert into things (name) values (:name)", name=f"{random.random()}")
        raise Rejected("never mind", code="undone")

    @app.transaction
    def draws(tx: Transaction) -> list[Any]:
        tx.execute(
            "insert into things (name, size) values (:name, :size)", name=str(uuid.uuid4()), size=Decimal("1.25")
        )
        drawn = [random.randint(1, 10**9), random.choice("abcdefgh"), random.gauss(0, 1), random.gauss(0, 1)]
        random.shuffle(drawn)
        extra = [os.urandom(3).hex()] if change == "draws more" else []
        return [*map(str, drawn), secrets.token_hex(8), random.sample(range(1000), 5), os.urandom(4).hex(), *extra]

    @app.transaction
    def later(tx: Transaction) -> list[str]:
        return [tx.enqueue(mark, "b", ["queued"]), tx.enqueue(mark, "b", ["queued", "twice"])]

    @app.transaction
    def refuses(tx: Transaction, amount: Decimal) -> None:
        raise Rejected(f"{amount} is too much" if change != "says less" else "too much", code="too_much")

    @app.transaction
    def breaks(tx: Transaction, key: str) -> str:
        tx.execute("select 1")
        return {"a": "b"}[key if change != "breaks otherwise" else "d"]

    @app.transaction
    def sign_in(tx: Transaction, password: SecretStr) -> str:
        word = password.get_secret_value()
        tx.execute("insert into things (name, data) values (:name, :data)", name=f"of {word}", data=word[::-1].encode())
        return f"{len(word)}"

    @app.query
    def much(tx: Transaction) -> int:
        numbers = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000) select i from n"
        return len(tx.execute(numbers).all())

    @app.action
    def acts() -> None:
        """Something in the world."""

    return app


@pytest.fixture
def things(tmp_path: Path) -> Iterator[OpenApp]:
    with apiary.open(thing_app(tmp_path / "migrations"), f"sqlite:///{tmp_path / 'things.db'}") as opened:
        yield opened


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str], App]:
    return lambda change: thing_app(tmp_path / "migrations", change)


def recording(things: OpenApp, function: str) -> dict[str, Any]:
    def recorded() -> dict[str, Any] | None:
        found = things.log.calls(function=function)
        return things.log.recording(found[0]["id"]) if found else None

    found = eventually(recorded)
    assert isinstance(found, dict)
    return found


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("everything", {}),
    ("marks_of", {"thing": "a"}),
    ("mark", {"thing": "a", "words": ["x", "y"]}),
    ("careful", {}),
    ("draws", {}),
    ("later", {}),
    ("refuses", {"amount": "1.5"}),
    ("breaks", {"key": "c"}),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=[function for function, _ in CALLS])
def test_the_same_comes_again(things, function, arguments):
    result = error = None
    try:
        result = things.call(function, **arguments)
    except apiary.Error as raised:
        error = raised
    found = recording(things, function)
    before = things.log.sql("select count(*) from writes").rows
    replayed = replay(things.app, found)
    assert replayed.difference == ""
    assert replayed.steps == len(found["statements"])
    if error is None:
        assert (replayed.status, replayed.recorded, replayed.result) == ("ok", "ok", result)
    else:
        assert (replayed.status, replayed.recorded) == ("raised", found["status"])
    assert things.log.sql("select count(*) from writes").rows == before


def test_what_is_drawn_outside_of_calls_is_as_random_as_ever():
    random.seed(7)
    first = [random.random(), random.randint(1, 100), random.gauss(0, 1), random.choice("abc")]
    random.seed(7)
    assert first == [random.random(), random.randint(1, 100), random.gauss(0, 1), random.choice("abc")]
    own = random.Random(7)
    assert first == [own.random(), own.randint(1, 100), own.gauss(0, 1), own.choice("abc")]
    assert uuid.uuid4() != uuid.uuid4()
    assert len({os.urandom(16) for _ in range(100)}) == 100


FORKS = """
import os, random
from apiary.runtime.chance import install
install()
for _ in range(2):
    if os.fork() == 0:
        print(random.random(), flush=True)
        os._exit(0)
    os.wait()
print(random.random())
"""


def test_processes_that_fork_do_not_draw_the_same():
    done = subprocess.run([sys.executable, "-c", FORKS], check=True, capture_output=True, text=True)
    assert len(set(done.stdout.split())) == 3


def test_a_call_may_seed_its_generator(tmp_path):
    app = App("seeds")

    @app.query
    def seeded(tx: Transaction, seed: int | None) -> list[float]:
        random.seed(seed)
        first = [random.random(), random.gauss(0, 1)]
        state = random.getstate()
        again = random.random()
        random.setstate(state)
        assert random.random() == again
        return first

    own = random.Random(3)
    with apiary.open(app, f"sqlite:///{tmp_path / 'seeds.db'}") as opened:
        random.seed(5)
        before = random.random()
        assert opened.call("seeded", seed=3) == [own.random(), own.gauss(0, 1)]
        drawn = opened.call("seeded", seed=None)
        assert opened.call("seeded", seed=None) != drawn
        random.seed(5)
        assert random.random() == before
        eventually(lambda: len(opened.log.calls()) == 3)
        for call in opened.log.calls():
            assert replay(app, opened.log.recording(call["id"])).difference == ""


def test_of_what_is_drawn_so_much_is_kept(tmp_path):
    app = App("much")

    @app.transaction
    def much(tx: Transaction) -> int:
        return len(os.urandom(10)) + len(os.urandom(100_000)) + len(os.urandom(20))

    with apiary.open(app, f"sqlite:///{tmp_path / 'much.db'}") as opened:
        opened.call("much")
        found = recording(opened, "much")
        assert [len(drawn) // 2 for drawn in found["drawn"]] == [10]
        with pytest.raises(Nondeterministic, match="100000 random bytes are drawn where none were drawn then"):
            replay(app, found)


def test_no_two_calls_draw_the_same(things):
    assert len({tuple(map(str, things.call("draws"))) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("change", "function", "arguments", "said"),
    [
        ("fewer columns", "everything", {}, r"statement 1 was select \* from things .*, and is now select name from"),
        (
            "another thing",
            "marks_of",
            {"thing": "a"},
            r'statement 1 was .*\{"thing":"a"\}, and is now .*\{"thing":"b"\}',
        ),
        ("one more", "marks_of", {"thing": "a"}, "statement 2 was not run then: select 1"),
        (
            "one less",
            "mark",
            {"thing": "a", "words": ["x"]},
            "statement 2 was update things .*, and is now update marks",
        ),
        ("draws more", "draws", {}, "3 random bytes are drawn where 8 were drawn then"),
    ],
)
def test_code_that_does_something_else_departs(things, changed, change, function, arguments, said):
    things.call(function, **arguments)
    with pytest.raises(Nondeterministic, match=said):
        replay(changed(change), recording(things, function))


@pytest.mark.parametrize(
    ("change", "function", "arguments", "said"),
    [
        (
            "another answer",
            "marks_of",
            {"thing": "a"},
            'it returned ["first","second","third"]; then, ["first","second"]',
        ),
        (
            "says less",
            "refuses",
            {"amount": 1},
            "it raised Rejected: too much; then, it failed with too_much: 1 is too much",
        ),
        ("breaks otherwise", "breaks", {"key": "c"}, "it raised KeyError: 'd'; then, it raised KeyError: 'c'"),
    ],
)
def test_code_that_comes_to_something_else_is_told_of(things, changed, change, function, arguments, said):
    try:
        things.call(function, **arguments)
    except (Rejected, InternalError):
        assert function in ("refuses", "breaks")
    assert replay(changed(change), recording(things, function)).difference == said


def test_a_recording_is_kept_in_a_file(things, tmp_path):
    things.call("marks_of", thing="a")
    (tmp_path / "run.json").write_text(json.dumps(recording(things, "marks_of")))
    assert replay(things.app, tmp_path / "run.json").result == ["first", "second"]


def test_secrets_have_to_be_given(things):
    things.call("sign_in", password="swordfish")
    found = recording(things, "sign_in")
    assert "swordfish" not in str(found)
    with pytest.raises(Conflict, match="secrets are not in the record"):
        replay(things.app, found)
    assert replay(things.app, found, {"password": "swordfish"}).difference == ""
    with pytest.raises(Nondeterministic, match="statement 1 was"):
        replay(things.app, found, {"password": "sword-fish"})


def test_what_the_log_has_not_kept_is_not_guessed(things):
    assert things.call("much") == 20_000
    with pytest.raises(Conflict, match="has not kept the 20000 rows of"):
        replay(things.app, recording(things, "much"))
    things.call("acts")
    with pytest.raises(Conflict, match="acted on the world"):
        recording(things, "acts")


def test_nothing_is_known_where_nothing_is_captured(tmp_path):
    app = thing_app(tmp_path / "migrations")
    with apiary.open(app, f"sqlite:///{tmp_path / 'things.db'}", capture="off") as opened:
        opened.call("mark", thing="a", words=["x"])
        with pytest.raises(Nondeterministic, match="statement 1 was not run then"):
            replay(app, recording(opened, "mark"))


def test_a_function_that_became_another_kind_or_went_is_told_of(things, tmp_path):
    things.call("marks_of", thing="a")
    other = App("things")

    @other.transaction
    def marks_of(tx: Transaction, thing: str) -> list[str]:
        return []

    found = recording(things, "marks_of")
    with pytest.raises(Nondeterministic, match="was a query, and is now a transaction"):
        replay(other, found)
    with pytest.raises(apiary.UnknownFunction):
        replay(App("things"), found)


def test_the_time_is_what_it_was(things):
    before = datetime.now(UTC)
    now = things.call("mark", thing="a", words=[])[2]
    assert before <= datetime.fromisoformat(now) <= datetime.now(UTC)
    assert replay(things.app, recording(things, "mark")).result[2] == now
