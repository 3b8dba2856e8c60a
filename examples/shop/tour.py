"""A shopping tour: a real server, the shop deployed to it, and customers who call it over HTTP.

Run it with `python examples/shop/tour.py`, or `make demo`. Everything happens in a temporary folder and on
a free port of the loopback interface. The tour checks what it sees: it exits with 1, and says what was
wrong, unless all of it was right.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.json import JSON
from rich.markup import escape
from rich.table import Table
from tour_platform import Platform, WentWrong, check, console, result_of, say, serve, wait_until

SHOP = Path(__file__).resolve().parent
CATALOGUE = SHOP / "shop" / "catalogue.json"

LOAFERS, SHAKERS, JAR, MUG = 4, 7, 8, 9
VISITOR, COLLECTOR, WINDOW_SHOPPER = 7, 8, 9
FIRST_CUSTOMER, CUSTOMERS, COUNTERS = 1_000, 300, 16
RUSH_SECONDS = 20.0
NUMBERS = {"item_id", "quantity", "cost", "inventory", "ms"}


def chapter(title: str) -> None:
    console.print()
    console.rule(f"[bold yellow]{title}", align="left", style="yellow")


def show_rows(rows: list[dict[str, Any]], *columns: str) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in NUMBERS else "left")
    for row in rows:
        table.add_row(*(dollars(row[column]) if column == "cost" else escape(str(row[column])) for column in columns))
    console.print(table)


def show_json(value: dict[str, Any]) -> None:
    for line in JSON.from_data(value).text.split("\n"):
        console.print("   ", line)


def dollars(cents: int) -> str:
    return f"${cents / 100:,.2f}"


def open_the_shop(platform: Platform) -> None:
    say(f"[dim]$[/] apiary deploy examples/shop --url {platform.url}")
    platform.command("deploy", str(SHOP), "--url", platform.url, "--key", platform.key)
    items = json.loads(CATALOGUE.read_text())
    check("items loaded", len(items), platform.call("load_catalogue", items=items))
    say(f"A server, the app [bold]shop[/] in it, and {len(items)} items on the shelves, 100 pieces of each.")


def look_around(platform: Platform) -> None:
    found = platform.show("browse", prefix="s", top_cost=2_000)
    show_rows(found, "item_id", "name", "cost", "inventory")
    check("items found", ["Salt & Pepper Shakers", "Sunglasses"], [row["name"] for row in found])


def fill_a_cart(platform: Platform) -> None:
    platform.show("add_to_cart", user=VISITOR, item=LOAFERS)
    platform.show("add_to_cart", user=VISITOR, item=SHAKERS, quantity=2)
    wait_until("offers for the cart", lambda: len(platform.call("offers", user=VISITOR)) == 2)
    say("[dim]add_to_cart has queued a call with its own commit; what that call found:[/]")
    show_rows(platform.show("offers", user=VISITOR), "item_id", "name", "cost")


def check_out(platform: Platform) -> None:
    order = platform.show("place_order", user=VISITOR, key="visit-1")
    show_rows(order["lines"], "item_id", "quantity", "cost")
    say(f"Order {order['order_id']}, [bold]{dollars(order['cost'])}[/].")
    check("cost of the order", 8999 + 2 * 1849, order["cost"])
    again = platform.show("place_order", user=VISITOR, key="visit-1")
    check("answer to the same key", order, again)
    check("orders of the visitor", 1, len(platform.call("orders", user=VISITOR)))
    check("stock of shakers", 98, platform.call("item", item=SHAKERS)["inventory"])
    say("The same key, so the same answer: nothing was ordered twice.")


def be_refused(platform: Platform) -> None:
    platform.call("add_to_cart", user=COLLECTOR, item=JAR, quantity=5)
    platform.call("add_to_cart", user=COLLECTOR, item=SHAKERS, quantity=99)
    problem = platform.show("place_order", user=COLLECTOR, status=422)
    show_json(problem)
    check("code of the refusal", "out_of_stock", problem["code"])
    check("stock of jars, which were there", 100, platform.call("item", item=JAR)["inventory"])
    say("The jars were there and the shakers were not: nothing was taken.")

    problem = platform.show("add_to_cart", user=VISITOR, item=MUG, quantity="a few", status=400)
    show_json(problem)
    if "quantity" not in json.dumps(problem):
        raise WentWrong("the refusal does not name the wrong argument")
    check("cart of the visitor", [], platform.call("cart", user=VISITOR))


@dataclass
class Rush:
    """What many customers at once were answered. Each of them has one key, and sends it twice."""

    platform: Platform
    answers: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    sent_again: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: threading.Event = field(default_factory=threading.Event)
    deadline: float = field(default_factory=lambda: time.monotonic() + RUSH_SECONDS)

    def order(self, customer: int) -> None:
        """Place an order with the customer's key, again and again until it is answered."""
        while True:
            reason = self._try(customer)
            if reason is None:
                return
            with self.lock:
                self.sent_again[reason] += 1
            if time.monotonic() > self.deadline:
                raise WentWrong(f"customer {customer} was not answered in time, the last time {reason}")
            time.sleep(0.02)

    def _try(self, customer: int) -> str | None:
        try:
            response = self.platform.post("place_order", {"user": customer}, f"order-{customer}")
        except httpx.TransportError as error:
            return type(error).__name__
        if response.status_code == 503:
            return "503"
        order = result_of(response)
        with self.lock:
            self.answers[customer].append(order["order_id"])
            if sum(map(len, self.answers.values())) == CUSTOMERS:
                self.under_way.set()
        return None


def survive_a_kill(platform: Platform) -> None:
    for item in (JAR, MUG):
        platform.call("restock", item=item, quantity=1_000)
    stock = {item: platform.call("item", item=item)["inventory"] for item in (JAR, MUG)}
    sold = platform.call("sales")
    customers = range(FIRST_CUSTOMER, FIRST_CUSTOMER + CUSTOMERS)
    wanted = {customer: 1 + customer % 3 for customer in customers}

    def pick(customer: int) -> None:
        for item in (JAR, MUG):
            platform.call("add_to_cart", user=customer, item=item, quantity=wanted[customer])

    with ThreadPoolExecutor(COUNTERS) as pool:
        list(pool.map(pick, customers))
        say(f"{CUSTOMERS} customers have filled their carts. Each sends the same order twice, {COUNTERS} at a time.")
        rush = Rush(platform)
        rush_and_kill(rush, pool, random.Random(1).sample([*customers, *customers], 2 * CUSTOMERS))
        carts = list(pool.map(lambda customer: platform.call("cart", user=customer), customers))
    for reason, times in rush.sent_again.items():
        say(f"[dim]{times} times {reason}, sent again with the same key[/]")

    sold_now, pieces = platform.call("sales"), sum(wanted.values())
    compare(
        ("answers", 2 * CUSTOMERS, sum(map(len, rush.answers.values()))),
        ("keys with two different answers", 0, sum(len(set(ids)) > 1 for ids in rush.answers.values())),
        ("orders that customers know of", CUSTOMERS, len({ids[0] for ids in rush.answers.values()})),
        ("orders in the database", CUSTOMERS, sold_now["orders"] - sold["orders"]),
        ("pieces sold", 2 * pieces, sold_now["pieces"] - sold["pieces"]),
        ("mugs left", stock[MUG] - pieces, platform.call("item", item=MUG)["inventory"]),
        ("jars left", stock[JAR] - pieces, platform.call("item", item=JAR)["inventory"]),
        ("carts with anything left in them", 0, sum(map(bool, carts))),
    )


def rush_and_kill(rush: Rush, pool: ThreadPoolExecutor, queue: list[int]) -> None:
    """Send an order for everyone in the queue, and kill the host when half of them are answered."""
    victim = rush.platform.host()
    orders = [pool.submit(rush.order, customer) for customer in queue]
    wait_until("half of the orders", lambda: rush.under_way.is_set() or all(order.done() for order in orders))
    os.kill(victim, signal.SIGKILL)
    killed, left = time.perf_counter(), sum(not order.done() for order in orders)
    say(f"[red]kill -9 {victim}[/], the process that runs the shop, while {left} orders wait for their answers.")
    for order in orders:
        order.result()
    seconds, successor = time.perf_counter() - killed, rush.platform.host()
    say(f"Process {successor} took over; the last order was answered {seconds:.2f} s after the kill.")
    if left == 0:
        raise WentWrong("the orders were all answered before the kill: it proved nothing")
    if successor == victim:
        raise WentWrong(f"the killed process {victim} is still said to be the host")


def compare(*facts: tuple[str, int, int]) -> None:
    """Print what must be and what is; `WentWrong` where they differ."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("what", "expected", "found", ""):
        table.add_column(name, justify="right" if name in ("expected", "found") else "left")
    for what, expected, found in facts:
        table.add_row(what, f"{expected:,}", f"{found:,}", "[green]✓[/]" if expected == found else "[bold red]✗[/]")
    console.print(table)
    for what, expected, found in facts:
        check(what, expected, found)


def change_the_shop(platform: Platform, folder: Path) -> None:
    changed = folder / "changed" / "shop"
    shutil.copytree(SHOP, changed, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    module = changed / "shop" / "catalogue.py"
    module.write_text(module.read_text().replace("PAGE = 8\n", "PAGE = 5\n"))
    pages: list[int] = []
    picked: list[int] = []
    closed = threading.Event()

    def browse_on() -> None:
        while not closed.is_set():
            pages.append(len(platform.call("browse")))

    def pick_on() -> None:
        while not closed.is_set():
            picked.append(platform.call("add_to_cart", user=WINDOW_SHOPPER, item=MUG))

    with ThreadPoolExecutor(4) as pool:
        try:
            shoppers = [pool.submit(shopper) for shopper in (browse_on, browse_on, pick_on, pick_on)]
            wait_until("calls to the old version", lambda: bool(pages and picked) or any(s.done() for s in shoppers))
            say("[dim]$[/] apiary deploy changed/shop   [dim]# pages of 5 items, not 8, while four shoppers call[/]")
            platform.command("deploy", str(changed))
            deployed = len(picked)
            wait_until(
                "calls to the new version",
                lambda: (5 in pages and len(picked) > deployed) or any(s.done() for s in shoppers),
            )
        finally:
            closed.set()
        for shopper in shoppers:
            shopper.result()  # raises what went wrong, if any call failed
    sizes = Counter(pages)
    say(f"{sizes[8]} pages from the old version, {sizes[5]} from the new one, {len(picked)} mugs picked.")
    check("sizes of pages", {5, 8}, set(sizes))
    check("size of a page after the deploy", 5, len(platform.call("browse")))
    cart = platform.call("cart", user=WINDOW_SHOPPER)
    check("mugs in the cart", len(picked), cart[0]["quantity"])
    say("No call failed, and the cart has exactly these mugs.")


def read_the_log(platform: Platform) -> None:
    say("[dim]$[/] apiary log calls shop --limit 6")
    latest = json.loads(platform.command("log", "calls", "shop", "--limit", "6"))
    rows = [{**call, "ms": f"{call['duration'] / 1000:.2f}"} for call in latest]
    show_rows(rows, "function", "status", "ms", "id")
    say("[dim]$[/] apiary log calls shop --function place_order --limit 1000")
    placed = json.loads(platform.command("log", "calls", "shop", "--function", "place_order", "--limit", "1000"))
    kept = Counter(call["status"] for call in placed)
    say(f"{kept['ok']} orders placed and {kept['rejected']} refused: one record each, however often they were sent.")
    check("records of orders", {"ok": CUSTOMERS + 1, "rejected": 1}, dict(kept))


def tour(folder: Path) -> None:
    """Every chapter, one after the other."""
    chapter("A server and a shop")
    with serve(folder) as platform:
        open_the_shop(platform)
        chapter("Looking around")
        look_around(platform)
        chapter("Filling a cart")
        fill_a_cart(platform)
        chapter("Checking out, and sending it again")
        check_out(platform)
        chapter("What the shop refuses")
        be_refused(platform)
        chapter("Killed in the middle")
        survive_a_kill(platform)
        chapter("A new version while customers call")
        change_the_shop(platform, folder)
        chapter("What the log has kept")
        read_the_log(platform)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="apiary-tour-") as folder:
            tour(Path(folder))
    except (WentWrong, httpx.HTTPError, subprocess.SubprocessError) as wrong:
        console.print(f"\n[bold red]Wrong:[/] {escape(str(wrong) or repr(wrong))}")
        return 1
    except KeyboardInterrupt:
        console.print("\n[red]Stopped.[/]")
        return 130
    console.print(f"\n[bold green]All of it was right[/], in {time.perf_counter() - started:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
