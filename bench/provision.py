"""Finds the programs that the bench and the tests drive; installs Debian's packages of those that are missing.

`python -m bench.provision wrk postgresql` does so for the named ones, and fails with what to install where it cannot.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POSTGRES_ROOT = Path("/usr/lib/postgresql")
POSTGRES_OLDEST = 15
PLPYTHON = "postgresql-plpython3-"
# Heeded by Debian's packages beside the administrator's settings. It is there only while we install.
CREATECLUSTER = Path("/etc/postgresql-common/createcluster.d/apiary-installs.conf")
CHROMIUM_PACKAGES = ("chromium", "chromium-driver")
APT_LOCK_SECONDS = 120


class Missing(RuntimeError):
    """A program is missing and could not be installed; the message says what to do."""


def wrk() -> str:
    """The path of wrk."""
    return on_path(["wrk"], ["wrk"])


def postgres_bin() -> Path:
    """The folder with initdb and postgres of the newest installed PostgreSQL that has PL/Python."""
    found = newest_postgres()
    if found is None:
        install_postgres()
        found = newest_postgres()
    if found is None:
        raise Missing(
            f"no PostgreSQL {POSTGRES_OLDEST} or newer with plpython3u is installed. {by_hand(PLPYTHON + 'N')}"
        )
    return found


def chromium() -> str:
    """The path of Chromium."""
    return on_path(["chromium", "google-chrome"], CHROMIUM_PACKAGES)


def chromedriver() -> str:
    """The path of Chromium's driver."""
    return on_path(["chromedriver"], CHROMIUM_PACKAGES)


def compiler() -> str:
    """The path of a compiler of C."""
    return on_path(["cc", "gcc"], ["gcc", "libc6-dev"])


def on_path(names: Sequence[str], packages: Sequence[str]) -> str:
    """The path of the first of these programs that there is, which these packages bring."""

    def find() -> str | None:
        return next((path for name in names if (path := shutil.which(name))), None)

    found = find()
    if found is None:
        install(*packages)
        found = find()
    if found is None:
        raise Missing(
            f"{names[0]} is not on PATH although {' '.join(packages)} is installed. Put it there and run again."
        )
    return found


def newest_postgres() -> Path | None:
    usable = [(version, folder) for version, folder in postgres_servers() if has_plpython(folder)]
    return max(usable)[1] if usable else None


def postgres_servers() -> list[tuple[int, Path]]:
    """The PostgreSQL servers that are new enough: their major version and the folder of their programs."""
    on_path = shutil.which("initdb")
    folders = {*POSTGRES_ROOT.glob("*/bin"), *([Path(on_path).resolve().parent] if on_path else [])}
    servers = [(major_version(folder), folder) for folder in folders if (folder / "initdb").exists()]
    return [server for server in servers if server[0] >= POSTGRES_OLDEST]


def major_version(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else 0


def has_plpython(folder: Path) -> bool:
    said = subprocess.run([folder / "pg_config", "--sharedir"], check=False, capture_output=True, text=True).stdout
    return (Path(said.strip()) / "extension" / "plpython3u.control").exists()


def install_postgres() -> None:
    """The packages of PL/Python for the installed server, or of the newest server with it; no cluster is made."""
    installed = [f"{PLPYTHON}{version}" for version, _ in postgres_servers()]
    offered = offered_postgres()
    if not offered:
        run_as_root("apt-get", "update")
        offered = offered_postgres()
    wanted = max([package for package in offered if package in installed] or offered, key=number, default="")
    if number(wanted) < POSTGRES_OLDEST:
        raise Missing(f"there is no package of PostgreSQL {POSTGRES_OLDEST} or newer. {by_hand(PLPYTHON + 'N')}")
    with no_cluster_made():
        install(wanted)


def offered_postgres() -> list[str]:
    if shutil.which("apt-cache") is None:
        return []
    argv = ["apt-cache", "pkgnames", PLPYTHON]
    names = subprocess.run(argv, check=False, capture_output=True, text=True).stdout.split()
    return [name for name in names if number(name)]


def number(package: str) -> int:
    """The version that a package's name ends with; 0 where it has none."""
    version = package.removeprefix(PLPYTHON)
    return int(version) if version.isdigit() else 0


@contextmanager
def no_cluster_made() -> Iterator[None]:
    """Keep Debian's package from making a cluster, and so from starting a server, while it is installed."""
    run_as_root("mkdir", "-p", str(CREATECLUSTER.parent))
    run_as_root("tee", str(CREATECLUSTER), text="create_main_cluster = false\n")
    try:
        yield
    finally:
        run_as_root("rm", "-f", str(CREATECLUSTER))


def install(*packages: str) -> None:
    """apt-get install, as root or through sudo without a password."""
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Missing(f"{names} is missing and there is no apt-get. {by_hand(names)}")
    if run_as_root("true").returncode != 0:
        raise Missing(f"{names} is missing, and installing it needs root or sudo without a password. {by_hand(names)}")
    print(f"Installing {names}", flush=True)
    wait = f"DPkg::Lock::Timeout={APT_LOCK_SECONDS}"
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", wait, *packages]
    done = run_as_root(*command)
    if done.returncode != 0:
        run_as_root("apt-get", "update")
        done = run_as_root(*command)
    if done.returncode != 0:
        raise Missing(f"apt-get could not install {names}: {done.stderr.strip()[-400:]} {by_hand(names)}")


def by_hand(packages: str) -> str:
    return f"Install it by hand (on Debian, as root: apt-get install {packages}) and run again."


def run_as_root(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    argv = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *command]
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True, input=text)
    except OSError:
        return subprocess.CompletedProcess(argv, 127, "", "there is no sudo")


FINDERS: dict[str, Callable[[], str | Path]] = {
    "wrk": wrk,
    "postgresql": postgres_bin,
    "chromium": chromium,
    "chromedriver": chromedriver,
}


def main(names: Sequence[str]) -> None:
    """Find or install the named programs; end with a message where one is missing."""
    try:
        for name in names:
            FINDERS[name]()
    except Missing as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main(sys.argv[1:])
