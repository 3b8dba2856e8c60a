"""The table of errors in docs/errors.md is what the code says: one row an error, written from its class."""

from importlib import import_module

from apiary.runtime.errors import Error, known_errors

DOCUMENT = "docs/errors.md"
HEAD = "| code | status | exception | retry | meaning |"

# Modules that add errors of their own to the tree.
OTHERS = ("apiary.client", "apiary.config")


def row(code: str, kind: type[Error]) -> str:
    meaning = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ").replace("|", "\\|")
    return f"| `{code}` | {kind.status} | `{kind.__name__}` | {'yes' if kind.retryable else 'no'} | {meaning} |"


def test_the_table_of_errors_is_complete(root):
    for module in OTHERS:
        import_module(module)
    found = {code: kind for code, kind in known_errors().items() if kind.__module__.startswith("apiary.")}
    del found[Error.code]  # the base of the tree; nobody gets it from a server
    wanted = [row(code, kind) for code, kind in sorted(found.items(), key=lambda item: (item[1].status, item[0]))]
    lines = (root / DOCUMENT).read_text(encoding="utf-8").splitlines()
    start = lines.index(HEAD) + 2
    length = next((n for n, line in enumerate(lines[start:]) if not line.startswith("|")), len(lines) - start)
    assert lines[start : start + length] == wanted, "\n".join([f"{DOCUMENT} must have these rows:", *wanted])


def test_internal_errors_name_themselves_only_in_the_log(root):
    """What the page says below the table: these two reach a caller as `internal_error`."""
    text = (root / DOCUMENT).read_text(encoding="utf-8")
    hidden = [kind.code for kind in known_errors()["internal_error"].__subclasses__() if "apiary." in kind.__module__]
    assert all(f"`{code}`" in text.split(HEAD)[0] for code in hidden)
