"""Random programs of calls, run by the platform and by a model in plain Python, must come to the same."""

import json
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

import apiary
from apiary import App, ConstraintViolated, Rejected, Transaction

NAMES = ["a", "b", "c"]
TABLES = """
create table accounts (name text primary key, cents integer not null check (cents >= 0));
insert into accounts (name, cents) values ('a', 10), ('b', 10), ('c', 10);
"""


def bank(folder: Path) -> App:  # noqa: C901 - many small functions
    app = App("bank", migrations=folder)

    @app.transaction
    def deposit(tx: Transaction, name: str, cents: int) -> int:
        tx.execute("update accounts set cents = cents + :cents where name = :name", name=name, cents=cents)
        return tx.execute("select cents from accounts where name = :name", name=name).scalar()

    @app.transaction
    def transfer(tx: Transaction, source: str, target: str, cents: int) -> list[int]:
        return [deposit(tx, target, cents), deposit(tx, source, -cents)]

    @app.transaction
    def try_transfers(tx: Transaction, steps: list[tuple[str, str, int]]) -> list[bool]:
        done = []
        for source, target, cents in steps:
            try:
                transfer(tx, source, target, cents)
                done.append(True)
            except ConstraintViolated:
                done.append(False)
        return done

    @app.transaction
    def deposit_and_refuse(tx: Transaction, name: str, cents: int) -> None:
        raise Rejected("no", code="no", seen=deposit(tx, name, cents))

    @app.transaction
    def deposit_later(tx: Transaction, name: str, cents: list[int], refuse: bool) -> int:
        for some in cents:
            tx.enqueue(deposit, name, some)
        if refuse:
            raise Rejected("no", code="no")
        return len(cents)

    @app.query
    def balance(tx: Transaction, name: str) -> int:
        return tx.execute("select cents from accounts where name = :name", name=name).scalar()

    return app


class Broke(Exception):
    pass


class Model:
    """The bank in plain Python. A function returns its result, or raises `Rejected` or `Broke`."""

    def __init__(self) -> None:
        self.cents = dict.fromkeys(NAMES, 10)

    def deposit(self, name: str, cents: int) -> int:
        if self.cents[name] + cents < 0:
            raise Broke
        self.cents[name] += cents
        return self.cents[name]

    def transfer(self, source: str, target: str, cents: int) -> list[int]:
        before = dict(self.cents)
        try:
            return [self.deposit(target, cents), self.deposit(source, -cents)]
        except Broke:
            self.cents = before
            raise

    def try_transfers(self, steps: list[tuple[str, str, int]]) -> list[bool]:
        done = []
        for step in steps:
            try:
                self.transfer(*step)
                done.append(True)
            except Broke:
                done.append(False)
        return done

    def deposit_and_refuse(self, name: str, cents: int) -> None:
        if self.cents[name] + cents < 0:
            raise Broke
        raise Rejected("no", code="no", seen=self.cents[name] + cents)

    def deposit_later(self, name: str, cents: list[int], refuse: bool) -> int:
        if refuse:
            raise Rejected("no", code="no")
        for some in cents:
            try:
                self.deposit(name, some)
            except Broke:
                pass
        return len(cents)

    def balance(self, name: str) -> int:
        return self.cents[name]


names = st.sampled_from(NAMES)
amounts = st.integers(-8, 12)
calls = st.one_of(
    st.tuples(st.just("deposit"), st.fixed_dictionaries({"name": names, "cents": amounts})),
    st.tuples(st.just("transfer"), st.fixed_dictionaries({"source": names, "target": names, "cents": amounts})),
    st.tuples(
        st.just("try_transfers"),
        st.fixed_dictionaries({"steps": st.lists(st.tuples(names, names, amounts), max_size=4)}),
    ),
    st.tuples(st.just("deposit_and_refuse"), st.fixed_dictionaries({"name": names, "cents": amounts})),
    st.tuples(
        st.just("deposit_later"),
        st.fixed_dictionaries({"name": names, "cents": st.lists(amounts, max_size=4), "refuse": st.booleans()}),
    ),
    st.tuples(st.just("balance"), st.fixed_dictionaries({"name": names})),
)


class BankMachine(RuleBasedStateMachine):
    """Calls with and without keys, repeated keys, and the app closed and opened again, in any order."""

    keyed = Bundle("keyed")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        (self.path / "001.sql").write_text(TABLES)
        self.model = Model()
        self.outcomes: dict[str, object] = {}
        self.ran = 0
        self.open()

    def open(self) -> None:
        self.opened = apiary.open(bank(self.path), f"sqlite:///{self.path}/bank.db")

    def outcome(self, function: str, arguments: dict[str, object], key: str | None = None) -> object:
        try:
            return json.loads(json.dumps(self.opened.call(function, idempotency_key=key, **arguments)))
        except ConstraintViolated:
            return "broke"
        except Rejected as error:
            return ["rejected", error.code, error.details]

    def expected(self, function: str, arguments: dict[str, object]) -> object:
        before = dict(self.model.cents)
        try:
            return getattr(self.model, function)(**arguments)
        except Broke:
            self.model.cents = before
            return "broke"
        except Rejected as error:
            self.model.cents = before
            return ["rejected", error.code, error.details]

    @rule(call=calls)
    def run(self, call: tuple[str, dict[str, object]]) -> None:
        found = self.outcome(*call)
        self.opened.drain()
        assert found == self.expected(*call)
        self.ran += 1

    @rule(target=keyed, call=calls)
    def run_with_key(self, call: tuple[str, dict[str, object]]) -> tuple[str, tuple[str, dict[str, object]]]:
        key = f"key {len(self.outcomes)}"
        self.outcomes[key] = self.outcome(*call, key)
        self.opened.drain()
        assert self.outcomes[key] == self.expected(*call)
        self.ran += 1
        return key, call

    @rule(again=keyed)
    def run_again(self, again: tuple[str, tuple[str, dict[str, object]]]) -> None:
        key, call = again
        assert self.outcome(*call, key) == self.outcomes[key]

    @rule()
    def reopen(self) -> None:
        self.opened.close()
        self.open()

    @invariant()
    def the_tables_agree(self) -> None:
        if not hasattr(self, "opened"):
            return
        rows = self.opened.engine._connection.execute("select name, cents from accounts").fetchall()
        assert dict(rows) == self.model.cents
        (waiting,) = self.opened.engine._connection.execute("select count(*) from apiary_queue").fetchone()
        assert waiting == 0

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.opened.close()
            engine = apiary.open(bank(self.path), f"sqlite:///{self.path}/bank.db")
            run = engine.engine._connection.execute
            (recorded,) = run("select count(*) from apiary_calls where parent is null").fetchone()
            (keys,) = run("select count(distinct key) from apiary_calls").fetchone()
            engine.close()
            self.folder.cleanup()
            assert (recorded, keys) == (self.ran, len(self.outcomes))


TestBank = BankMachine.TestCase
TestBank.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
