"""What the house tests look at: the files of this checkout and the parsed modules of `src/apiary`."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Module:
    """One Python file, its path relative to the checkout and its syntax tree."""

    path: Path
    lines: int
    tree: ast.Module

    def imports(self, within: ast.AST | None = None) -> Iterator[tuple[int, str]]:
        """Every import in the module, or in one node of it, as (line, absolute name of the imported module).

        Relative names are resolved against the file's place under `src`.
        """
        package = self.path.with_suffix("").parts[1:-1]
        for node in ast.walk(within or self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else ()
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [])])


def parse(path: Path, root: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    return Module(path.relative_to(root), len(source.splitlines()), ast.parse(source, filename=str(path)))


@pytest.fixture(scope="session")
def root(pytestconfig: pytest.Config) -> Path:
    """The checkout."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def modules(root: Path) -> list[Module]:
    """Every module of the package."""
    return [parse(path, root) for path in sorted((root / "src" / "apiary").rglob("*.py"))]


@pytest.fixture(scope="session")
def outer_modules(root: Path) -> list[Module]:
    """Every module of `examples` and `bench`, which use Apiary from outside."""
    return [parse(path, root) for folder in ("examples", "bench") for path in sorted((root / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """Every file that is tracked by git, or would be after `git add --all`."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := root / name).is_file())
