"""PostgreSQL: functions run inside its backends, or in the host beside it."""
