"""The PostgreSQL of a peer, on the same machine over the Unix socket, or across the bench's network over TCP."""

from pathlib import Path

from bench.network import DELAY_US, Network
from bench.postgres import POSTGRES_SETTINGS, SUPERUSER, Postgres


class DatabaseServer:
    """A cluster of the peer's own, with the settings that all peers get, and the way there."""

    def __init__(self, folder: Path, name: str, remote: bool) -> None:
        folder.chmod(folder.stat().st_mode | 0o011)  # the database's user walks through to its own folder
        self.folder = folder
        self.log = folder / f"{name}-postgres.log"
        self.postgres = Postgres(folder, self.log, POSTGRES_SETTINGS)
        self.remote = remote
        self.network: Network | None = None

    def start(self) -> None:
        self.postgres.start()
        if self.remote:
            self.network = Network(self.folder, self.postgres.port, self.log)

    def url(self, database: str, user: str = SUPERUSER) -> str:
        """Where the peer finds a database. Across the network, every role has the superuser's password."""
        if self.network is None:
            return self.postgres.url(database, user)
        return self.postgres.url(database, user, port=self.network.port)

    def network_pids(self) -> list[int]:
        return [] if self.network is None else self.network.pids

    def settings(self) -> dict[str, str]:
        way = f"TCP, {DELAY_US} µs later each way" if self.remote else "Unix socket"
        found = {f"postgres.{name}": value for name, value in self.postgres.settings().items()}
        return {"reached by": way, **found}

    def remove(self) -> None:
        if self.network is not None:
            self.network.close()
        self.postgres.remove()
