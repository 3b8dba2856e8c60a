"""Increment: 100,000 counters; read one, then upsert its value plus one (2 statements, 1 row)."""

from bench.mix import Key, Load, Operation, Workload

KEYS = 100_000

WORKLOAD = Workload(
    name="increment",
    app="increment",
    about="read a counter, upsert value + 1; 100,000 keys",
    operations=(Operation("increment", 1.0, draws={"key": Key(KEYS)}, sends={"key": "key"}),),
    load=(Load("load", rows=KEYS, batch=20_000),),
    effects="effects",
)
