"""Apps in one's own process: opening, closing, and what must not be left behind."""

import gc
import os
import re
import threading
import time
from pathlib import Path

import apsw
import pytest

import apiary
import apiary.embedded
from apiary import InternalError, RuleBroken, Transaction, Unavailable, UnknownFunction, WrongArguments
from apiary.config import ConfigurationError
from apiary.runtime.errors import BundleRefused, DatabaseUnavailable, DeclarationError, NotFound


@pytest.fixture
def app(make_app):
    app = make_app("create table t (x integer)")

    @app.transaction
    def put(tx: Transaction, x: int = 1) -> int:
        tx.execute("insert into t (x) values (:x)", x=x)
        return x

    @app.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(*) from t").scalar()

    @app.action
    def act() -> int:
        return 1

    return app


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/app.db"


def test_an_app_is_closed_by_its_block_and_may_be_closed_again(app, url):
    with apiary.open(app, url) as opened:
        assert opened.call("put", 5) == 5
    opened.close()
    opened.close()
    with apiary.open(app, url) as opened:
        assert opened.call("count") == 1


@pytest.mark.parametrize("function", ["put", "count", "act"])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_closed_app_refuses_calls(app, url, promptly, function, key):
    opened = apiary.open(app, url)
    opened.close()
    with pytest.raises(Unavailable):
        promptly(lambda: opened.call(function, idempotency_key=key))


def test_calls_that_wait_when_the_app_is_closed_are_answered(app, url, platform):
    opened = apiary.open(app, url)
    calls = platform(opened)
    pending = [calls.submit(function) for _ in range(100) for function in ("put", "count")]
    opened.close()
    answered = [one.outcome() for one in pending]
    assert all(outcome.error is None for outcome in answered)
    with apiary.open(app, url) as again:
        assert again.call("count") == 100


def test_an_action_that_runs_when_the_app_is_closed_is_answered(app, url, platform):
    started, release = threading.Event(), threading.Event()

    @app.action
    def slow() -> None:
        started.set()
        release.wait(30)

    opened = apiary.open(app, url)
    calls = platform(opened)
    first, second = calls.submit("slow", key="k"), calls.submit("slow", key="k")
    started.wait(10)
    closing = threading.Thread(target=opened.close)
    closing.start()
    while not opened._dispatcher._actions._closed:
        time.sleep(0.001)
    release.set()
    closing.join(10)
    assert first.outcome().error is None
    assert second.outcome().error["code"] == "unavailable"


def test_calls_from_many_threads_while_the_app_is_closed_are_all_answered(app, url, together):
    opened = apiary.open(app, url)

    def use(number):
        if number == 0:
            opened.close()
            return 0
        kept = 0
        for _ in range(50):
            try:
                kept += opened.call("put")
            except Unavailable:
                break
        return kept

    kept = together(use, range(6))
    with apiary.open(app, url) as again:
        assert again.call("count") == sum(kept)


def test_nothing_is_left_behind(app, url):
    others = set(threading.enumerate())

    def threads():
        ours = set(threading.enumerate()) - others
        return [thread for thread in ours if thread.name.startswith("apiary-")]

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = None
    for _ in range(4):
        with apiary.open(app, url) as opened:
            opened.call("put")
            opened.call("count")
            opened.call("act")
        for thread in threads():
            thread.join(10)
        assert not threads()
        gc.collect()
        assert before is None or descriptors() == before
        before = descriptors()


def test_a_call_inside_a_transaction_does_not_wait_for_itself(app, url, promptly):
    with apiary.open(app, url) as opened:

        @app.transaction
        def outer(tx: Transaction) -> None:
            opened.call("put")

        opened.program.functions.update(apiary.embedded.compile_program(app, "local").functions)
        with pytest.raises(InternalError) as raised:
            promptly(lambda: opened.call("outer"))
        assert isinstance(raised.value.__cause__, RuleBroken)


def test_a_function_that_is_not_there(app, url):
    with apiary.open(app, url) as opened, pytest.raises(UnknownFunction, match="nothing"):
        opened.call("nothing")


def test_a_function_outside_of_a_transaction_says_what_to_do(app):
    with pytest.raises(TypeError, match=r"apiary\.open\('core'\)\.call\('put'"):
        app.functions["put"](5)


def test_wrong_arguments_are_refused_before_anything_runs(app, url):
    with apiary.open(app, url) as opened:
        for args, kwargs in [
            ((1, 2), {}),
            ((1,), {"x": 1}),
            ((), {"y": 1}),
            (("1",), {}),
            ((1.5,), {}),
            ((object(),), {}),
        ]:
            with pytest.raises(WrongArguments):
                opened.call("put", *args, **kwargs)
        assert opened.call("count") == 0


def test_a_bad_declaration_leaves_the_database_as_it_was(make_app, url, tmp_path):
    app = make_app("create table t (x integer)")

    @app.transaction
    def bad(tx: Transaction, x: threading.Lock) -> None: ...

    with pytest.raises(DeclarationError, match="bad"):
        apiary.open(app, url)
    good = make_app("create table t (y integer)")

    @good.query
    def count(tx: Transaction) -> int:
        return tx.execute("select count(y) from t").scalar()

    with apiary.open(good, url) as opened:
        assert opened.call("count") == 0


@pytest.mark.parametrize("url", ["mysql://localhost/x", "shop.db", "sqlite://shop.db", "mysql://x", "sqlite:/x.db", ""])
def test_a_url_that_is_none_is_refused(app, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if url == "":
        with apiary.open(app, url) as opened:
            assert opened.call("count") == 0
        assert Path(".apiary/core.db").is_file()
        return
    with pytest.raises(DeclarationError, match="engine") as raised:
        apiary.open(app, url)
    assert "sqlite:///" in raised.value.hint


@pytest.mark.parametrize("place", ["folder/core.db", "file/below.db"])
def test_a_place_where_no_database_can_be_is_refused_by_name(app, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "core.db").mkdir(parents=True)
    with pytest.raises(DatabaseUnavailable, match=f"{re.escape(str(tmp_path / place))} cannot be opened") as raised:
        apiary.open(app, f"sqlite:///{tmp_path}/{place.removesuffix('core.db')}")
    assert "may make files" in raised.value.hint


def test_a_file_that_is_no_database_is_refused(app, tmp_path):
    (tmp_path / "app.db").write_text("this is no database, and never was one. " * 100)
    with pytest.raises(Unavailable, match="damaged"):
        apiary.open(app, f"sqlite:///{tmp_path}/app.db")


def test_apps_open_by_name_and_by_path(tmp_path, monkeypatch):
    folder = tmp_path / "one"
    folder.mkdir()
    source = (
        "from apiary import App, Transaction\napp = App('{0}')\n"
        "@app.query\ndef name(tx: Transaction) -> str:\n    return '{0}'\n"
    )
    (folder / "unlikely_app.py").write_text(source.format("one"))
    with apiary.open(folder / "unlikely_app.py", f"sqlite:///{tmp_path}/a.db") as opened:
        assert opened.call("name") == "one"
    with apiary.open("unlikely_app", f"sqlite:///{tmp_path}/b.db") as opened:
        assert opened.call("name") == "one"
    other = tmp_path / "two"
    other.mkdir()
    (other / "unlikely_app.py").write_text(source.format("two"))
    with pytest.raises(BundleRefused, match="unlikely_app"):
        apiary.open(other, f"sqlite:///{tmp_path}/c.db")
    with pytest.raises(BundleRefused):
        apiary.open(tmp_path / "missing.py", f"sqlite:///{tmp_path}/c.db")


def test_the_log_answers_questions(app, url):
    with apiary.open(app, url) as opened:
        for x in range(5):
            opened.call("put", x, idempotency_key=f"k{x}")
        found = opened.log.calls(function="put", limit=2)
        assert [call["idempotency_key"] for call in found] == ["k4", "k3"]
        older = opened.log.calls(before=found[-1]["seq"])
        assert [call["idempotency_key"] for call in older] == ["k2", "k1", "k0"]
        assert opened.log.calls(status="failed") == []
        for bad in ("x", "00", "0198f1c2-0000-7000-8000-000000000000"):
            with pytest.raises(NotFound):
                opened.log.show(call=bad)


def test_the_fixture_opens_fresh_databases(apiary_app, app):
    first, second = apiary_app(app), apiary_app(app)
    first.call("put")
    assert (first.call("count"), second.call("count")) == (1, 0)


def test_the_log_shows_what_json_cannot_say(app, url):
    """Earlier versions stored such arguments."""
    with apiary.open(app, url) as opened:
        opened.call("put", 5)
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.execute("update apiary_calls set input = '{\"x\": [NaN, -Infinity, 1e999, 1.5]}'")
        connection.close()
        found = opened.log.calls()[0]["id"]
        shown = opened.log.show(call=found)
    assert shown["input"] == {"x": ["NaN", "-Infinity", "1e999", 1.5]}


@pytest.mark.parametrize("key", ["", " ", "é", "a\n", "x" * 256, 5, b"k"])
def test_a_key_that_http_would_not_take_is_refused(app, url, key):
    with apiary.open(app, url) as opened, pytest.raises(WrongArguments, match="an idempotency key is text"):
        opened.call("put", 1, idempotency_key=key)
    with apiary.Client("http://localhost:1", app="core") as client, pytest.raises(WrongArguments, match="is text"):
        client.call("put", x=1, idempotency_key=key)


def test_a_database_in_memory_is_refused(app):
    with pytest.raises(ConfigurationError, match="in memory"):
        apiary.open(app, "sqlite:///:memory:")
