"""An app with types that have one name and are not the same."""

from pydantic import BaseModel

from apiary import App, Transaction

app = App("names")


class First:
    """A place for names."""

    class Item(BaseModel):
        size: int = 3


class Second:
    """Another place for names."""

    class Item(BaseModel):
        colour: str

        model_config = {"extra": "forbid"}


class Third:
    """A third place for names."""

    class Item(BaseModel):
        size: int

        model_config = {"extra": "forbid"}


@app.transaction
def take_first(tx: Transaction, item: Third.Item) -> int:
    """Take one of its kind."""
    return item.size


@app.transaction
def take_second(tx: Transaction, item: Second.Item) -> str:
    """Take one of another kind."""
    return item.colour


@app.transaction
def through(tx: Transaction, item: First.Item) -> First.Item:
    """Give back what was given."""
    return item
