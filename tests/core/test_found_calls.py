"""Calls that are found by time and by words, on each engine."""

import time

import pytest

from apiary import Rejected, Transaction


@pytest.fixture
def opened(engine_app, make_app):
    app = make_app()

    @app.transaction
    def say(tx: Transaction, what: str) -> str:
        tx.log("it was said", by="nobody")
        return what.upper()

    @app.transaction
    def refuse(tx: Transaction) -> None:
        raise Rejected("no, not this", code="never")

    return engine_app(app)


def inputs(opened, **asked):
    return [opened.log.show(call["id"])["input"].get("what") for call in opened.log.calls(**asked)]


def test_calls_are_found_by_words_and_time(opened):
    opened.call("say", "a bee's nest\nbelow")
    between = time.time_ns() // 1000
    opened.call("say", "ünder the roof_top")
    with pytest.raises(Rejected):
        opened.call("refuse")
    first, second = "a bee's nest\nbelow", "ünder the roof_top"
    for text in ("bee", "NEST", "nest bee", "below", "bel", "bee's"):
        assert inputs(opened, text=text) == [first], text
    for text in ("ünd", "roof", "top", "ünder roof"):
        assert inputs(opened, text=text) == [second], text
    assert inputs(opened, text="said nobody") == [second, first]
    assert inputs(opened, text="never") == [None]
    assert inputs(opened, text="ee") == []
    assert inputs(opened, since=between, function="say") == [second]
    assert inputs(opened, until=between) == [first]
    assert inputs(opened, since=between, text="bee") == []
