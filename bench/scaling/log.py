"""The log: the increment when 0 to 10,000,000 calls are recorded already.

So many real calls take an hour. So they are generated, while the server is down: copies of one real record under ids of
their own, in the order of time. This module therefore knows two names of tables that users do not, and nothing else.
"""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from bench import front_door
from bench.peers.apiary import Apiary, ApiaryPostgres
from bench.scaling.curve import Curve, Say, Scale, standing, values
from bench.workloads import increment

SIZES = (0, 100_000, 1_000_000, 10_000_000)
COMPARED = ("apiary", "apiary-postgres")
ASKED = "`apiary log calls`, s"
FIRST_MS = 1_600_000_000_000  # 2020: before every real call
BATCH = 500_000
OWN = ("seq", "id")
IN_FILE = """
    insert into apiary_calls (id, {columns})
    with recursive numbers (n) as (select :first union all select n + 1 from numbers where n < :last)
    select made_id(n), {columns} from numbers cross join
        (select * from apiary_calls where function = 'increment' and key is null limit 1)
"""
COLUMNS = """
    select string_agg(column_name, ', ') from information_schema.columns
    where table_schema = 'apiary_increment' and table_name = 'calls' and column_name not in ('seq', 'id')
"""
MADE_ID = """(
    lpad(to_hex({first_ms} + n / 10), 12, '0') || '70' || lpad(to_hex(n % 10), 2, '0') || '80' || repeat('0', 14)
)::uuid"""
IN_POSTGRES = """
    insert into apiary_increment.calls (id, {columns})
    select {made}, {columns} from generate_series({first}::bigint, {last}) as n cross join
        (select * from apiary_increment.calls where function = 'increment' and key is null limit 1) as one
"""


def measure(folder: Path, scale: Scale, say: Say) -> Curve:
    """Throughput, latency and time to list calls, by recorded calls."""
    curve = Curve("log", "the increment, by calls that the log holds", "calls")
    for name in scale.among(COMPARED):
        with standing(name, increment.WORKLOAD, folder) as peer:
            assert isinstance(peer, Apiary)
            generated = 0
            for size in scale.of(SIZES):
                if size:
                    peer.halt()
                    generate(peer, generated + 1, size)
                    peer.launch()
                    front_door.wait(peer, increment.WORKLOAD)
                generated = size
                curve.add(name, size, {**values(peer, increment.WORKLOAD, scale), ASKED: [seconds_to_list(peer)]})
                say(f"{curve.name}: {name}, {size:,}")
    return curve


def generate(peer: Apiary, first: int, last: int) -> None:
    """Add the records first..last."""
    for start in range(first, last + 1, BATCH):
        end = min(start + BATCH - 1, last)
        if isinstance(peer, ApiaryPostgres):
            peer.postgres.psql("bench", postgres_script(peer, start, end))
        else:
            add_to_file(peer.folder / "data" / "increment.db", start, end)


def add_to_file(path: Path, first: int, last: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        names = [row[1] for row in database.execute("pragma table_info(apiary_calls)") if row[1] not in OWN]
        database.create_function("made_id", 1, made_id, deterministic=True)
        database.execute(IN_FILE.format(columns=", ".join(names)), {"first": first, "last": last})


def made_id(number: int) -> bytes:
    """An id of version 7: ten calls in a millisecond."""
    moment, rest = divmod(number, 10)
    return (FIRST_MS + moment).to_bytes(6, "big") + bytes((0x70, rest)) + b"\x80" + bytes(7)


def postgres_script(peer: ApiaryPostgres, first: int, last: int) -> str:
    columns = peer.postgres.psql("bench", COLUMNS)
    made = MADE_ID.format(first_ms=FIRST_MS)
    return IN_POSTGRES.format(columns=columns, made=made, first=first, last=last)


def seconds_to_list(peer: Apiary) -> float:
    """How long the command takes that lists the latest calls."""
    url = ["--url", f"http://127.0.0.1:{peer.port}", "--key", peer.key]
    before = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "apiary", "log", "calls", "increment", *url],
        check=True,
        capture_output=True,
        cwd=peer.folder,
    )
    return time.perf_counter() - before
