"""The program of `peers/dbos.py`: bench/apps/flow as workflows of DBOS Transact. Runs in DBOS's environment.

Written as its documentation says: a datasource, whose transactions commit together with their records, and a queue with
its defaults. The calls of a closed loop come from threads of this program.
"""

import logging
import os
from typing import Any

from dbos import DBOS, DBOSConfig, SQLAlchemyDatasource
from sqlalchemy import text

from bench.data_set import statements
from bench.library import serve
from bench.workloads.flow import STEPS, nth

QUEUE = "bench"

sql = statements("flow")
COST, SPEND, ADD_ENTRY = text(sql.COST), text(sql.SPEND), text(sql.ADD_ENTRY)

config: DBOSConfig = {
    "name": "bench",
    "system_database_url": os.environ["BENCH_SYSTEM_DATABASE"],
    "log_level": "WARNING",
}
DBOS(config=config)
data = SQLAlchemyDatasource.create(os.environ["BENCH_DATABASE"])


@data.transaction()
def step(item: int, account: int, number: int, steps: int) -> int:
    session = data.sql_session()
    cost: int = session.execute(COST, {"item": item}).scalar_one()
    session.execute(SPEND, {"account": account, "cost": cost})
    entry = {"account": account, "item": item, "cost": cost, "number": number, "steps": steps}
    session.execute(ADD_ENTRY, entry)
    return cost


@DBOS.workflow()
def one(item: int, account: int) -> int:
    return step(item, account, 1, 1)


@DBOS.workflow()
def five(item: int, account: int) -> int:
    return sum(step(nth(item, number), nth(account, number), number, STEPS) for number in range(1, STEPS + 1))


WORKFLOWS = {"one": one, "five": five}
QUESTIONS = {"effects": sql.EFFECTS, "violations": sql.VIOLATIONS}


def call(function: str, arguments: dict[str, Any]) -> Any:
    if function in QUESTIONS:
        with data.engine.connect() as connection:
            return int(connection.execute(text(QUESTIONS[function])).scalar_one())
    return WORKFLOWS[function](**arguments)


def enqueue(function: str, arguments: dict[str, Any]) -> Any:
    if function in QUESTIONS:
        return call(function, arguments)
    return DBOS.enqueue_workflow(QUEUE, WORKFLOWS[function], **arguments).get_result()


if __name__ == "__main__":
    logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    serve(call, enqueue)
    DBOS.destroy()
