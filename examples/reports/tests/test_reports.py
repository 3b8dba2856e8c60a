"""The morning report: what it counts, and that each day has one."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import apiary

REPORTS = Path(__file__).parents[1]
TUESDAY = datetime(2026, 1, 6, 6, 0, tzinfo=UTC)
"""Seven in the morning in Berlin."""


@pytest.fixture
def reports(apiary_app: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REPORTS_OUTBOX", str(tmp_path))
    return apiary_app(REPORTS)


def test_a_report_counts_the_day_before_is_kept_and_sent(reports: Any, tmp_path: Path) -> None:
    for cents in (790, 1_210):
        reports.call("sell", item="honey", cents=cents)
    today = reports.call("sold_on", day=_today())
    assert (today.pieces, today.cents) == (2, 2_000)
    report = reports.call("morning", at=TUESDAY)
    assert (report.day, report.pieces, report.cents) == (date(2026, 1, 5), 0, 0)
    assert reports.call("reports") == [report]
    assert (tmp_path / "2026-01-05.txt").read_text() == "To: owner@example.org\n\n2026-01-05: 0 pieces, 0.00\n"


def test_mondays_report_on_friday(reports: Any) -> None:
    assert reports.call("morning", at=TUESDAY.replace(day=5)).day == date(2026, 1, 2)


def test_a_day_has_one_report(reports: Any) -> None:
    reports.call("morning", at=TUESDAY)
    with pytest.raises(apiary.ConstraintViolated):
        reports.call("morning", at=TUESDAY)
    assert len(reports.call("reports")) == 1


def test_each_working_morning_has_a_report_of_the_day_before(reports: Any, apiary_clock: Any) -> None:
    reports.call("sell", item="honey", cents=790)
    first = _today()
    apiary_clock.advance(days=7)
    found = reports.call("reports")
    assert len(found) == 5
    assert all(report.day.weekday() < 5 for report in found)
    sold = {report.day: report.cents for report in found}
    assert sum(sold.values()) == sold.get(first, 0) == (790 if first.weekday() < 5 else 0)


def _today() -> date:
    return datetime.now(ZoneInfo("Europe/Berlin")).date()
