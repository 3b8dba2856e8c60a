"""What runs beside PostgreSQL, in the host: the same calls over a connection, where backends have no Python."""
