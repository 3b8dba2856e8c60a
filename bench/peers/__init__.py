"""The peers, by name; one file each."""

from collections.abc import Callable
from pathlib import Path

from bench.peer import Peer
from bench.peers.apiary import Apiary, ApiaryPostgres
from bench.peers.bare import Bare
from bench.peers.dbos import DBOS, DBOSOnSQLite
from bench.peers.fastapi import FastAPIPostgres, FastAPISQLAlchemy
from bench.peers.functions import FunctionsFramework
from bench.peers.procrastinate import Procrastinate
from bench.peers.restate import Restate

OURS = "apiary"
REMOTE = "-remote"  # how the names of peers end that have the bench's network before their database
# Each factory takes the folder that holds the databases and logs of the run.
PEERS: dict[str, Callable[[Path], Peer]] = {
    OURS: Apiary,
    "apiary-unrecorded": lambda folder: Apiary(folder, recorded=False),
    "apiary-capture-off": lambda folder: Apiary(folder, capture="off"),
    "apiary-capture-reads": lambda folder: Apiary(folder, capture="reads"),
    "apiary-capture-writes": lambda folder: Apiary(folder, capture="writes"),
    "apiary-postgres": ApiaryPostgres,
    "apiary-beside": lambda folder: ApiaryPostgres(folder, inside=False),
    "apiary-postgres-unrecorded": lambda folder: ApiaryPostgres(folder, recorded=False),
    "apiary-postgres-remote": lambda folder: ApiaryPostgres(folder, remote=True),
    "apiary-beside-remote": lambda folder: ApiaryPostgres(folder, inside=False, remote=True),
    "fastapi": FastAPIPostgres,
    "fastapi-remote": lambda folder: FastAPIPostgres(folder, remote=True),
    "sqlalchemy": FastAPISQLAlchemy,
    "functions": FunctionsFramework,
    "bare": Bare,
    "dbos": DBOS,
    "dbos-sqlite": DBOSOnSQLite,
    "restate": Restate,
    "procrastinate": Procrastinate,
}
