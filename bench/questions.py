"""How long questions to the log take, beside how many calls: `python -m bench.questions --calls 1000000`.

Runs that many calls of the app `posts` in this process, many at once, then asks each question several times.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apiary
from apiary import OpenApp

APP = Path(__file__).parent / "apps" / "posts"
POSTS = 20_000
CALLERS_AT_ONCE = 48
TIMES = 5
MIX = (("write", 25), ("read", 44), ("count", 1), ("copy", 25), ("publish", 5))


def call(posts: OpenApp, chance: random.Random) -> None:
    """One call, of those that a forum would have; few posts get most of them."""
    post = int(chance.paretovariate(0.3)) % POSTS
    (function,) = chance.choices([name for name, _ in MIX], [weight for _, weight in MIX])
    if function == "count":
        posts.call("count")
    elif function == "write":
        posts.call("write", post=post, author=f"author{post % 100}", body=f"words of {chance.randrange(10**6)}")
    else:
        posts.call(function, post=post)


def fill(posts: OpenApp, calls: int) -> None:
    """Run many calls, from several threads."""

    def run(part: int) -> None:
        chance = random.Random(part)
        for _ in range(calls // CALLERS_AT_ONCE):
            call(posts, chance)

    with ThreadPoolExecutor(CALLERS_AT_ONCE) as pool:
        list(pool.map(run, range(CALLERS_AT_ONCE)))


def questions(log: Any, start: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each question by a name; of a row that nearly every call touches, and of one that few do."""
    workflow = log.calls(function="publish", limit=1)[0]["id"]
    first = log.sql("select call from calls where function = 'write' order by seq limit 1").rows[0][0]
    (rare,) = log.sql("select max(id) from posts").rows[0]
    late = datetime.now(UTC)
    yield "calls", log.calls
    yield "calls --function", lambda: log.calls(function="publish")
    yield "calls --caller (none)", lambda: log.calls(caller="nobody")
    yield "calls --since --until (first second)", lambda: log.calls(since=start, until=start + 1_000_000)
    yield "calls --text (common)", lambda: log.calls(text="words")
    yield "calls --text (rare)", lambda: log.calls(text="words 777")
    yield "calls --text (none)", lambda: log.calls(text="nowhere")
    yield "show", lambda: log.show(workflow)
    yield "trace", lambda: log.trace(workflow)
    for name, key in (("busy", {"id": 1}), ("rare", {"id": rare})):
        yield f"history ({name} row)", lambda key=key: log.history("posts", key)
        yield f"as-of ({name} row, now)", lambda key=key: log.as_of("posts", key, late)
        yield f"as-of ({name} row, at the start)", lambda key=key: log.as_of("posts", key, start)
        yield f"readers ({name} row)", lambda key=key: log.readers("posts", key)
        yield f"downstream ({name} row)", lambda key=key: log.downstream(table="posts", key=key)
    yield "downstream (first call)", lambda: log.downstream(call=first)
    yield "leaks (all reads)", lambda: log.leaks("posts", "author = caller")
    yield "leaks (no read)", lambda: log.leaks("posts", "id > 0 or caller = 'local'")
    yield "leaks (no read, by a column not read)", lambda: log.leaks("posts", "author like 'author%' or id is null")


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    chosen = parser.parse_args()
    start = time.time_ns() // 1000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "posts.db"
        with apiary.open(APP, f"sqlite:///{file}") as posts:
            seconds = timed(lambda: fill(posts, chosen.calls))
            print(f"{chosen.calls} calls in {seconds:.1f} s, {megabytes(file):.0f} MB")
            print(f"effects taken apart in {timed(lambda: posts.log.sql('select 1')):.1f} s")
            print(f"calls indexed in {timed(lambda: posts.log.calls(caller='nobody')):.1f} s")
            print(f"the file beside: {megabytes(file.with_name('posts.log.db')):.0f} MB")
            for name, ask in questions(posts.log, start):
                took = [timed(ask) * 1000 for _ in range(TIMES)]
                print(f"{name:40} {statistics.median(took):8.1f} ms, first {took[0]:8.1f} ms", flush=True)


def megabytes(file: Path) -> float:
    """The size of a database with its write-ahead log."""
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")) / 1e6


def timed(run: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
