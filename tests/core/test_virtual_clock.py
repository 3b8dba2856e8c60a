"""Tests that let days pass: what sleeps, waits or begins by the clock does so at its time, on each engine."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apiary import App, DeadlineExceeded, Transaction, Workflow
from apiary.testing import Clock


@pytest.fixture
def app(make_app) -> App:
    app = make_app("create table seen (what text not null, at text not null)")

    @app.transaction
    def note(tx: Transaction, what: str) -> None:
        tx.execute("insert into seen (what, at) values (:what, :at)", what=what, at=tx.now.isoformat())

    @app.query
    def seen(tx: Transaction) -> list[tuple[str, datetime]]:
        rows = tx.execute("select what, at from seen order by at")
        return [(row.what, datetime.fromisoformat(row.at)) for row in rows]

    @app.workflow
    def reminders(wf: Workflow, days: list[int]) -> list[datetime]:
        found = []
        for count in days:
            wf.sleep(count * 86400)
            wf.run(note, f"after {count}")
            found.append(wf.now)
        return found

    @app.workflow
    def patient(wf: Workflow) -> Any:
        return wf.receive("answer", timeout=3600)

    @app.workflow(timeout=3600)
    def limited(wf: Workflow) -> None:
        wf.receive("never")

    return app


@pytest.fixture
def opened(app, engine_app, clock):
    return engine_app(app)


@pytest.fixture
def apps() -> list[Any]:
    return []


@pytest.fixture
def clock(apps, monkeypatch) -> Clock:
    return Clock(apps, monkeypatch)


@pytest.fixture(autouse=True)
def known(apps, opened, alarm) -> None:
    apps.append(opened)


def test_days_of_sleep_are_skipped_and_each_thing_is_done_at_its_time(opened, clock):
    began = clock.now
    handle = opened.start("reminders", days=[1, 2, 10])
    clock.advance(days=5)
    seen = opened.call("seen")
    assert [what for what, _ in seen] == ["after 1", "after 2"]
    for (_, at), days in zip(seen, (1, 3), strict=True):
        assert timedelta(days=days) <= at - began < timedelta(days=days, minutes=1)
    assert handle.status() == "waiting"
    clock.advance(days=9)
    assert [(at - began).days for at in handle.result(20)] == [1, 3, 13]
    assert timedelta(days=14) <= clock.now - began < timedelta(days=14, minutes=1)


def test_who_waits_for_a_message_waits_no_longer_than_it_said(opened, clock):
    waiting, told = opened.start("patient"), opened.start("patient")
    clock.advance(minutes=59)
    assert waiting.status() == "waiting"
    told.send("answer", 7)
    clock.advance(minutes=1)
    assert (waiting.result(20), told.result(20)) == (None, 7)


def test_the_time_of_a_workflow_is_over(opened, clock):
    handle = opened.start("limited")
    clock.advance(hours=2)
    with pytest.raises(DeadlineExceeded):
        handle.result(20)


def test_each_morning_comes_once(make_app, apiary_app, apiary_clock):
    app = make_app("create table mornings (at text not null)", name="mornings")

    @app.transaction
    def put(tx: Transaction, at: datetime, now: datetime) -> None:
        tx.execute("insert into mornings (at) values (:at)", at=f"{at.isoformat()} {(now - at).total_seconds() < 60}")

    @app.query
    def mornings(tx: Transaction) -> list[str]:
        return tx.execute("select at from mornings order by at").scalars()

    @app.workflow(schedule="0 7 * * *", missed="once")
    def morning(wf: Workflow, at: datetime) -> None:
        wf.sleep(3600)
        wf.run(put, at, wf.now - timedelta(hours=1))

    opened = apiary_app(app)
    first = apiary_clock.now.replace(hour=7, minute=0, second=0, microsecond=0)
    if first <= apiary_clock.now:
        first += timedelta(days=1)
    apiary_clock.advance(days=3, hours=2)
    found = opened.call("mornings")
    assert found[:3] == [f"{(first + timedelta(days=day)).isoformat()} True" for day in range(3)]
    opened.close()
    apiary_clock.advance(days=1)


def test_the_clock_goes_on_by_itself(clock):
    assert abs(clock.now - datetime.now(UTC)) < timedelta(seconds=5)
    clock.advance(seconds=0.5)
    assert clock.now - datetime.now(UTC) > timedelta(seconds=0.4)


def test_calls_that_were_delayed_begin_at_their_time(make_app, apiary_app, apiary_clock):
    app = make_app("create table began (x integer not null, at text not null)", name="delays")

    @app.transaction
    def put(tx: Transaction, x: int) -> None:
        tx.execute("insert into began (x, at) values (:x, :at)", x=x, at=tx.now.isoformat())

    @app.transaction
    def later(tx: Transaction) -> str:
        for x, seconds in enumerate((7200, 45, 86400, 0)):
            tx.enqueue(put.with_options(delay=seconds), x)
        return tx.now.isoformat()

    @app.query
    def began(tx: Transaction) -> list[tuple[int, str]]:
        return [(row.x, row.at) for row in tx.execute("select x, at from began order by at")]

    opened = apiary_app(app)
    enqueued = datetime.fromisoformat(opened.call("later"))
    apiary_clock.advance(seconds=10)
    assert [x for x, _ in opened.call("began")] == [3]
    apiary_clock.advance(minutes=1)
    assert [x for x, _ in opened.call("began")] == [3, 1]
    apiary_clock.advance(days=2)
    found = opened.call("began")
    assert [x for x, _ in found] == [3, 1, 0, 2]
    for (_, at), seconds in zip(found, (0, 45, 7200, 86400), strict=True):
        late = (datetime.fromisoformat(at) - enqueued).total_seconds() - seconds
        assert 0 <= late < 60
