"""Finds the programs that the bench drives, wrk and PostgreSQL; installs Debian's packages when they are missing."""

import os
import shutil
import subprocess
from pathlib import Path

POSTGRES_ROOT = Path("/usr/lib/postgresql")
POSTGRES_OLDEST = 15


class Missing(RuntimeError):
    """A program is missing and could not be installed; the message says what to do."""


def wrk() -> str:
    """The path of wrk."""
    found = shutil.which("wrk")
    if found is None:
        install("wrk")
        found = shutil.which("wrk")
    if found is None:
        raise Missing("wrk is not on PATH although its package is installed. Put it there and run again.")
    return found


def postgres_bin() -> Path:
    """The folder with initdb and postgres of the newest installed PostgreSQL."""
    found = newest_postgres()
    if found is None:
        install(f"postgresql-{POSTGRES_OLDEST}")
        found = newest_postgres()
    if found is None:
        raise Missing(f"no PostgreSQL {POSTGRES_OLDEST} or newer under {POSTGRES_ROOT}. Install one and run again.")
    return found


def newest_postgres() -> Path | None:
    versions = [
        int(folder.name)
        for folder in (POSTGRES_ROOT.iterdir() if POSTGRES_ROOT.is_dir() else ())
        if folder.name.isdigit() and (folder / "bin" / "initdb").exists()
    ]
    usable = [version for version in versions if version >= POSTGRES_OLDEST]
    return POSTGRES_ROOT / str(max(usable)) / "bin" if usable else None


def install(package: str) -> None:
    """apt-get install, as root or through sudo without a password."""
    apt = shutil.which("apt-get")
    hint = f"Install it by hand (on Debian: apt-get install {package}) and run again."
    if apt is None:
        raise Missing(f"{package} is missing and there is no apt-get. {hint}")
    as_root: list[str] = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and subprocess.run([*as_root, "true"], check=False, capture_output=True).returncode != 0:
        raise Missing(f"{package} is missing, and installing it needs root or sudo without a password. {hint}")
    prefix = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", apt]
    command = ["install", "-y", "--no-install-recommends", package]
    done = subprocess.run([*prefix, *command], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        subprocess.run([*prefix, "update"], check=False, capture_output=True)
        done = subprocess.run([*prefix, *command], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Missing(f"apt-get could not install {package}: {done.stderr.strip()[-400:]} {hint}")
