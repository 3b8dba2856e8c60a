"""A report every working morning: a workflow that begins by the clock.

`morning` counts what was sold the day before, keeps that, and has it sent. It gets the time for which it begins, so it
reports on the right day also where it begins late.
"""

import os
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field

from apiary import App, Transaction, Workflow

app = App("reports", description="A report every working morning.")

ZONE = "Europe/Berlin"
READER = "owner@example.org"
OUTBOX = "REPORTS_OUTBOX"
"""Names the variable with the folder into which reports are sent."""


@dataclass
class Report:
    """What was sold on one day."""

    day: date
    pieces: int
    cents: int


@app.transaction
def sell(tx: Transaction, item: str, cents: Annotated[int, Field(gt=0)]) -> None:
    """Sell a piece, now."""
    day = tx.now.astimezone(ZoneInfo(ZONE)).date()
    tx.execute("insert into sales (item, cents, day) values (:item, :cents, :day)", item=item, cents=cents, day=day)


@app.query
def sold_on(tx: Transaction, day: date) -> Report:
    """What was sold on a day."""
    found = tx.execute(
        "select count(*) as pieces, coalesce(sum(cents), 0) as cents from sales where day = :day", day=day
    ).one()
    return Report(day, found.pieces, found.cents)


@app.transaction
def keep(tx: Transaction, report: Report) -> None:
    """Keep the report of a day."""
    tx.execute(
        "insert into reports (day, pieces, cents) values (:day, :pieces, :cents)",
        day=report.day,
        pieces=report.pieces,
        cents=report.cents,
    )


@app.query
def reports(tx: Transaction) -> list[Report]:
    """All reports, the latest first."""
    return tx.execute("select day, pieces, cents from reports order by day desc").all(Report)


@app.action(retries=8)
def send(to: str, report: Report) -> None:
    """Send a report. A folder stands for the mail server; a report that is sent again replaces itself."""
    outbox = os.environ.get(OUTBOX)
    if outbox is not None:
        text = f"To: {to}\n\n{report.day}: {report.pieces} pieces, {report.cents / 100:.2f}\n"
        (Path(outbox) / f"{report.day}.txt").write_text(text)


@app.workflow(schedule="0 7 * * mon-fri", zone=ZONE, missed="once")
def morning(wf: Workflow, at: datetime) -> Report:
    """Report on the day before `at`; on Mondays, on Friday."""
    day = at.astimezone(ZoneInfo(ZONE)).date()
    before = day - timedelta(days=3 if day.weekday() == 0 else 1)
    report = wf.run(sold_on, before)
    wf.run(keep, report)
    wf.run(send, READER, report)
    return report
