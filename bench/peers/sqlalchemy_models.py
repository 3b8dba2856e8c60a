"""The tables of bench/apps as mapped classes, for `sqlalchemy_app.py`."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables."""


class Counter(Base):
    __tablename__ = "counters"
    key: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Item(Base):
    __tablename__ = "items"
    item_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str]
    cost: Mapped[int]
    inventory: Mapped[int]


class CartLine(Base):
    __tablename__ = "cart"
    user_id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    cost: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    order_id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    cost: Mapped[int]
    status: Mapped[str]


class OrderLine(Base):
    __tablename__ = "order_lines"
    order_id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    cost: Mapped[int]


class Post(Base):
    __tablename__ = "posts"
    post_id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    at: Mapped[float]
    text: Mapped[str]


class Followee(Base):
    __tablename__ = "followees"
    user_id: Mapped[int] = mapped_column(primary_key=True)
    followee_id: Mapped[int] = mapped_column(primary_key=True)


class Hotel(Base):
    __tablename__ = "hotels"
    hotel_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    lat: Mapped[int]
    lon: Mapped[int]
    price: Mapped[int]
    rating: Mapped[int]


class Room(Base):
    __tablename__ = "rooms"
    hotel_id: Mapped[int] = mapped_column(primary_key=True)
    night: Mapped[int] = mapped_column(primary_key=True)
    free: Mapped[int]


class Season(Base):
    __tablename__ = "season"
    year: Mapped[int] = mapped_column(primary_key=True)
    first_night: Mapped[int]
    last_night: Mapped[int]


class Reservation(Base):
    __tablename__ = "reservations"
    reservation_id: Mapped[int] = mapped_column(primary_key=True)
    hotel_id: Mapped[int]
    user_id: Mapped[int]
    first_night: Mapped[int]
    nights: Mapped[int]
