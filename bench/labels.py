"""How peers are named and coloured in what people read. Ours stand out; each product keeps its colour in every plot."""

LABELS = {
    "apiary": "Apiary, SQLite",
    "apiary-postgres": "Apiary, PostgreSQL",
    "apiary-beside": "Apiary, beside PostgreSQL",
    "apiary-unrecorded": "Apiary, SQLite, no records",
    "apiary-capture-off": "Apiary, SQLite, capture off",
    "apiary-capture-reads": "Apiary, SQLite, capture of reads",
    "apiary-capture-writes": "Apiary, SQLite, capture of writes",
    "apiary-postgres-unrecorded": "Apiary, PostgreSQL, no records",
    "apiary-postgres-remote": "Apiary, PostgreSQL, 0.25 ms away",
    "apiary-beside-remote": "Apiary, beside PostgreSQL, 0.25 ms away",
    "fastapi": "FastAPI + asyncpg",
    "fastapi-remote": "FastAPI + asyncpg, 0.25 ms away",
    "sqlalchemy": "FastAPI + SQLAlchemy",
    "functions": "functions-framework",
    "dbos": "DBOS, PostgreSQL",
    "dbos-sqlite": "DBOS, SQLite",
    "restate": "Restate + PostgreSQL",
    "procrastinate": "Procrastinate",
    "bare": "floor: bare ASGI and APSW",
}
COLOURS = {
    "apiary": "#b45309",
    "apiary-postgres": "#f59e0b",
    "apiary-beside": "#fcd34d",
    "apiary-unrecorded": "#7c2d12",
    "apiary-capture-off": "#9a3412",
    "apiary-capture-reads": "#c2410c",
    "apiary-capture-writes": "#ea580c",
    "apiary-postgres-unrecorded": "#92400e",
    "apiary-postgres-remote": "#f59e0b",
    "apiary-beside-remote": "#fcd34d",
    "fastapi": "#1d4ed8",
    "fastapi-remote": "#1d4ed8",
    "sqlalchemy": "#60a5fa",
    "functions": "#94a3b8",
    "dbos": "#166534",
    "dbos-sqlite": "#4ade80",
    "restate": "#7e22ce",
    "procrastinate": "#64748b",
    "bare": "#cbd5e1",
}
OTHER_COLOUR = "#334155"


def label(peer: str) -> str:
    return LABELS.get(peer, peer)


def colour(peer: str) -> str:
    return COLOURS.get(peer, OTHER_COLOUR)
