"""The requirements of an app: locked once, when it is deployed, and installed into a folder for each lock (pip)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from apiary.bundle import REQUIREMENTS
from apiary.runtime.errors import BundleRefused

SHARED = ("pydantic", "pydantic-core", "typing-extensions", "annotated-types", "typing-inspection", "apsw", "msgspec")
"""Packages that a host has loaded already when it loads an app: an app gets the platform's version of them."""

CONFLICT = "conflicting dependencies"
CONFLICT_HINT = f"an app gets the platform's own {', '.join(f'{name} {version(name)}' for name in SHARED)}"
MISSING_HINT = "requirements are installed from wheels; is each of them on the index, or in wheels/ beside it?"


async def lock(code: Path) -> str:
    """The exact packages that an app's `requirements.txt` means today, one `name==version --hash=…` a line.

    `code` is the folder of the unpacked bundle. Empty where the app requires nothing.
    """
    wanted = code / REQUIREMENTS
    if not wanted.is_file():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder, "shared.txt")
        shared.write_text("".join(f"{name}=={version(name)}\n" for name in SHARED), encoding="utf-8")
        report = Path(folder, "report.json")
        await _pip(
            "install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report),
            "--constraint", str(shared), "--requirement", str(wanted), *_from(code / "wheels"),
        )  # fmt: skip
        resolved = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = []
    for item in resolved:
        hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise BundleRefused(f"{item['metadata']['name']} comes without a hash", hint="require wheels of an index")
        lines.append(f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{hashes['sha256']}")
    return "\n".join(sorted(lines))


async def install(locked: str, wheels: Path, folder: Path) -> Path | None:
    """The folder that holds the locked packages; installs them where that was not done yet."""
    if not locked:
        return None
    target = folder / hashlib.sha256(locked.encode()).hexdigest()[:16]
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        wanted = Path(fresh, "requirements.txt")
        wanted.write_text(locked + "\n", encoding="utf-8")
        made = Path(fresh, "packages")
        await _pip(
            "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(made),
            "--requirement", str(wanted), *_from(wheels),
        )  # fmt: skip
        if not target.exists():
            made.rename(target)
    return target


def _from(wheels: Path) -> list[str]:
    return ["--find-links", str(wheels)] if wheels.is_dir() else []


async def _pip(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input",
        *arguments, "--only-binary", ":all:",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        text = output.decode(errors="replace").strip()
        raise BundleRefused(
            f"the app's requirements cannot be installed: {_reason(text)}",
            hint=CONFLICT_HINT if CONFLICT in text else MISSING_HINT,
            output=text,
        )


def _reason(text: str) -> str:
    """What pip says, in one line. Of a conflict the last line is a link to its manual, and the one before tells it."""
    lines = text.splitlines() or ["pip failed"]
    return next((line for line in lines if CONFLICT in line), lines[-1]).removeprefix("ERROR: ")
