"""What cannot be served is refused when the module is imported, and says what to write instead."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, assert_type

import pytest
from fastapi import BackgroundTasks, Depends, Request, Response, UploadFile, WebSocket
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from children import ran
from operon import Operon
from operon.app.declarations import Workflow
from operon.errors import DeclarationError


def requested(request: Request) -> None: ...
def optional(request: Request | None = None) -> None: ...
def responding(response: Response) -> None: ...
def talking(socket: WebSocket) -> None: ...
def later(tasks: BackgroundTasks) -> None: ...
def uploading(file: UploadFile) -> None: ...
def querying(session: Annotated[Session, Depends(lambda: None)]) -> None: ...
def listing(files: list[UploadFile]) -> None: ...
def answering() -> Response: ...  # type: ignore[empty-body] # never called
def positional(n: int, /) -> None: ...
def several(*n: int) -> None: ...


REFUSED = [
    requested, optional, responding, talking, later, uploading, querying, listing, answering, positional, several,
]  # fmt: skip


@pytest.mark.parametrize("fn", REFUSED, ids=lambda fn: fn.__name__)
def test_input_that_cannot_be_recorded_is_refused(fn: Callable[..., Any]) -> None:
    """`Request`, `Response`, sessions and the like belong to one process; so do parameters that have no name."""
    app = Operon("shop")
    with pytest.raises(DeclarationError, match=f"POST /work.*{fn.__name__}"):
        app.post("/work")(app.workflow(fn))
    app.post("/work")(fn)


def test_second_connection_is_refused() -> None:
    """The first parameter of a transaction is its own; another one would be input."""
    app = Operon("shop")

    @app.post("/good")
    @app.transaction
    def good(tx: sqlite3.Connection, n: int) -> None: ...

    with pytest.raises(DeclarationError, match="'other' is a Connection"):

        @app.post("/bad")
        @app.transaction
        def bad(tx: Connection, other: Connection) -> None: ...


def test_order_of_decorators() -> None:
    """HTTP is outermost, gives back what it is given, and may be said more than once."""
    app = Operon("shop")

    @app.get("/a")
    @app.post("/b")
    @app.workflow
    def good(n: int) -> str:
        return str(n)

    assert isinstance(good, Workflow)
    if TYPE_CHECKING:
        assert_type(good(1), str)
    with pytest.raises(DeclarationError, match="outermost"):

        @app.workflow
        @app.post("/bad")
        def bad() -> None: ...


def test_step_and_unbound_method_are_refused() -> None:
    app = Operon("shop")
    with pytest.raises(DeclarationError, match="serves a step"):

        @app.post("/step")
        @app.step
        def step() -> None: ...

    class Billing:
        @app.post("/bill")
        @app.workflow
        def bill(self, n: int) -> None: ...

    assert Billing.bill.name.endswith("Billing.bill")
    with pytest.raises(DeclarationError, match="registered object"):
        _ = app.http


def test_type_that_fastapi_cannot_document_is_named() -> None:
    app = Operon("shop")

    @app.post("/work")
    @app.workflow
    def work() -> sqlite3.Row: ...  # type: ignore[empty-body] # never called

    with pytest.raises(DeclarationError, match="POST /work"):
        _ = app.http


def test_import_leaves_fastapi_alone() -> None:
    """`import operon`, and declaring an endpoint, import neither FastAPI nor Starlette; asking for `app.http` does."""
    program = """
import sys, operon
app = operon.Operon("shop")
@app.post("/work")
@app.workflow
def work(n: int) -> None: ...
assert not {"fastapi", "starlette", "pydantic", "operon.http"} & sys.modules.keys()
assert app.http and "fastapi" in sys.modules
"""
    ran(sys.executable, "-c", program, check=True)
