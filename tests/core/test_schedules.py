"""Workflows that begin by the clock: when, what of missed times, and each time once."""

from datetime import UTC, datetime, timedelta

import pytest

import apiary
from apiary import App, DeclarationError, Transaction, Workflow
from apiary.codec import compile_program
from apiary.engine.schedules import CALLER, Schedule, schedule_of


def declared(**options) -> Schedule:
    app = App("clock")

    @app.workflow(**options)
    def tick(wf: Workflow, at: datetime | None = None) -> None:
        pass

    found = schedule_of(compile_program(app, "v").find("tick"))
    assert found is not None
    return found


def seconds(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()


def test_times_follow_the_zone_through_the_change_of_clocks():
    schedule = declared(schedule="30 9 * * *", zone="Europe/Berlin")
    times = schedule.after(seconds(2027, 3, 27, 0))
    found = [datetime.fromtimestamp(next(times), UTC) for _ in range(3)]
    assert [(moment.day, moment.hour, moment.minute) for moment in found] == [(27, 8, 30), (28, 7, 30), (29, 7, 30)]


@pytest.mark.parametrize(
    ("missed", "hours"), [("once", [12]), ("all", [9, 10, 11, 12]), ("skip", [])], ids=["once", "all", "skip"]
)
def test_what_is_done_of_missed_times(missed, hours):
    schedule = declared(schedule="0 * * * *", missed=missed)
    times, until = schedule.due(seconds(2027, 1, 1, 8, 30), seconds(2027, 1, 1, 12, 15))
    assert times == [seconds(2027, 1, 1, hour) for hour in hours]
    assert until == seconds(2027, 1, 1, 12)


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
def test_a_time_that_has_just_come_is_not_missed(missed):
    schedule = declared(schedule="0 * * * *", missed=missed)
    noon = seconds(2027, 1, 1, 12)
    assert schedule.due(noon - 100, noon + 0.01) == ([noon], noon)
    assert schedule.due(noon, noon + 100) == ([], noon)


@pytest.mark.parametrize(
    "options",
    [{"schedule": "every day"}, {"schedule": "61 * * * *"}, {"schedule": "* * * * *", "zone": "Europe/Atlantis"}],
)
def test_a_schedule_that_cannot_be_is_refused(options):
    with pytest.raises(DeclarationError, match="no schedule that can be"):
        declared(**options)


@pytest.mark.parametrize("options", [{"missed": "later"}, {"schedule": 5}, {"zone": None}])
def test_options_that_cannot_be_are_refused_at_once(options):
    with pytest.raises(DeclarationError):
        declared(**options)


def test_a_parameter_that_nobody_gives_is_refused():
    app = App("clock")

    @app.workflow(schedule="* * * * *")
    def tick(wf: Workflow, at: datetime, name: str) -> None:
        pass

    with pytest.raises(DeclarationError, match="nobody gives it its name"):
        schedule_of(compile_program(app, "v").find("tick"))


@pytest.fixture
def ticking(tmp_path):
    """An app whose workflow begins each second, and the times at which it did."""
    folder = tmp_path / "ticking"
    (folder / "migrations").mkdir(parents=True)
    (folder / "migrations" / "001.sql").write_text("create table ticks (at text not null);")
    app = App("ticking", migrations=folder / "migrations")

    @app.transaction
    def put(tx: Transaction, at: datetime) -> None:
        tx.execute("insert into ticks (at) values (:at)", at=at.isoformat())

    @app.workflow(schedule="* * * * * *")
    def tick(wf: Workflow, at: datetime) -> None:
        wf.run(put, at)

    @app.query
    def ticks(tx: Transaction) -> list[datetime]:
        return [datetime.fromisoformat(at) for at in tx.execute("select at from ticks order by at").scalars()]

    return app


def wait_for(opened, count):
    end = datetime.now(UTC) + timedelta(seconds=30)
    while len(found := opened.call("ticks")) < count:
        assert datetime.now(UTC) < end
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_each_time_once_also_after_a_restart(ticking, kind, request, tmp_path):
    url = f"sqlite:///{tmp_path / 'ticking.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_database")
    with apiary.open(ticking, url) as opened:
        wait_for(opened, 2)
    with apiary.open(ticking, url) as opened:
        found = wait_for(opened, 4)
    assert len(set(found)) == len(found)
    assert all(moment.microsecond == 0 for moment in found)


def test_a_schedule_that_cannot_begin_holds_up_no_other(ticking, tmp_path, caplog):
    @ticking.workflow(schedule="* * * * * *")
    def at_a_number(wf: Workflow, at: int) -> None:
        pass

    with apiary.open(ticking, f"sqlite:///{tmp_path / 'ticking.db'}") as opened:
        wait_for(opened, 2)
    assert "the schedule of at_a_number is looked at again" in caplog.text


def test_the_caller_is_the_schedule(ticking, tmp_path):
    with apiary.open(ticking, f"sqlite:///{tmp_path / 'ticking.db'}") as opened:
        wait_for(opened, 1)
        record = opened.engine.find(None, f"schedule tick {opened.call('ticks')[0].isoformat()}")
    assert record.caller == CALLER
    assert record.status == "ok"
