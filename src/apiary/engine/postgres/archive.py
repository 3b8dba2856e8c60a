"""Archives for the backends: folders of Python code as tar files, the same bytes for the same files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

LIBRARIES = ("pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection")
"""What the codec needs, and nothing else of the platform's requirements."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file and the SHA-256 of it."""

    content: bytes

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@cache
def platform_archive() -> Archive:
    """The platform's own code and the libraries of its codec, from where this process has them."""
    package = Path(__file__).parents[2]
    files = {file.relative_to(package.parent).as_posix(): file for file in _code(package)}
    for name in LIBRARIES:
        for entry in distribution(name).files or ():
            if ".." not in entry.parts and "__pycache__" not in entry.parts:
                files[entry.as_posix()] = Path(str(entry.locate()))
    return _pack(files)


def folder_archive(folder: Path) -> Archive:
    """All files of a folder."""
    return _pack({file.relative_to(folder).as_posix(): file for file in _code(folder)})


def _code(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _pack(files: dict[str, Path]) -> Archive:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            content = file.read_bytes()
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return Archive(buffer.getvalue())
