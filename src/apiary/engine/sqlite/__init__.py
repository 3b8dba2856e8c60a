"""The embedded engine: one SQLite file an app, in the process that runs the app (APSW)."""
