"""What a statement gave: `Result`, and rows that read by attribute, by name and by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from apiary.runtime.errors import InternalError, NoSuchRow

T = TypeVar("T")

Convert = Callable[[type[Any], Sequence[str], list[tuple[Any, ...]]], list[Any]]
"""Makes values of a type out of raw rows, given the names of their columns."""


class Row:
    """One row. `row.cost`, `row["cost"]` and `row[2]` are the same; `dict(row)` works too."""

    __slots__ = ("_values",)
    _names: tuple[str, ...] = ()

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values = values

    def keys(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._names

    def __getitem__(self, column: int | str) -> Any:
        if isinstance(column, str):
            try:
                return self._values[self._names.index(column)]
            except ValueError:
                raise KeyError(column) from None
        return self._values[column]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the row has no column {name!r}; it has {', '.join(self._names)}")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self._names == other._names and self._values == other._values
        return isinstance(other, tuple) and self._values == other

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}={value!r}" for name, value in zip(self._names, self._values, strict=True))
        return f"Row({columns})"


class Shape:
    """The columns of a result; makes, once, the class of its rows."""

    __slots__ = ("_row", "names")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._row: type[Row] | None = None

    @property
    def row(self) -> type[Row]:
        """A subclass of `Row` with one property for each column whose name is free for one."""
        if self._row is None:
            members: dict[str, Any] = {"__slots__": (), "_names": self.names}
            for position, name in enumerate(self.names):
                if name.isidentifier() and not hasattr(Row, name) and name not in members:
                    members[name] = property(_reader(position))
            self._row = type("Row", (Row,), members)
        return self._row


def _reader(position: int) -> Callable[[Row], Any]:
    return lambda row: row._values[position]


NO_COLUMNS = Shape(())


class Result:
    """The rows of one statement, read once and held in memory.

    `rowcount` is the number of rows found or, for a statement that returns none, changed.
    """

    __slots__ = ("_convert", "_rows", "_shape", "rowcount")

    def __init__(self, shape: Shape, rows: list[tuple[Any, ...]], rowcount: int, convert: Convert) -> None:
        self._shape = shape
        self._rows = rows
        self.rowcount = rowcount
        self._convert = convert

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the statement."""
        return self._shape.names

    def __iter__(self) -> Iterator[Any]:
        return map(self._shape.row, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def all(self) -> list[Any]: ...
    @overload
    def all(self, kind: type[T]) -> list[T]: ...
    def all(self, kind: type[Any] | None = None) -> list[Any]:
        """All rows: as rows, or each as a value of `kind` (a dataclass, a pydantic model, a TypedDict, …).

        With a type that is no record, such as `int`, the statement must have one column.
        """
        if kind is None:
            return list(map(self._shape.row, self._rows))
        return self._convert(kind, self._shape.names, self._rows)

    @overload
    def first(self) -> Any: ...
    @overload
    def first(self, kind: type[T]) -> T | None: ...
    def first(self, kind: type[Any] | None = None) -> Any:
        """The first row, or `None` where there is none."""
        if not self._rows:
            return None
        if kind is None:
            return self._shape.row(self._rows[0])
        return self._convert(kind, self._shape.names, self._rows[:1])[0]

    @overload
    def one(self) -> Any: ...
    @overload
    def one(self, kind: type[T]) -> T: ...
    def one(self, kind: type[Any] | None = None) -> Any:
        """The only row. No row is `NoSuchRow` (the caller gets 404); more than one is an internal error."""
        if not self._rows:
            raise NoSuchRow("what was asked for is not there")
        if len(self._rows) > 1:
            raise InternalError(f"the statement found {len(self._rows)} rows where one() wants a single one")
        return self.first(kind) if kind is not None else self.first()

    def scalar(self) -> Any:
        """The first column of the first row, or `None` where there is no row."""
        return self._rows[0][0] if self._rows else None

    def scalars(self) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in self._rows]

    def __repr__(self) -> str:
        return f"<Result: {len(self._rows)} rows of {', '.join(self.columns) or 'no columns'}>"
