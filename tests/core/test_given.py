"""Arguments given in Python arrive as they were given, whatever their serializers would leave out, hide or rewrite."""

import dataclasses
import datetime
import json
from collections import deque
from typing import Annotated, Any

import pydantic
import pydantic.dataclasses
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    field_serializer,
    model_serializer,
)

import apiary
from apiary import RuleBroken, Transaction, WrongArguments

PASSWORD = "correct horse battery"


class Sealed(BaseModel):
    """Its fields are hidden, left out or rewritten by serializers."""

    model_config = ConfigDict(val_json_bytes="base64")
    password: SecretStr
    pin: int = Field(0, exclude=True)
    name: str = "n"
    blob: bytes = b""

    @field_serializer("name")
    def shout(self, name: str) -> str:
        return name.upper()


class Summed(BaseModel):
    left: int
    right: int

    @model_serializer
    def total(self) -> int:
        return self.left + self.right


class Named(BaseModel):
    a: int = Field(1, validation_alias="readA", serialization_alias="writtenA")
    b: int = Field(2, alias="B")
    c: int = Field(3, validation_alias=AliasChoices(AliasPath("x", 0), "cc"))


class Deep(BaseModel):
    x: int = Field(validation_alias=AliasPath("one", 0))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


@pydantic.dataclasses.dataclass
class Checked:
    token: SecretStr
    hidden: int = Field(1, exclude=True, alias="theHidden")


@dataclasses.dataclass
class Data:
    token: SecretStr
    inner: Sealed


Secrets = RootModel[list[SecretStr]]
Day = Secret[datetime.date]
SEALED = Sealed(password=PASSWORD, pin=7, name="quiet", blob=b"\xff\x00")
GIVEN = [
    (SecretStr, SecretStr(PASSWORD)),
    (SecretBytes, SecretBytes(b"\xff\x00")),
    (Day, Day(datetime.date(2026, 1, 2))),
    (SecretStr | None, SecretStr("")),
    (Sealed, SEALED),
    (list[Sealed], [SEALED]),
    (dict[str, SecretStr], {"a": SecretStr("b")}),
    (tuple[SecretStr, int], (SecretStr("b"), 1)),
    (deque[SecretStr], deque([SecretStr("b")])),
    (set[SecretStr], {SecretStr("b")}),
    (Secrets, Secrets([SecretStr("a")])),
    (Summed, Summed(left=1, right=2)),
    (Named, Named(readA=5, B=6, cc=7)),
    (Open, Open(more=SEALED.name, another=[1])),
    (Checked, Checked(SecretStr("t"), theHidden=9)),
    (Data, Data(SecretStr("t"), SEALED)),
    (Annotated[SecretStr, Field(min_length=3)], SecretStr(PASSWORD)),
]


@pytest.mark.parametrize(("kind", "value"), GIVEN, ids=lambda given: getattr(given, "__name__", None))
def test_what_is_given_arrives(make_app, sqlite_app, kind, value):
    app = make_app()
    seen: list[Any] = []

    @app.transaction
    def take(tx: Transaction, value: kind) -> None:
        seen.append(value)

    @app.action
    def act(value: kind) -> None:
        seen.append(value)

    @app.transaction
    def later(tx: Transaction) -> None:
        tx.enqueue(take, value)
        tx.enqueue(act, value=value)

    opened = sqlite_app(app)
    opened.call("take", value)
    opened.call(take, value=value)
    opened.call("act", value)
    opened.call("later")
    opened.drain()
    assert seen == [value] * 5


def test_secrets_are_masked_in_the_log(make_app, sqlite_app):
    app = make_app()

    @app.transaction
    def login(tx: Transaction, name: str, password: SecretStr) -> bool:
        return password.get_secret_value() == PASSWORD

    opened = sqlite_app(app)
    assert opened.call("login", "ada", SecretStr(PASSWORD)) is True
    assert opened.call("login", "ada", PASSWORD, idempotency_key="k") is True
    assert opened.call("login", "ada", SecretStr(PASSWORD), idempotency_key="k") is True
    for row in opened.log.calls():
        shown = opened.log.show(call=row["id"])["input"]
        assert shown["password"] == "**********"
        assert PASSWORD not in json.dumps(shown)


def test_a_secret_for_an_argument_that_the_log_would_show_is_refused(make_app, sqlite_app):
    app = make_app()

    @app.transaction
    def take(tx: Transaction, name: str, password: SecretStr, anything: Any = None) -> None: ...

    @app.transaction
    def later(tx: Transaction) -> None:
        tx.enqueue(take, SecretStr("ada"), "p")

    opened = sqlite_app(app)
    for arguments in ({"name": SecretStr("ada")}, {"name": "ada", "anything": [SEALED]}):
        with pytest.raises(WrongArguments, match="was given a secret"):
            opened.call("take", **{"name": "ada", "password": "p", **arguments})
    with pytest.raises(apiary.InternalError) as caught:
        opened.call("later")
    assert isinstance(caught.value, RuleBroken) or isinstance(caught.value.__cause__, RuleBroken)


def test_what_cannot_be_written_is_refused(make_app, sqlite_app):
    app = make_app()

    @app.transaction
    def take(tx: Transaction, value: Any) -> None: ...

    loop: list[Any] = []
    loop.append(loop)
    opened = sqlite_app(app)
    for value in (object(), loop, Deep(one=[1]), {object(): 1}):
        with pytest.raises(WrongArguments, match=r"^(take|Deep)"):
            opened.call("take", value)


class Texts(BaseModel):
    blob: bytes


class Hexed(BaseModel):
    model_config = ConfigDict(val_json_bytes="hex")
    blob: bytes


def test_bytes_are_written_as_the_type_around_them_reads_them(make_app, sqlite_app):
    app = make_app()

    @app.transaction
    def take(tx: Transaction, texts: Texts, hexed: Hexed, plain: bytes) -> str:
        return repr((texts.blob, hexed.blob, plain))

    opened = sqlite_app(app)
    given = (b"a-b", b"\xff", b"\xff\x00")
    assert opened.call("take", Texts(blob=given[0]), Hexed(blob=given[1]), given[2]) == repr(given)
    with pytest.raises(WrongArguments, match="utf-8"):
        opened.call("take", Texts(blob=b"\xff"), Hexed(blob=b""), b"")
