"""The gateway: HTTP in, JSON and problem documents out. `calls` is the hot path, `api` everything else."""
