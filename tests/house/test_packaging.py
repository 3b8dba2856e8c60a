"""What is built, and what is pinned, is complete."""

import re
import subprocess
import sys
import zipfile

LOCKS = ("run", "build", "test", "bench")


def test_the_wheel_has_every_file_of_the_package(root, tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    sources = root / "src"
    expected = {
        path.relative_to(sources).as_posix()
        for path in (sources / "apiary").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert "apiary/py.typed" in packed


def test_locked_requirements_have_hashes_and_nothing_else(root):
    """One version and its hashes a package; no index, no other place to look: those are the installer's own choice."""
    requirement = re.compile(r"[a-z0-9][a-z0-9.-]*==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|    #.*")
    violations = []
    paths = [root / "requirements" / f"{name}.txt" for name in LOCKS]
    for path in [*paths, *sorted((root / "requirements" / "peers").glob("*.txt"))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line and not line.startswith("# ") and not requirement.fullmatch(line):
                violations.append(f"{path.name}:{number}: {line}")
    assert not violations, "\n".join(violations)


def test_a_package_has_one_version_in_all_locks(root):
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        for line in (root / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            if pinned := re.match(r"([a-z0-9.-]+)==(\S+)", line):
                versions.setdefault(pinned[1], set()).add(pinned[2])
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}
