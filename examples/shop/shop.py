"""A shop whose orders survive anything: stock is reserved, the card charged once, the parcel sent, whatever crashes.

operon run shop:app            # SQLite in shop.db; DATABASE_URL=postgresql://... for Postgres
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import HTTPException
from fastapi.responses import HTMLResponse
from page import render
from payments import CardDeclined, Payments
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from operon import Operon, aio, context

PACE = float(os.environ.get("SHOP_PACE", "0.05"))
"""Seconds that the card processor and the warehouse take."""

database = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
payments = Payments(os.environ.get("SHOP_PAYMENTS", "payments.db"))


# ── What the shop remembers ──────────────────────────────────────────────────────────────────────────────────────────


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"
    sku: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    cents: Mapped[int]
    stock: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str]
    quantity: Mapped[int]
    cents: Mapped[int]
    state: Mapped[str]
    parcel: Mapped[str | None]


CATALOGUE = [
    ("lamp", "Desk lamp", 3900, 40),
    ("mug", "Enamel mug", 1200, 120),
    ("atlas", "World atlas", 5900, 25),
]


@contextmanager
def opened(_: Operon) -> Iterator[None]:
    """Make the tables and fill the shelves, the first time; entered before any order is taken up."""
    Base.metadata.create_all(database)
    with Session(database) as tx, tx.begin():
        if tx.scalar(select(Product).limit(1)) is None:
            tx.add_all(Product(sku=sku, name=name, cents=cents, stock=stock) for sku, name, cents, stock in CATALOGUE)
    yield
    database.dispose()


app = Operon("shop", database=database, lifespan=opened)


# ── What comes in and goes out ───────────────────────────────────────────────────────────────────────────────────────


class Basket(BaseModel):
    sku: str
    quantity: Annotated[int, Field(ge=1, le=10)] = 1
    card: Annotated[str, Field(description="A token of the card processor's; never a number.")]


class OrderView(BaseModel):
    id: int
    sku: str
    quantity: int
    cents: int
    state: str
    parcel: str | None


# ── Transactions: the shop's rows and Operon's record of them are one commit ─────────────────────────────────────────


@app.transaction
def reserve(tx: Session, basket: Basket) -> OrderView:
    """Take the goods from the shelf and write the order down."""
    product = tx.get(Product, basket.sku)
    if product is None:
        raise HTTPException(404, f"There is no {basket.sku}.")
    if product.stock < basket.quantity:
        raise HTTPException(409, f"Only {product.stock} of {product.name} left.")
    product.stock -= basket.quantity
    order = Order(
        sku=basket.sku, quantity=basket.quantity, cents=product.cents * basket.quantity, state="reserved", parcel=None
    )
    tx.add(order)
    tx.flush()
    return view(order)


@app.transaction
def confirm(tx: Session, id: int, parcel: str) -> OrderView:
    """Note what was sent."""
    order = tx.get_one(Order, id)
    order.state, order.parcel = "shipped", parcel
    return view(order)


@app.transaction
def give_back(tx: Session, id: int) -> None:
    """Put the goods of an order back on the shelf."""
    order = tx.get_one(Order, id)
    order.state = "declined"
    tx.get_one(Product, order.sku).stock += order.quantity


# ── Steps: other people's services, which no database transaction can reach ──────────────────────────────────────────


@app.step(retries=5, backoff=0.1, retry_on=ConnectionError, raises=(CardDeclined,))
def charge(card: str, cents: int) -> str:
    """Charge the card. After a crash this may run again: the key, the same each time, is what keeps it one charge."""
    charged = payments.charge(card, cents, key=context().idempotency_key)
    time.sleep(PACE)  # the answer is on its way; a crash now, and we do not know that the card was charged
    return charged


@app.step(retries=5, backoff=0.1)
def ship(order: int) -> str:
    """Send the parcel."""
    time.sleep(PACE)
    return f"P{order:06}"


# ── The workflow, and the endpoints ──────────────────────────────────────────────────────────────────────────────────


@app.post("/orders", status_code=201)
@app.workflow
def buy(basket: Basket) -> OrderView:
    """Buy something. Killed at any line, it goes on there; sent again with its Idempotency-Key, it is one order."""
    order = reserve(basket)
    try:
        charge(basket.card, order.cents)
    except CardDeclined as declined:
        give_back(order.id)
        raise HTTPException(402, str(declined)) from None
    return confirm(order.id, ship(order.id))


@app.get("/orders/{id}")
@app.transaction(read_only=True)
def order(tx: Session, id: int) -> OrderView:
    """Look at an order."""
    found = tx.get(Order, id)
    if found is None:
        raise HTTPException(404, f"There is no order {id}.")
    return view(found)


@app.transaction(read_only=True)
def shelves(tx: Session) -> tuple[list[tuple[str, str, int, int]], list[OrderView]]:
    """See what is in stock, and the latest orders."""
    products = tx.scalars(select(Product).order_by(Product.sku))
    latest = tx.scalars(select(Order).order_by(Order.id.desc()).limit(20))
    return [(it.sku, it.name, it.cents, it.stock) for it in products], [view(it) for it in latest]


@app.get("/", response_class=HTMLResponse)
async def index() -> str:
    """Show the shop to people."""
    products, orders = await aio.call(shelves)
    return render(products, [it.model_dump() for it in orders])


def view(order: Order) -> OrderView:
    return OrderView(
        id=order.id, sku=order.sku, quantity=order.quantity, cents=order.cents, state=order.state, parcel=order.parcel
    )
