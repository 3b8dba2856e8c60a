"""Virtual environments of peers whose packages shall not meet ours, and Restate's server; made when first asked for.

Each environment holds what `requirements/peers/NAME.txt` pins, with its hashes, and lies in our own one, so that
`make clean` removes it. Restate's server is a package of npm that holds one program; its hash is below. Without npm it
cannot be had here. `python -m bench.environments NAME …` makes environments beforehand.
"""

import base64
import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import provision

ROOT = Path(__file__).parent.parent
PINS = ROOT / "requirements" / "peers"
PLACE = Path(sys.prefix) / "peers"
COMPLETE = "complete"

RESTATE_VERSION = "1.7.12"
RESTATE_INTEGRITY = {  # as `npm view PACKAGE dist.integrity` tells them
    "x64": "sha512-URotJ1AIqaSCDkRMl4OrQfTLH+NYuOZb3ZsP7wxxiuAB6pncgPhTUYSvegTF5PTrAShnNyHNpju9kjf2O3QxoA==",
    "arm64": "sha512-aV7YxWvPhp88MjQtObGDhDCTwCBa68wwZOAMmJqDreO0auHYuSfOqabEx4I90coZsx3zShNusppbTPKprOa+dw==",
}
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}
RESTATE_PROGRAM = "package/bin/restate-server"


def python(name: str) -> str:
    """The Python of a peer's environment."""
    pins = PINS / f"{name}.txt"
    folder = PLACE / f"{name}-{digest(pins.read_bytes())}"
    with made(folder) as fresh:
        if fresh:
            run("venv", [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)])
            options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(pins)]
            run("pip", [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", *options])
    return str(folder / "bin" / "python")


def versions(name: str) -> dict[str, str]:
    """What is pinned for a peer."""
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", (PINS / f"{name}.txt").read_text(), re.MULTILINE)
    return dict(found)


def restate_server() -> str:
    """The path of Restate's server."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None or sys.platform != "linux":
        raise provision.Missing(f"Restate's server is not pinned for {sys.platform} on {platform.machine()}.")
    package, integrity = f"@restatedev/restate-server-linux-{architecture}", RESTATE_INTEGRITY[architecture]
    folder = PLACE / f"restate-server-{RESTATE_VERSION}"
    program = folder / "restate-server"
    with made(folder) as fresh:
        if fresh:
            npm = shutil.which("npm")
            if npm is None:
                raise provision.Missing("Restate's server comes from npm, which is not on PATH: install Node.js.")
            with tempfile.TemporaryDirectory() as place:
                run("npm pack", [npm, "pack", "--silent", f"{package}@{RESTATE_VERSION}"], Path(place))
                (archive,) = Path(place).glob("*.tgz")
                check(archive, integrity)
                unpack(archive, RESTATE_PROGRAM, program)
    return str(program)


@contextmanager
def made(folder: Path) -> Iterator[bool]:
    """True when the folder has to be filled; it is complete when the block ends. One process at a time."""
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = not (folder / COMPLETE).exists()
        if fresh:
            print(f"Installing {folder.name}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield fresh
        (folder / COMPLETE).touch()


def digest(content: bytes) -> str:
    return hashlib.sha256(content + sys.version.encode()).hexdigest()[:12]


def check(archive: Path, integrity: str) -> None:
    """Compare with a hash in npm's notation."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise provision.Missing(f"{archive.name} is not what was pinned: {found} instead of {integrity}")


def unpack(archive: Path, member: str, program: Path) -> None:
    with tarfile.open(archive) as packed, packed.extractfile(member) as source, program.open("wb") as target:  # type: ignore[union-attr]
        shutil.copyfileobj(source, target)
    program.chmod(0o755)


def run(what: str, argv: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise provision.Missing(f"{what} failed: {(done.stderr or done.stdout).strip()[-800:]}")


def main(names: Sequence[str]) -> None:
    """Make what is named."""
    try:
        for name in names:
            print(restate_server() if name == "restate-server" else python(name))
    except provision.Missing as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main(sys.argv[1:])
