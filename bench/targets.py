"""What the project set out to reach on two cores with the load generator on the same two, uniform keys."""

REQUESTS_PER_SECOND = {"increment": 4_200.0, "shop": 3_500.0, "checkout": 3_500.0, "timelines": 250.0}
TIMES_A_PEER = {("checkout", "fastapi"): 8.0}
RECORDING_COST = 0.15  # of the requests/s without records
IDLE_MEDIAN_US = 1_500.0
IDLE_MEDIAN_IN_POSTGRES_US = 2_500.0  # of a transaction of one statement, run inside PostgreSQL
START_SECONDS = 2.0
DEPLOY_SECONDS = 1.0
MEMORY_BYTES = 150_000_000
SHARE_OF_SELECT_1 = 1 / 3  # the rate of a function from SQL, against pgbench's for `select 1`
