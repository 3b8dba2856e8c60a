"""Who may import what, beyond the layers that import-linter checks (`[tool.importlinter]` in pyproject.toml)."""

import sys

# Libraries that one part of the package has to itself: what they offer is put in our words there.
HOMES = {
    "apsw": "src/apiary/engine",
    "psycopg": "src/apiary/engine",
    "rich": "src/apiary/cli",
    "typer": "src/apiary/cli",
}


# The one file outside that may reach behind the face; it says why itself.
BEHIND_THE_FACE = "bench/engine_only.py"


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_runtime_needs_the_standard_library_only(modules):
    """A database loads the runtime from its own tables, where nothing else is installed."""
    violations = [
        f"{module.path}:{line}: {name}"
        for module in modules
        if module.path.is_relative_to("src/apiary/runtime")
        for line, name in module.imports()
        if not belongs(name, "apiary.runtime") and name.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not violations, "\n".join(["neither standard library nor runtime:", *violations])


def test_libraries_stay_in_their_homes(modules):
    violations = [
        f"{module.path}:{line}: {library} belongs to {home}"
        for module in modules
        for line, name in module.imports()
        for library, home in HOMES.items()
        if belongs(name, library) and not module.path.is_relative_to(home)
    ]
    assert not violations, "\n".join(violations)


def test_examples_and_benchmarks_use_the_face(outer_modules):
    """They are written as users write: `import apiary`, HTTP and the command line, nothing behind these."""
    violations = [
        f"{module.path}:{line}: {name}"
        for module in outer_modules
        for line, name in module.imports()
        if module.path.as_posix() != BEHIND_THE_FACE
        and belongs(name, "apiary")
        and name not in {"apiary", "apiary.testing"}
    ]
    assert not violations, "\n".join(["not part of the face:", *violations])
