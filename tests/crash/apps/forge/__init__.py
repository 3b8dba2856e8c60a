"""Workflows of every shape. What each does, in the database and outside, bears the name of its `flow`."""

import json
import os
from collections.abc import Callable

from apiary import App, Future, Rejected, Transaction, Workflow

from . import backend

backend.arm()
app = App("forge")

app.queue("narrow", concurrency=1)
app.queue("rated", concurrency=2, rate=(3, 0.2), fair_by="word")

TIMEOUT = 60
OUTSIDE = "FORGE_OUTSIDE"


@app.transaction(timeout=TIMEOUT)
def mark(tx: Transaction, flow: str, mark: str) -> int:
    """Leave one row more; returns how many there are. Done twice, it is there twice."""
    n = tx.execute("select count(*) from marks where flow = :flow", flow=flow).scalar() + 1
    tx.execute("insert into marks (flow, n, mark) values (:flow, :n, :mark)", flow=flow, n=n, mark=mark)
    return n


@app.transaction(timeout=TIMEOUT)
def refuse(tx: Transaction, flow: str, why: str) -> None:
    """Leave a row, and take it back."""
    mark(tx, flow, why)
    raise Rejected("not that", code=why, flow=flow)


@app.transaction(timeout=TIMEOUT)
def take(tx: Transaction, flow: str, item: str) -> list[str]:
    """Take one of an item."""
    tx.execute(
        "insert into stock (flow, item, taken) values (:flow, :item, 1) "
        "on conflict (flow, item) do update set taken = stock.taken + 1",
        flow=flow,
        item=item,
    )
    mark(tx, flow, f"take {item}")
    return [flow, item]


@app.transaction(timeout=TIMEOUT)
def give_back(tx: Transaction, taken: list[str]) -> None:
    """Undo `take`."""
    flow, item = taken
    tx.execute("update stock set taken = taken - 1 where flow = :flow and item = :item", flow=flow, item=item)
    mark(tx, flow, f"give back {item}")


@app.query(timeout=TIMEOUT)
def marks(tx: Transaction, flow: str) -> list[str]:
    return tx.execute("select mark from marks where flow = :flow order by n", flow=flow).scalars()


@app.query(timeout=TIMEOUT)
def fail(tx: Transaction, found: list[str]) -> None:
    raise Rejected("told to fail", code="told", found=found)


@app.action(timeout=TIMEOUT)
def act(flow: str, word: str, *, idempotency_key: str) -> str:
    """Tell the world outside. Every attempt leaves a line, with the same key."""
    line = json.dumps([flow, word, idempotency_key]) + "\n"
    descriptor = os.open(os.environ[OUTSIDE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    if word.startswith("no"):
        raise Rejected("declined", code="declined", word=word)
    return word.upper()


@app.transaction(timeout=TIMEOUT)
def leave(tx: Transaction, flow: str) -> int:
    """Leave a workflow, a function and an action for later, if this is committed."""
    tx.enqueue(linear, flow)
    tx.enqueue(store, flow, 0, 7)
    tx.enqueue(act, flow, "later")
    return mark(tx, flow, "left")


@app.action(queue="rated", timeout=TIMEOUT)
def act_in_turn(flow: str, word: str, *, idempotency_key: str) -> str:
    return act(flow, word, idempotency_key=idempotency_key)


@app.transaction(queue="narrow", timeout=TIMEOUT)
def mark_in_turn(tx: Transaction, flow: str, name: str) -> None:
    mark(tx, flow, name)


@app.workflow(queue="narrow", timeout=TIMEOUT)
def turn(wf: Workflow, flow: str, name: str = "direct") -> str:
    """Waits for its turn, and keeps it while its action runs."""
    wf.run(take, flow, name)
    said = wf.run(act, flow, name)
    wf.run(take, flow, f"end of {name}")
    return said


@app.transaction(timeout=TIMEOUT)
def line_up(tx: Transaction, flow: str) -> int:
    """Leave calls of every kind in queues; some of them once only, and one with the latest of its arguments."""
    for name in ("ann", "bob"):
        tx.enqueue(turn.with_options(priority=1), flow, name)
        tx.enqueue(act_in_turn, flow, f"by {name}")
    for word in ("first", "second", "third"):
        tx.enqueue(act_in_turn.with_options(unique=f"once {flow}"), flow, f"once {word}")
        tx.enqueue(mark_in_turn.with_options(unique=f"quiet {flow}", debounce=0.01), flow, f"quiet {word}")
    tx.enqueue(mark_in_turn.with_options(delay=0.02), flow, "late")
    return mark(tx, flow, "left")


@app.workflow(timeout=TIMEOUT)
def linear(wf: Workflow, flow: str) -> list[str]:
    """One thing after another."""
    wf.run(take, flow, "one")
    wf.run(take, flow, "two")
    said = wf.run(act, flow, "charge")
    wf.run(take, flow, said)
    return sorted(wf.run(marks, flow))


@app.workflow(timeout=TIMEOUT)
def branching(wf: Workflow, flow: str) -> list[str]:
    """Goes another way after each refusal."""
    found = []
    for word in ("no money", "gold"):
        try:
            found.append(wf.run(act, flow, word))
        except Rejected as error:
            found.append(error.code)
            wf.run(mark, flow, error.code)
    try:
        wf.run(refuse, flow, "taste")
    except Rejected as error:
        wf.run(mark, flow, f"refused {error.code} {wf.random.randrange(1000) // 1000} {len(wf.uuid())}")
    if wf.run(mark, flow, "even") % 2:
        wf.run(act, flow, "odd")
    wf.log("ways", found=found)
    return found + wf.run(marks, flow)


@app.workflow(timeout=TIMEOUT)
def fan_out(wf: Workflow, flow: str) -> list[str]:
    """Many things at once."""
    begun = [wf.start(act, flow, f"a{number}") for number in range(4)]
    counted = [wf.start(mark, flow, f"m{number}") for number in range(3)]
    found = wf.gather(begun)
    wf.run(mark, flow, "".join(found))
    return [*found, str(sum(wf.gather(counted)))]


@app.workflow(timeout=TIMEOUT)
def child(wf: Workflow, flow: str, name: str) -> str:
    """Part of `family`."""
    wf.run(take, flow, name)
    said = wf.run(act, flow, name)
    if name == "bad":
        raise Rejected("bad child", code="bad_child")
    return said


@app.workflow(timeout=TIMEOUT)
def family(wf: Workflow, flow: str) -> list[str]:
    """Children beside each other, and one that fails."""
    begun = [wf.start(child, f"{flow}", name) for name in ("ann", "bob")]
    found = wf.gather(begun)
    try:
        wf.run(child, flow, "bad")
    except Rejected as error:
        found.append(error.code)
    wf.run(take, flow, "".join(found))
    return found


@app.workflow(timeout=TIMEOUT)
def saga(wf: Workflow, flow: str) -> None:
    """Fails at last, and everything is undone in reverse order, by transactions and an action."""
    wf.run(take, flow, "room", undo=give_back)
    wf.run(act, flow, "charge", undo=(act, flow, "refund"))
    wf.run(take, flow, "car", undo=give_back)
    wf.run(child, flow, "kid", undo=(child, flow, "undone kid"))
    wf.run(refuse, flow, "sold_out")


@app.workflow(timeout=TIMEOUT)
def listener(wf: Workflow, flow: str, parent: str) -> list[str]:
    """Tells its parent who it is, and hears back."""
    wf.send(parent, "names", wf.id)
    heard = [wf.receive("words"), wf.receive("words")]
    wf.run(mark, flow, f"heard {heard}")
    return heard


@app.workflow(timeout=TIMEOUT)
def messages(wf: Workflow, flow: str) -> list[str]:
    """Speaks with a child, and publishes what came of it."""
    begun = wf.start(listener, flow, wf.id)
    name = wf.receive("names", timeout=60)
    wf.run(mark, flow, "knows a name")
    wf.send(name, "words", "first")
    wf.publish("state", "half")
    wf.run(act, flow, "between")
    wf.send(name, "words", "second")
    found = begun.result()
    wf.publish("state", found)
    return found


@app.workflow(timeout=TIMEOUT)
def timers(wf: Workflow, flow: str) -> list[str | None]:
    """Waits for times, and for what never comes."""
    wf.sleep(0.02)
    wf.run(mark, flow, "woke")
    nothing = wf.receive("nothing", timeout=0.02)
    before = wf.now
    wf.run(act, flow, "tick")
    wf.sleep(0.02)
    assert wf.now >= before
    wf.run(mark, flow, f"heard {nothing}")
    return [nothing, *wf.run(marks, flow)]


@app.workflow(timeout=TIMEOUT)
def approval(wf: Workflow, flow: str) -> str:
    """Waits for somebody outside."""
    wf.run(take, flow, "desk")
    said = wf.receive("approval")
    wf.run(act, flow, said)
    wf.run(mark, flow, said)
    return said


@app.workflow(timeout=TIMEOUT)
def rounds(wf: Workflow, flow: str, left: int = 2) -> int:
    """Begins again and again."""
    n = wf.run(mark, flow, f"round {left}")
    wf.run(act, flow, f"round {left}")
    if left:
        wf.continue_as(flow, left - 1)
    return n


@app.query(timeout=TIMEOUT)
def known(tx: Transaction, flow: str, n: int) -> int | None:
    return tx.execute("select value from fibonacci where flow = :flow and n = :n", flow=flow, n=n).scalar()


@app.transaction(timeout=TIMEOUT)
def store(tx: Transaction, flow: str, n: int, value: int) -> int:
    tx.execute(
        "insert into fibonacci (flow, n, value) values (:flow, :n, :value) on conflict do nothing",
        flow=flow,
        n=n,
        value=value,
    )
    return value


@app.workflow(timeout=TIMEOUT)
def fibonacci(wf: Workflow, flow: str, n: int = 5) -> int:
    """Looks its result up, else starts the two before it, then sums."""
    found = wf.run(known, flow, n)
    if found is not None:
        return found
    if n < 2:
        return wf.run(store, flow, n, n)
    parts = [wf.start(fibonacci, flow, n - 1), wf.start(fibonacci, flow, n - 2)]
    return wf.run(store, flow, n, sum(wf.gather(parts)))


def refused(wf: Workflow, flow: str) -> str:
    """A step that is refused, and that the workflow survives."""
    try:
        wf.run(refuse, flow, "taste")
    except Rejected as error:
        return error.code
    return "not refused"


@app.workflow(timeout=TIMEOUT)
def play(wf: Workflow, flow: str, steps: list[str]) -> list[str]:
    """Does what it is told: a workflow made by chance. `fail` ends it, and undoes what can be undone."""
    found: list[str] = []
    begun: list[Future[str]] = []
    for number, step in enumerate(steps):
        name = f"{step} {number}"
        does: dict[str, Callable[[], object]] = {
            "take": lambda name=name: wf.run(take, flow, name),
            "undoable": lambda name=name: wf.run(take, flow, name, undo=give_back),
            "act": lambda name=name: found.append(wf.run(act, flow, name, undo=(act, flow, f"undo {name}"))),
            "child": lambda name=name: found.append(wf.run(child, flow, name)),
            "start": lambda name=name: begun.append(wf.start(act, flow, name)),
            "gather": lambda: found.extend(wf.gather(begun)),
            "sleep": lambda: wf.sleep(0.005),
            "refuse": lambda: found.append(refused(wf, flow)),
            "publish": lambda: wf.publish("found", found),
            "now": lambda: wf.now,
            "fail": lambda: wf.run(fail, found),
        }
        does[step]()
    return found
