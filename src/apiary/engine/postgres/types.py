"""Asks the server for the types of a statement's parameters, once for each statement and connection."""

from __future__ import annotations

PREPARE = "prepare apiary_statement as "
DEALLOCATE = "deallocate apiary_statement"
TYPES = (
    "select parameter_types::text[] as names, parameter_types::oid[]::bigint[] as oids "
    "from pg_catalog.pg_prepared_statements where name = 'apiary_statement'"
)
