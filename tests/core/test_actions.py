"""Actions: the outside world, at least once, retried, recorded."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel, SecretStr, field_validator
from tests.conftest import eventually

import apiary
from apiary import DeadlineExceeded, InternalError, Rejected, RuleBroken, Transaction, Workflow, beat

SECONDS = 20.0


@pytest.fixture
def app(make_app):
    return make_app()


def test_an_action_runs_and_is_recorded(app, engine_app):
    @app.action
    def greet(name: str, greeting: str = "hello") -> str:
        return f"{greeting} {name}"

    opened = engine_app(app)
    assert opened.call(greet, "Ada") == "hello Ada"
    assert opened.call("greet", name="Ada", greeting="bye") == "bye Ada"
    assert [call["function"] for call in opened.log.calls()] == ["greet", "greet"]


class Fragile(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def check(cls, value: int) -> int:
        raise TypeError("a mistake of the validator")


def test_an_action_whose_types_fail_to_read_arguments_is_recorded_with_the_traceback(app, engine_app, platform):
    @app.action
    def take(what: Fragile, password: SecretStr = SecretStr("")) -> None: ...  # noqa: B008 - a default

    opened = engine_app(app)
    body = '{"what": {"value": 1}, "password": "hunter2"}'
    first = platform(opened).run("take", body, key="k")
    assert first.error["code"] == "internal_error"
    again = platform(opened).run("take", body, key="k")
    assert (again.replayed is None, again.error) == (False, first.error)
    (record,) = opened.log.calls()
    shown = opened.log.show(call=record["id"])
    assert (shown["status"], shown["kind"], "TypeError" in shown["error"]["traceback"]) == ("failed", "action", True)
    assert shown["input"] == {"what": {"value": 1}, "password": "*" * 10}


def test_an_action_may_be_async(app, engine_app, together):
    @app.action
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    opened = engine_app(app)
    assert together(lambda x: opened.call(double, x), range(8)) == [2 * x for x in range(8)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_action_is_tried_again_with_the_same_key(app, engine_app, asynchronous):
    seen = []

    def body(idempotency_key: str) -> int:
        seen.append(idempotency_key)
        if len(seen) < 3:
            raise ConnectionError("not yet")
        return len(seen)

    async def async_body(idempotency_key: str) -> int:
        return body(idempotency_key)

    chosen = async_body if asynchronous else body
    chosen.__name__ = "flaky"
    app.action(retries=3, backoff=0.001)(chosen)
    opened = engine_app(app)
    assert opened.call("flaky", idempotency_key="mine") == 3
    assert seen == ["mine"] * 3
    (record,) = opened.log.calls()
    assert record["attempt"] == 3


def test_an_action_without_a_key_gets_its_id(app, engine_app):
    @app.action
    def key_of(*, idempotency_key: str) -> str:
        return idempotency_key

    opened = engine_app(app)
    assert opened.call("key_of") == opened.log.calls()[0]["id"]


def test_the_key_is_no_argument_of_a_caller(app, engine_app, platform):
    @app.action
    def key_of(*, idempotency_key: str) -> str:
        return idempotency_key

    calls = platform(engine_app(app))
    assert calls.run("key_of", '{"idempotency_key": "x"}').error["code"] == "wrong_arguments"


def test_an_action_gives_up_in_the_end(app, engine_app):
    tries = []

    @app.action(retries=2, backoff=0.001)
    def broken() -> None:
        tries.append(1)
        raise ConnectionError("never")

    opened = engine_app(app)
    with pytest.raises(InternalError) as raised:
        opened.call(broken)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert len(tries) == 3
    shown = opened.log.show(call=raised.value.call_id)
    assert shown["status"] == "failed"
    assert "never" in shown["error"]["traceback"]


def test_a_refusal_is_not_tried_again(app, engine_app):
    tries = []

    @app.action(retries=5, backoff=0.001)
    def declined() -> None:
        tries.append(1)
        raise Rejected("declined", code="declined")

    with pytest.raises(Rejected, match="declined"):
        engine_app(app).call(declined)
    assert len(tries) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_action_that_raises_something_odd_is_answered(app, engine_app, promptly, error, asynchronous):
    def plain() -> None:
        raise error

    async def coroutine() -> None:
        raise error

    body = coroutine if asynchronous else plain
    body.__name__ = "odd"
    app.action(body)
    opened = engine_app(app)
    for _ in range(2):
        with pytest.raises(apiary.Error):
            promptly(lambda: opened.call("odd", idempotency_key="k"))


def test_an_action_that_hangs_is_left_behind(app, engine_app):
    release = threading.Event()

    @app.action(timeout=0.5)
    def hangs() -> None:
        release.wait(30)

    @app.action(timeout=0.5)
    async def hangs_too() -> None:
        await asyncio.Event().wait()

    @app.action(timeout=0.5)
    async def blocks_its_loop() -> None:
        release.wait(30)

    opened = engine_app(app)
    for function in ("hangs", "hangs_too", "blocks_its_loop"):
        with pytest.raises(DeadlineExceeded):
            opened.call(function)
        assert opened.log.calls()[0]["status"] == "stopped"
    release.set()


def test_a_key_that_was_left_free_is_of_whichever_action_comes_next(app, engine_app):
    ran: list[str] = []
    begun, release = threading.Event(), threading.Event()

    @app.action(timeout=0.5)
    def charge(amount: int) -> str:
        ran.append(f"charge {amount}")
        begun.set()
        release.wait(30)
        return "charged"

    @app.action
    def refund(amount: int) -> str:
        ran.append(f"refund {amount}")
        return "refunded"

    opened = engine_app(app)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(opened.call, "charge", amount=1, idempotency_key="k")
        assert begun.wait(20)
        second = pool.submit(opened.call, "refund", amount=5, idempotency_key="k")
        with pytest.raises(DeadlineExceeded):
            first.result(20)
        assert second.result(20) == "refunded"
    release.set()
    assert ran == ["charge 1", "refund 5"]


def test_an_action_that_says_that_it_is_getting_on_may_take_longer(app, engine_app):
    told: list[type[BaseException] | None] = []
    given_up = threading.Event()

    @app.action(timeout=0.8)
    def copies(parts: int) -> int:
        for _ in range(parts):
            time.sleep(0.15)
            beat()
        return parts

    @app.action(timeout=0.8)
    async def copies_too(parts: int) -> int:
        for _ in range(parts):
            await asyncio.sleep(0.15)
            beat()
        return parts

    @app.action(timeout=0.2)
    def stands_still() -> None:
        beat()
        given_up.wait(20)
        try:
            beat()
        except DeadlineExceeded as error:
            told.append(type(error))
            raise

    opened = engine_app(app)
    assert opened.call(copies, 8) == opened.call(copies_too, 8) == 8
    with pytest.raises(DeadlineExceeded):
        opened.call(stands_still)
    given_up.set()
    eventually(lambda: told)
    assert beat() is None


def test_a_timeout_of_the_action_itself_is_a_failure_like_any_other(app, engine_app):
    tries = []

    @app.action(retries=1, backoff=0.001)
    async def ask_somebody() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise TimeoutError("nobody answers")
        return len(tries)

    assert engine_app(app).call(ask_somebody) == 2


def test_an_attempt_that_hangs_is_left_behind_and_tried_again(app, engine_app):
    tries, released = [], threading.Event()

    @app.action(retries=3, backoff=0.001, attempt_timeout=0.2, timeout=20)
    def hangs_at_first() -> int:
        tries.append(threading.current_thread())
        if len(tries) < 3:
            released.wait(SECONDS)
        return len(tries)

    opened = engine_app(app)
    assert opened.call(hangs_at_first) == 3
    released.set()
    (record,) = opened.log.calls()
    lines = opened.log.show(call=record["id"])["lines"]
    assert [line["message"].startswith(f"attempt {n}: OutOfTime") for n, line in enumerate(lines, 1)] == [True, True]


def test_attempts_that_all_hang_are_told_by_their_own_limit(app, engine_app):
    @app.action(retries=1, backoff=0.001, attempt_timeout=0.1, timeout=20)
    async def hangs() -> None:
        await asyncio.sleep(SECONDS)

    opened = engine_app(app)
    with pytest.raises(DeadlineExceeded, match=r"longer than its attempt_timeout of 0\.1 s"):
        opened.call(hangs)


def test_only_what_is_worth_it_is_tried_again(app, engine_app):
    tries = []

    @app.action(retries=5, backoff=0.001, retry_on=(ConnectionError, TimeoutError))
    def choosy(wrong: bool) -> None:
        tries.append(wrong)
        raise ValueError("no use") if wrong else ConnectionResetError("try again")

    opened = engine_app(app)
    for wrong, kind, most in ((True, ValueError, 1), (False, ConnectionResetError, 6)):
        tries.clear()
        with pytest.raises(InternalError) as raised:
            opened.call(choosy, wrong)
        assert isinstance(raised.value.__cause__, kind)
        assert len(tries) == most


def test_those_that_wait_for_their_next_attempt_hold_up_no_others(app, engine_app):
    """More of them than there are threads: the one that comes last runs, while all others wait."""
    lock, failed, mended = threading.Lock(), set(), threading.Event()

    @app.action(retries=100, backoff=0.2, timeout=60)
    def waits(n: int) -> int:
        with lock:
            failed.add(n)
        if not mended.is_set():
            raise ConnectionError("not yet")
        return n

    @app.action
    def quick() -> bool:
        return mended.is_set()

    @app.workflow
    def flow(wf: Workflow) -> bool:
        return wf.run(quick)

    @app.transaction
    def leave(tx: Transaction) -> None:
        for n in range(40):
            tx.enqueue(waits, n)

    opened = engine_app(app)
    opened.call(leave)
    eventually(lambda: len(failed) == 40)
    assert opened.call(flow) is False
    mended.set()
    opened.drain(60)
    assert {call["status"] for call in opened.log.calls(function="waits")} == {"ok"}


def test_an_app_that_closes_waits_for_what_is_tried_again(app, engine_app):
    tries, closing = [], threading.Event()

    @app.action(retries=100, backoff=0.05)
    def flaky() -> int:
        tries.append(1)
        if not closing.is_set():
            raise ConnectionError("not yet")
        return 7

    opened = engine_app(app)
    with ThreadPoolExecutor(2) as threads:
        called = threads.submit(opened.call, flaky)
        eventually(lambda: len(tries) > 1)
        closed = threads.submit(opened.close)
        closing.set()
        assert called.result(SECONDS) == 7
        closed.result(SECONDS)


def test_there_is_no_retry_beyond_the_deadline(app, engine_app):
    tries = []

    @app.action(retries=100, backoff=1000, timeout=0.5)
    def fails() -> None:
        tries.append(1)
        raise ConnectionError("broken wire")

    opened = engine_app(app)
    with pytest.raises(DeadlineExceeded) as raised:
        opened.call(fails)
    assert len(tries) == 1
    shown = opened.log.show(call=raised.value.call_id)
    assert "broken wire" in json.dumps(shown["lines"])


def test_a_result_that_does_not_fit_is_a_mistake_of_the_function(app, engine_app):
    @app.action
    def lies() -> int:
        return "x"  # type: ignore[return-value]

    with pytest.raises(InternalError):
        engine_app(app).call("lies")


def test_an_action_is_not_for_the_inside_of_a_transaction(app, engine_app):
    @app.action
    def send() -> None: ...

    @app.transaction
    def careless(tx: Transaction) -> None:
        send()

    with pytest.raises(InternalError) as raised:
        engine_app(app).call("careless")
    assert isinstance(raised.value.__cause__, RuleBroken)
    assert "tx.enqueue(send" in raised.value.__cause__.hint


def test_an_action_may_call_another_one(app, engine_app):
    @app.action
    def inner(x: int) -> int:
        return x + 1

    @app.action
    def outer(x: int) -> int:
        return inner(inner(x))

    assert engine_app(app).call("outer", 1) == 3


def test_roles_hold_for_actions(app, engine_app, platform):
    @app.action(roles=["boss"])
    def secret() -> int:
        return 1

    calls = platform(engine_app(app))
    assert calls.run("secret", roles=()).error["code"] == "forbidden"
    assert calls.run("secret", roles={"boss"}).error is None


def test_nothing_is_remembered_of_actions_that_ended(app, engine_app):
    @app.action
    def act(x: int) -> None:
        if x % 3 == 0:
            raise Rejected("no")

    opened = engine_app(app)
    for x in range(20):
        try:
            opened.call("act", x, idempotency_key=f"k{x % 7}")
        except apiary.Error:
            pass
    assert not opened._dispatcher._actions._running
