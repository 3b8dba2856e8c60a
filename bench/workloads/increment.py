"""Increment: 100,000 counters; read one, then upsert its value plus one (2 statements, 1 row)."""

from dataclasses import replace

from bench.mix import Key, Load, Operation, Workload

KEYS = 100_000

INCREMENT = Operation("increment", 1.0, draws={"key": Key(KEYS)}, sends={"key": "key"})

WORKLOAD = Workload(
    name="increment",
    app="increment",
    about="read a counter, upsert value + 1; 100,000 keys",
    operations=(INCREMENT,),
    load=(Load("load", rows=KEYS, batch=20_000),),
    effects="effects",
)
# The same in one statement, of which the latency of an idle server is told too.
ADD = replace(WORKLOAD, name="add", about="add one to a counter", operations=(replace(INCREMENT, function="add"),))
