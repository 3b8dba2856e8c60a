"""Hotel (DeathStarBench): search 60 %, recommend 39 %, reserve 1 %; 5,000 hotels, 90 nights.

A search reads the season (1 statement), the ten nearest hotels in a box (1 statement, 10 rows), then price and rating
(10 statements) and the free rooms (10 statements) of each: 22 statements, 31 rows. It is asked from where a hotel is. A
reservation reads and decrements each of two nights and inserts itself (5 statements, 5 rows), then a mail is sent.
"""

from bench.mix import Key, Load, Operation, Range, Word, Workload

HOTELS = 5_000
NIGHTS = 90
USERS = 10_000
# Where the data set has the hotel.
LAT, LON = "hotel * 7919 % 10000", "hotel * 3571 % 10000"

SEARCH = Operation(
    "search",
    0.6,
    draws={"hotel": Key(HOTELS), "night": Range(1, NIGHTS - 1)},
    sends={"lat": LAT, "lon": LON, "night": "night"},
    reads_only=True,
)
RECOMMEND = Operation(
    "recommend",
    0.39,
    draws={"hotel": Key(HOTELS), "by": Word(("price", "rating", "distance"))},
    sends={"lat": LAT, "lon": LON, "by": "by"},
    reads_only=True,
)
RESERVE = Operation(
    "reserve",
    0.01,
    draws={"user": Key(USERS), "hotel": Key(HOTELS), "night": Range(1, NIGHTS - 1)},
    sends={"user": "user", "hotel": "hotel", "night": "night"},
)

WORKLOAD = Workload(
    name="hotel",
    app="hotel",
    about="search 60 % (22 statements, 31 rows), recommend 39 %, reserve 1 %; 5,000 hotels, 90 nights",
    operations=(SEARCH, RECOMMEND, RESERVE),
    load=(Load("load_season", rows=1, batch=1), Load("load_hotels", rows=HOTELS, batch=500)),
    violations="violations",
)
