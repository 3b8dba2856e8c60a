"""What a migration has come to whose host died in the middle of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from apiary.platform.process import HostProcess
from apiary.runtime.errors import BundleRefused, Error, Unavailable


class MigrationUnknown(Unavailable):
    """A deploy was cut off, and whether it had migrated is not known; the server finds out when it starts again."""

    hint = "deploy again, or restart the server"


async def after_death(host: HostProcess, load: Callable[[str], Awaitable[HostProcess]] | None) -> HostProcess:
    """Another host for the version of one that died while it migrated, where it had migrated, as its loading shows.

    `BundleRefused` where it had not; `MigrationUnknown` where none loads, or none may (no `load`).
    """
    why = f"the host ended while it migrated: {host.reason}"
    if load is None:
        raise MigrationUnknown(why)
    try:
        other = await load(host.version)
    except Error as error:
        raise MigrationUnknown(f"{why}; and another one does not load: {error.message}") from error
    if other.pending:
        await other.stop()
        raise BundleRefused(why, hint="nothing of this deploy was kept; deploy again")
    other.migrated = host.pending
    return other
