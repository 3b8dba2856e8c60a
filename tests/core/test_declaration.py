"""Declarations: what is declared badly is refused at import, with a message that says what to write."""

import functools
import inspect
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from apiary import App, Transaction
from apiary.codec import FunctionCodec
from apiary.runtime.errors import DeclarationError, Rejected, from_problem, known_errors
from apiary.runtime.options import DEFAULT_ACTION_TIMEOUT_SECONDS, DEFAULT_TIMEOUT_SECONDS


@pytest.fixture
def app():
    return App("app")


def plain(tx: Transaction, x: int = 1) -> int:
    """What it does."""
    return x


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "my-shop", "a" * 64, "shop\n", "käse", "a b", "../x", None, 5])
def test_an_app_needs_a_proper_name(name):
    with pytest.raises(DeclarationError, match="cannot be the name of an app") as raised:
        App(name)
    assert raised.value.hint


async def is_async(tx: Transaction) -> None: ...
def is_generator(tx: Transaction):
    yield 1


async def is_async_generator(tx: Transaction):
    yield 1


def no_transaction() -> None: ...
def only_keywords(*, tx: Transaction) -> None: ...
def variable(tx: Transaction, *args: int) -> None: ...
def many_names(tx: Transaction, **kwargs: int) -> None: ...
def no_names(tx: Transaction, x: int, /) -> None: ...
def only_variable(*args: Transaction) -> None: ...
def _private(tx: Transaction) -> None: ...


BAD = [
    (is_async, "plain `def`"),
    (is_generator, "generator"),
    (is_async_generator, "generator|plain `def`"),
    (no_transaction, "no parameter for its transaction"),
    (only_keywords, "no parameter for its transaction"),
    (only_variable, "no parameter for its transaction"),
    (variable, "arguments travel by name"),
    (many_names, "arguments travel by name"),
    (no_names, "arguments travel by name"),
    (_private, "cannot be the name of a function"),
    (lambda tx: None, "cannot be the name of a function"),
    (functools.partial(plain, x=1), "made from a function"),
    (Transaction, "made from a function"),
    (5, "made from a function"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
@pytest.mark.parametrize("kind", ["query", "transaction"])
def test_a_function_that_cannot_be_called_by_name_is_refused(app, kind, body, message):
    with pytest.raises(DeclarationError, match=message):
        getattr(app, kind)()(body)
    assert app.functions == {}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("query", {"roles": "admin"}, "roles is a list"),
        ("query", {"roles": [1]}, "roles is a list"),
        ("query", {"roles": 5}, "roles is a list"),
        ("query", {"timeout": 0}, "timeout is a positive number"),
        ("query", {"timeout": -1}, "timeout is a positive number"),
        ("query", {"timeout": "5"}, "timeout is a positive number"),
        ("query", {"timeout": True}, "timeout is a positive number"),
        ("query", {"timeout": float("nan")}, "timeout is a positive number"),
        ("query", {"timeout": float("inf")}, "timeout is a positive number"),
        ("query", {"timeout": None}, "timeout is a positive number"),
        ("query", {"key": "missing"}, "not one of its parameters"),
        ("query", {"key": "tx"}, "not one of its parameters"),
        ("query", {"key": ["x"]}, "not one of its parameters"),
        ("transaction", {"placement": "moon"}, "placement is"),
        ("transaction", {"retries": 1}, "no option 'retries'"),
        ("transaction", {"time_out": 1}, "no option 'time_out'"),
        ("action", {"key": "x"}, "no option 'key'"),
        ("action", {"retries": -1}, "retries is a number"),
        ("action", {"retries": 1.5}, "retries is a number"),
        ("action", {"backoff": 0}, "backoff is a positive number"),
        ("action", {"attempt_timeout": 0}, "attempt_timeout is a positive number"),
        ("action", {"attempt_timeout": True}, "attempt_timeout is a positive number"),
        ("action", {"retry_on": ()}, "retry_on is a class of exceptions"),
        ("action", {"retry_on": int}, "retry_on is a class of exceptions"),
        ("action", {"retry_on": [OSError, "OSError"]}, "retry_on is a class of exceptions"),
        ("transaction", {"retry_on": OSError}, "no option 'retry_on'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(app, kind, options, message):
    with pytest.raises(DeclarationError, match=message):
        getattr(app, kind)(**options)(plain)
    assert app.functions == {}


def test_a_name_can_be_declared_once(app):
    app.query(plain)
    with pytest.raises(DeclarationError, match="twice"):
        app.transaction(plain)
    assert app.functions["plain"].kind == "query"


def test_options_are_kept(app):
    declared = app.transaction(roles=["a", "b"], timeout=3, key="x", placement="host")(plain)
    assert declared.options.roles == {"a", "b"}
    assert (declared.options.timeout, declared.options.key, declared.options.placement) == (3, "x", "host")
    assert app.query()(no_clash("q")).options.timeout == DEFAULT_TIMEOUT_SECONDS
    assert app.action(no_clash("a")).options.timeout == DEFAULT_ACTION_TIMEOUT_SECONDS


def no_clash(name):
    def body(tx: Transaction) -> None: ...

    body.__name__ = name
    return body


def test_a_function_is_still_itself(app):
    declared = app.query(plain)
    assert (declared.__name__, declared.__doc__, declared.description) == ("plain", "What it does.", "What it does.")
    assert declared.__module__ == __name__
    assert inspect.signature(declared) == inspect.signature(plain)
    assert repr(declared) == "<query app.plain>"
    assert list(declared.parameters) == ["x"]


def test_the_idempotency_key_is_no_argument(app):
    @app.action
    def pay(cents: int, *, idempotency_key: str) -> None: ...

    assert list(pay.parameters) == ["cents"]
    assert pay.wants_idempotency_key


def test_refusals_may_have_classes_of_their_own():
    class OutOfStock(Rejected):
        code = "out_of_stock"

    class Declined(Rejected):
        def __init__(self, reason: str) -> None:
            super().__init__(f"declined: {reason}", code="declined", reason=reason)

    assert OutOfStock("none left").problem()["code"] == "out_of_stock"
    assert OutOfStock("none left", code="other").problem()["code"] == "other"
    back = from_problem(OutOfStock("none left", item=7).problem())
    assert (type(back), back.message, back.details) == (OutOfStock, "none left", {"item": 7})
    assert from_problem(Declined("no money").problem()).details == {"reason": "no money"}
    assert Rejected("no").problem()["code"] == "rejected"


def test_every_error_survives_the_journey():
    for code, kind in known_errors().items():
        if not kind.__module__.startswith("apiary"):
            continue
        error = kind("message", hint="hint", more={"x": [1]})
        back = from_problem({**error.problem(), "call_id": "id"})
        assert (back.code, back.message, back.hint, back.details, back.call_id) == (
            code,
            "message",
            "hint",
            {"more": {"x": [1]}},
            "id",
        )
        assert isinstance(back, Rejected if kind.code == "rejected" else kind)
        assert 400 <= kind.status < 600


def test_static_types_survive_the_decorators(tmp_path):
    folder = Path(__file__).parent / "typing"
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--warn-unused-ignores",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    files = sorted(map(str, folder.glob("*.py")))
    done = subprocess.run([*command, *files], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_idempotency_key_is_no_argument(app):
    def pay(tx: Transaction, idempotency_key: str) -> None: ...

    for declare in (app.transaction, app.query):
        with pytest.raises(DeclarationError, match="which is how callers give the key"):
            declare(pay)


def test_a_description_is_text():
    with pytest.raises(DeclarationError, match="is text, not 5"):
        App("app", description=5)


def test_a_default_is_of_its_type(app):
    def wrong(tx: Transaction, a: int = "x") -> None: ...

    def right(
        tx: Transaction, a: int | None = None, b: Decimal = 0, c: SecretStr = "s", d: tuple[int, ...] = ()
    ) -> None: ...

    with pytest.raises(DeclarationError, match="wrong has a default that its a cannot have"):
        FunctionCodec(app.transaction(wrong))
    FunctionCodec(app.transaction(right))


def test_an_action_is_told_its_key_as_text(app):
    def number(idempotency_key: int) -> None: ...
    def text(idempotency_key: str | None = None) -> None: ...
    def bare(idempotency_key) -> None: ...

    with pytest.raises(DeclarationError, match="given to it as str"):
        FunctionCodec(app.action(number))
    for body in (text, bare):
        FunctionCodec(app.action(body))
