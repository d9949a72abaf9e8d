"""The main job, narrated: orders come in, the server is killed in the middle, and nothing is lost or done twice.

    python demo.py                       # SQLite
    python demo.py --database postgres   # the embedded Postgres, or a URL

Exits with 1 if any of what it claims is untrue.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from payments import Payments
from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SKUS = ("lamp", "mug", "atlas")
CUSTOMERS = 4
PATIENCE = 60.0
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Purchase:
    """What one customer wants, and what came of it."""

    card: str
    sku: str
    quantity: int
    lost: int = 0
    """Requests whose answer never came."""
    order: dict[str, Any] = field(default_factory=dict[str, Any])


class Server:
    """The shop in a process of its own, which can be killed."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        command = [sys.executable, "-m", "operon", "run", "shop:app", "--port", str(self.port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if ask(self.port, "GET", "/readyz")[0] == 200:
                return
            time.sleep(0.05)
        raise SystemExit(f"The shop did not start. What it said:\n{self._log.read_text()}")

    def kill(self) -> int:
        """Kill it as the kernel would, with no chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return self._process.pid

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


class Street:
    """Customers who order, and who ask again with the same key when no answer comes."""

    def __init__(self, port: int, purchases: list[Purchase]) -> None:
        self._port = port
        self._waiting = list(purchases)
        self._answered = 0
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._customer, daemon=True) for _ in range(CUSTOMERS)]

    def open(self) -> None:
        for thread in self._threads:
            thread.start()

    def until_answered(self, number: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._answered >= number, PATIENCE):
                raise SystemExit(f"Only {self._answered} orders were answered in {PATIENCE:.0f} s.")

    def _customer(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                purchase = self._waiting.pop(0)
            while not (answer := self._post(purchase)):
                purchase.lost += 1
                time.sleep(0.2)
            with self._changed:
                purchase.order = answer
                self._answered += 1
                self._changed.notify_all()

    def _post(self, purchase: Purchase) -> dict[str, Any] | None:
        body = {"sku": purchase.sku, "quantity": purchase.quantity, "card": purchase.card}
        key = f"cart-of-{purchase.card}"
        status, answer = ask(self._port, "POST", "/orders", body, {"Idempotency-Key": key})
        return answer if status == 201 else None  # else it was cut off, or told to come back later


def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Make a request; give its status and answer, or 0 where none came."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        given = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, None if body is None else json.dumps(body), given)
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    except (OSError, HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the shop in the middle of its orders.")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgres, or a URL")
    parser.add_argument("--orders", type=int, default=16)
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
        os.environ["SHOP_PAYMENTS"] = str(directory / "payments.db")
        os.environ["SHOP_PACE"] = "0.25"
        os.environ["DATABASE_URL"] = stack.enter_context(database(given.database, directory))
        return story(directory, given.orders)


@contextmanager
def database(wanted: str, directory: Path) -> Iterator[str]:
    if wanted == "postgres":
        from operon.embedded import Postgres

        with Postgres(directory / "postgres") as server:
            yield server.url
    elif wanted == "sqlite":
        yield f"sqlite:///{directory / 'shop.db'}"
    else:
        yield wanted


def story(directory: Path, number: int) -> int:
    began = time.monotonic()
    purchases = [Purchase(f"card-{n:02}", SKUS[n % len(SKUS)], 1 + n % 2) for n in range(1, number + 1)]
    server = Server(directory / "shop.log")
    street = Street(server.port, purchases)

    def tell(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  {text}")

    try:
        server.start()
        tell(f"The shop is open at http://127.0.0.1:{server.port}, on {os.environ['DATABASE_URL'].partition(':')[0]}.")
        street.open()
        tell(f"{number} orders come in, {CUSTOMERS} at a time, each with its Idempotency-Key.")
        street.until_answered(number // 3)
        until_next_charge()
        pid = server.kill()
        answered = sum(bool(it.order) for it in purchases)
        tell(f"[bold red]kill -9 {pid}[/]  {answered} orders were answered, others are half done: a card is charged,")
        tell("and the shop has not heard of it. The rest has not begun.")
        server.start()
        tell("The shop is open again. Customers without an answer ask again, with the same key.")
        street.until_answered(number)
        tell("Every order has its answer.")
        return verdict(purchases)
    finally:
        server.stop()


def until_next_charge() -> None:
    """Wait for the moment that is worth a crash: a card is charged, and the shop has not heard of it yet."""
    payments = Payments(os.environ["SHOP_PAYMENTS"])
    known, deadline = len(payments.charges()), time.monotonic() + PATIENCE
    while len(payments.charges()) == known and time.monotonic() < deadline:
        time.sleep(0.01)


def verdict(purchases: list[Purchase]) -> int:
    """Hold the answers against the shop's own tables and the card processor's own books."""
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    import shop

    with Session(shop.database) as tx:
        orders = {it.id: it.state for it in tx.scalars(select(shop.Order))}
        stock = {it.sku: it.stock for it in tx.scalars(select(shop.Product))}
    shop.database.dispose()
    charges = shop.payments.charges()
    sold = Counter[str]()
    for it in purchases:
        sold[it.sku] += it.quantity
    console.print(books(purchases, orders, Counter(it.card for it in charges), {it.card: it.calls for it in charges}))
    due = {it.card: it.order["cents"] for it in purchases}
    claims = {
        "every order is finished": all(orders.get(it.order["id"]) == "shipped" for it in purchases),
        "no order exists twice": len(orders) == len(purchases) == len({it.order["id"] for it in purchases}),
        "every card was charged once, and the right amount": sorted((it.card, it.cents) for it in charges)
        == sorted(due.items()),
        "no stock was lost": all(stock[sku] + sold[sku] == first for sku, _, _, first in shop.CATALOGUE),
    }
    for claim, true in claims.items():
        console.print(f"  [green]✔[/] {claim}" if true else f"  [bold red]✘ not true: {claim}[/]")
    return 0 if all(claims.values()) else 1


def books(purchases: list[Purchase], orders: dict[int, str], charged: Counter[str], calls: dict[str, int]) -> Table:
    table = Table(box=ROUNDED, border_style="dim", header_style="bold")
    for column in ("card", "bought", "tried", "order", "state", "processor asked", "charged"):
        table.add_column(column, justify="right" if column == "order" else "left", no_wrap=True)
    for it in purchases:
        times, asked = charged[it.card], calls.get(it.card, 0)
        table.add_row(
            it.card,
            f"{it.quantity} x {it.sku}",
            f"[yellow]{it.lost + 1} times[/]" if it.lost else "[dim]once[/]",
            str(it.order["id"]),
            f"[green]{orders.get(it.order['id'], 'missing')}[/]",
            f"[yellow]{asked} times[/]" if asked > 1 else "[dim]once[/]",
            "[green]once[/]" if times == 1 else f"[bold red]{times} times[/]",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
