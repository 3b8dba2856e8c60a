"""The rules of style that ruff cannot check. Each failure names the file and the line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_SQL_CHARACTERS = 60

# Names that say nothing about what is inside.
EMPTY_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

# Imports that may stand inside a function: file under src/apiary -> the modules, with the reason beside it.
LATE_IMPORTS: dict[str, set[str]] = {
    "cli/main.py": {"apiary.gateway.server", "apiary.cli.dev"},  # the other commands start in half the time
    "cli/replay.py": {"apiary.replaying"},
}

SQL = re.compile(
    r"\s*(select\b.+\bfrom|insert\s+(or\s+\w+\s+)?into|update\s+[\w.\"]+\s+set|delete\s+from"
    r"|create\s+(temp\w*\s+)?(unique\s+)?(table|index|view|trigger)|pragma\s+\w+)\b",
    re.IGNORECASE | re.DOTALL,
)

# Put together from halves, so that this file passes its own test.
FORBIDDEN_WORDS = re.compile(
    "|".join(
        [
            re.escape("pypi" + ".org"),
            re.escape("python" + "hosted.org"),
            re.escape("registry." + "npmjs"),
            re.escape("npmjs" + ".org"),
            re.escape("crates" + ".io"),
            r"(?<![\w.*~}-])/" + "work/",
            r"(?<![\w.*~}-])/" + "root/",
        ]
    ).encode()
)

# Apps of the platform's own keep their statements where users keep theirs: in their functions.
APPS = {Path("src/apiary/platform/registry.py")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def docstrings(tree: ast.Module) -> set[int]:
    """The identities of the string nodes that are docstrings."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    first = (owner.body[0] for owner in (tree, *classes, *functions(tree)) if owner.body)
    return {id(statement.value) for statement in first if isinstance(statement, ast.Expr)}


def test_files_are_short(root, modules):
    lengths = {module.path: module.lines for module in modules}
    for path in sorted((root / "src" / "apiary").rglob("*.sql")):
        lengths[path.relative_to(root)] = len(path.read_text(encoding="utf-8").splitlines())
    violations = [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MAX_FILE_LINES]
    assert not violations, "\n".join([f"longer than {MAX_FILE_LINES} lines:", *violations])


def test_functions_are_short(modules):
    violations = [
        f"{module.path}:{function.lineno}: {function.name} has {lines} lines"
        for module in modules
        for function in functions(module.tree)
        if (lines := function.end_lineno - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not violations, "\n".join([f"longer than {MAX_FUNCTION_LINES} lines:", *violations])


def test_module_names_say_something(modules):
    violations = [
        str(module.path)
        for module in modules
        if any(EMPTY_NAMES & set(part.split("_")) for part in module.path.with_suffix("").parts)
    ]
    assert not violations, "\n".join(["name these after what they do:", *violations])


def test_modules_have_docstrings(modules):
    violations = [str(module.path) for module in modules if not ast.get_docstring(module.tree)]
    assert not violations, "\n".join(["no docstring that says the module's role:", *violations])


def test_imports_stand_at_the_top(modules):
    violations = [
        f"{module.path}:{line}: {name} inside {function.name}"
        for module in modules
        for function in functions(module.tree)
        for line, name in module.imports(function)
        if name not in LATE_IMPORTS.get(module.path.relative_to("src/apiary").as_posix(), set())
    ]
    assert not violations, "\n".join(["imported inside a function:", *violations])


def test_only_the_command_line_prints(modules):
    violations = [
        f"{module.path}:{node.lineno}"
        for module in modules
        if not module.path.is_relative_to("src/apiary/cli")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not violations, "\n".join(["print outside apiary.cli:", *violations])


def test_sql_stands_in_sql_files(modules):
    violations = []
    for module in modules:
        if module.path in APPS:
            continue
        prose = docstrings(module.tree)
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in prose:
                continue
            if len(node.value) > MAX_SQL_CHARACTERS and SQL.match(node.value):
                violations.append(f"{module.path}:{node.lineno}")
    assert not violations, "\n".join(["statements that belong in a .sql file:", *violations])


def test_no_forbidden_words(root, files):
    """No host of a package registry, so that everyone's own pip configuration holds, and no path of one machine."""
    violations = [
        f"{path.relative_to(root)}:{number}: {found.group().decode()}"
        for path in files
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if (found := FORBIDDEN_WORDS.search(line))
    ]
    assert not violations, "\n".join(["words that may not stand in this repository:", *violations])
