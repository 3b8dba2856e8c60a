"""Makes docs/benchmarks.md with its plots, and the README's table, from results: `python -m bench.report`.

Nothing is typed by hand: the JSON is copied beside the page, and the same JSON gives the same bytes. A test makes the
page again and compares.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import figures, page
from bench.mix import UNIFORM
from bench.summary import Measured, ratio_of
from bench.workloads import DATA_NAMES, FLOW_NAMES

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PLACE = "benchmarks"
MARKED = re.compile(r"(<!-- bench: begin[^>]*-->\n).*?(<!-- bench: end -->)", re.DOTALL)
DIGITS = 6


def main(
    result: Annotated[Path, typer.Option(help="what `python -m bench` wrote")] = RESULTS / "latest.json",
    scaling: Annotated[Path, typer.Option(help="what `python -m bench.scaling` wrote, if it is there")] = RESULTS
    / "scaling.json",
    docs: Annotated[Path, typer.Option(help="the folder of the page")] = ROOT / "docs",
    readme: Annotated[Path, typer.Option(help="the file with the table")] = ROOT / "README.md",
) -> None:
    """Write the page, its plots, copies of the results, and the README's table."""
    measured = rounded(json.loads(result.read_text()))
    curves = rounded(json.loads(scaling.read_text())) if scaling.exists() else None
    place = docs / PLACE
    place.mkdir(exist_ok=True)
    for path in [*place.glob("*.svg"), *place.glob("*.json")]:
        path.unlink()
    for name, text in files(measured, curves).items():
        (docs / name).write_text(text)
    readme.write_text(with_table(readme.read_text(), measured))
    typer.echo(f"{docs / 'benchmarks.md'} and {readme.name} are written.")


def files(result: Measured, curves: Measured | None) -> dict[str, str]:
    """Every file of the report by its path below docs/."""
    plots = {name: text for name, text in drawn(result, curves).items() if text}
    made = {"result": result, "scaling": curves}
    return {
        "benchmarks.md": page.page(result, curves, list(plots)),
        **{f"{PLACE}/{name}.svg": text for name, text in plots.items()},
        **{f"{PLACE}/{name}.json": written(one) for name, one in made.items() if one is not None},
    }


def drawn(result: Measured, curves: Measured | None) -> dict[str, str]:
    """The plots by name; those without data are empty."""
    workloads = {name: one for name, one in result["workloads"].items() if one["closed"]}
    calls = {name: one for name, one in workloads.items() if name in DATA_NAMES}
    flows = {name: one for name, one in workloads.items() if name in FLOW_NAMES}
    peers = (*page.SERVICES, *page.ENGINES)
    compared = {
        name: one
        for name, one in workloads.items()
        if any(ratio_of(one, peer, UNIFORM, ours) is not None for peer in peers for ours in page.OURS)
    }
    return {
        "throughput-calls": figures.throughput(calls) if calls else "",
        "throughput-workflows": figures.throughput(flows) if flows else "",
        "ratios": figures.ratios(compared, page.OURS, peers) if compared else "",
        **{f"latency-{name}": figures.latency(one) for name, one in workloads.items() if one["open"]},
        **{f"curve-{one['name']}": figures.curve(one) for one in (curves or {"curves": []})["curves"]},
    }


def with_table(readme: str, result: Measured | None) -> str:
    """The text with its table made again; without a result it says that there is none."""
    lines = page.NOT_MEASURED if result is None else "\n\n".join([*page.readme_table(result), page.MORE])
    if not MARKED.search(readme):
        raise typer.BadParameter("the README has no markers `<!-- bench: begin … -->` and `<!-- bench: end -->`")
    return MARKED.sub(lambda found: f"{found[1]}\n{lines}\n\n{found[2]}", readme)


def written(what: Any) -> str:
    return json.dumps(what, ensure_ascii=False, separators=(",", ":"), sort_keys=False) + "\n"


def rounded(what: Any) -> Any:
    """With so many digits as say something."""
    match what:
        case float():
            return float(f"{what:.{DIGITS}g}")
        case dict():
            return {name: rounded(value) for name, value in what.items()}
        case list():
            return [rounded(value) for value in what]
        case _:
            return what


if __name__ == "__main__":
    typer.run(main)
