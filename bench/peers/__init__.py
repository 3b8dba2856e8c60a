"""The peers, by name; one file each."""

from collections.abc import Callable
from pathlib import Path

from bench.peer import Peer
from bench.peers.apiary import Apiary, ApiaryPostgres
from bench.peers.fastapi import FastAPIPostgres

OURS = "apiary"

# Each factory takes the folder that holds the databases and logs of the run.
PEERS: dict[str, Callable[[Path], Peer]] = {
    OURS: Apiary,
    "apiary-unrecorded": lambda folder: Apiary(folder, recorded=False),
    "apiary-postgres": ApiaryPostgres,
    "apiary-beside": lambda folder: ApiaryPostgres(folder, inside=False),
    "apiary-postgres-unrecorded": lambda folder: ApiaryPostgres(folder, recorded=False),
    "fastapi": FastAPIPostgres,
}
