"""The shop's one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template

PAGE = Template((Path(__file__).parent / "page.html").read_text("utf-8"))


def render(products: Iterable[tuple[str, str, int, int]], orders: Iterable[Mapping[str, object]]) -> str:
    return PAGE.substitute(
        products="".join(
            f"<tr><td>{escape(name)}</td>{_number(_money(cents))}{_number(stock)}"
            f'<td class="number"><button data-sku="{escape(sku)}">Buy one</button></td></tr>'
            for sku, name, cents, stock in products
        ),
        orders="".join(
            f"<tr><td>{it['id']}</td><td>{escape(str(it['sku']))}</td>{_number(it['quantity'])}"
            f"{_number(_money(int(str(it['cents']))))}"
            f'<td class="{it["state"]}">{it["state"]}</td><td>{it["parcel"] or ""}</td></tr>'
            for it in orders
        )
        or "<tr><td colspan=6>None yet.</td></tr>",
    )


def _number(value: object) -> str:
    return f'<td class="number">{value}</td>'


def _money(cents: int) -> str:
    return f"€ {cents / 100:.2f}"
