"""What the project set out to reach on two cores with the load generator on the same two, uniform keys."""

REQUESTS_PER_SECOND = {
    "increment": 4_200.0,
    "shop": 3_500.0,
    "checkout": 3_500.0,
    "hotel": 430.0,
    "retwis": 58.0,
    "timelines": 250.0,
}
# (ours, workload, peer): how many times the peer's requests/s
TIMES_A_PEER = {
    ("apiary", "checkout", "fastapi"): 10.0,
    ("apiary", "hotel", "fastapi"): 10.0,
    ("apiary", "retwis", "fastapi"): 5.0,
    ("apiary", "shop", "fastapi"): 4.0,
    ("apiary", "checkout", "functions"): 20.0,
    ("apiary-postgres", "checkout", "fastapi"): 2.5,
    ("apiary-postgres-remote", "checkout", "fastapi-remote"): 10.0,
    ("apiary-postgres", "workflow1", "dbos"): 10.0,
    ("apiary-postgres", "workflow5", "dbos"): 10.0,
    ("apiary-postgres", "workflow1", "restate"): 3.0,
    ("apiary-postgres", "workflow5", "restate"): 3.0,
    ("apiary", "workflow1", "dbos-sqlite"): 30.0,
    ("apiary", "workflow5", "dbos-sqlite"): 30.0,
}
SHARE_OF_FLOOR = 0.5  # of the requests/s of bare APSW behind a bare ASGI answer
RECORDING_COST = 0.15  # of the requests/s without records; capture is off in both
CAPTURE_COST = 0.10  # of the requests/s with capture off
IDLE_MEDIAN_US = 1_500.0
IDLE_MEDIAN_IN_POSTGRES_US = 2_500.0  # of a transaction of one statement, run inside PostgreSQL
START_SECONDS = 2.0
DEPLOY_SECONDS = 1.0
MEMORY_BYTES = 150_000_000
SHARE_OF_SELECT_1 = 1 / 3  # the rate of a function from SQL, against pgbench's for `select 1`
