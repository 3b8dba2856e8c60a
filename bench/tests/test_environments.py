"""Environments of peers are made once, from pins; what was fetched is compared with its hash."""

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from bench import environments, provision


def archive_of(path: Path, member: str, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    return path


def test_what_was_not_pinned_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "some.tgz", environments.RESTATE_PROGRAM, b"#!/bin/sh\nexit 7\n")
    right = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    environments.check(archive, right)
    with pytest.raises(provision.Missing, match=r"some\.tgz is not what was pinned"):
        environments.check(archive, "sha512-" + "A" * 86 + "==")


def test_the_program_of_an_archive_runs(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "some.tgz", environments.RESTATE_PROGRAM, b"#!/bin/sh\nexit 7\n")
    environments.unpack(archive, environments.RESTATE_PROGRAM, tmp_path / "program")
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 7


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path / "peers")
    monkeypatch.setattr(environments, "PINS", tmp_path)
    (tmp_path / "nothing.txt").write_text("# no packages\n")
    made = environments.python("nothing")
    asked = "import sys; print(sys.prefix, sys.version)"
    told = subprocess.run([made, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    assert told == f"{Path(made).parent.parent} {sys.version}"
    before = Path(made).lstat().st_mtime_ns
    assert environments.python("nothing") == made
    assert Path(made).lstat().st_mtime_ns == before
    (tmp_path / "nothing.txt").write_text("# still none\n")
    assert environments.python("nothing") != made


def test_a_package_without_its_hash_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PLACE", tmp_path / "peers")
    monkeypatch.setattr(environments, "PINS", tmp_path)
    (tmp_path / "loose.txt").write_text("click==8.5.1\n")
    with pytest.raises(provision.Missing, match="pip failed"):
        environments.python("loose")
    with pytest.raises(provision.Missing, match="pip failed"):  # and what is half made is no environment
        environments.python("loose")


@pytest.mark.parametrize("name", ["dbos", "functions", "procrastinate", "restate"])
def test_versions_are_those_that_are_pinned(name: str) -> None:
    assert len(environments.versions(name)) > 3
