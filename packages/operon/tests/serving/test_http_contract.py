"""The documentation tells the truth: whatever it allows is answered as it says, by requests nobody thought of."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
import schemathesis
from fastapi import Header, HTTPException, Query
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import BaseModel, Field
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi
from sqlalchemy import Connection, text

from operon import Operon
from serving.conftest import by_header

pytestmark = pytest.mark.slow


class Size(Enum):
    """A choice."""

    SMALL = "small"
    LARGE = "large"


class Item(BaseModel):
    """Constraints of every sort."""

    name: Annotated[str, Field(max_length=50)]
    price: Annotated[Decimal, Field(ge=0, max_digits=8, decimal_places=2)]
    size: Size = Size.SMALL
    wanted: date | None = None
    notes: dict[str, list[str]] = {}


@dataclass
class Quote:
    """A dataclass as an answer."""

    total: Decimal
    items: list[Item]


@pytest.fixture
def shop(tmp_path: Path) -> Generator[Operon]:
    app = Operon("shop", database=f"sqlite:///{tmp_path}/shop.db", authenticate=by_header)

    @app.post("/quotes/{customer}", status_code=201)
    @app.workflow
    def quote(customer: str, items: list[Item], discount: Annotated[int, Query(ge=0, le=100)] = 0) -> Quote:
        if not items:
            raise HTTPException(404, f"{customer} wants nothing")
        return Quote(sum((it.price for it in items), Decimal()) * (100 - discount) / 100, items)

    @app.put("/counts/{n}")
    @app.transaction
    def count(tx: Connection, n: int, tags: Annotated[list[str] | None, Query()] = None) -> list[str]:
        return [str(tx.execute(text("select 1")).scalar_one()), str(n), *(tags or ())]

    @app.get("/counts/{n}")
    @app.transaction(read_only=True)
    def read(tx: Connection, n: int) -> int:
        return n

    @app.delete("/plain")
    def plain(x_reason: Annotated[str, Header()]) -> dict[str, str]:
        return {"reason": x_reason}

    with app:
        yield app


def test_documented_is_what_happens(shop: Operon) -> None:
    """Every operation, with data that fits its schema and with data that does not: no 5xx, and only what is written."""
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", shop)
    general, documented = cast("Any", checks), cast("Any", openapi)
    wanted = [
        general.not_a_server_error,
        documented.status_code_conformance,
        documented.content_type_conformance,
        documented.response_schema_conformance,
    ]
    operations: list[Any] = [it.ok() for it in schema.get_all_operations()]
    assert {it.label for it in operations} == {
        "POST /quotes/{customer}", "PUT /counts/{n}", "GET /counts/{n}", "DELETE /plain",
    }  # fmt: skip
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=40,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=(
                    HealthCheck.too_slow,
                    HealthCheck.filter_too_much,
                    HealthCheck.function_scoped_fixture,
                ),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def visit(case: Any) -> None:
                case.call_and_validate(checks=wanted)

            visit()


def test_key_and_problems_are_documented(shop: Operon) -> None:
    """OpenAPI 3.1: `Idempotency-Key` where a durable endpoint writes, 202, 409 and 422 where they may come."""
    document = shop.http.openapi()
    assert document["openapi"].startswith("3.1")

    def headers(operation: dict[str, Any]) -> set[str]:
        return {it["name"] for it in operation.get("parameters", ()) if it["in"] == "header"}

    for path, method in (("/quotes/{customer}", "post"), ("/counts/{n}", "put")):
        operation = document["paths"][path][method]
        assert "Idempotency-Key" in headers(operation)
        assert {"202", "409", "422"} <= operation["responses"].keys()
        for status in ("409", "422"):
            assert operation["responses"][status]["content"].keys() == {"application/problem+json"}
    assert "Idempotency-Key" not in headers(document["paths"]["/counts/{n}"]["get"])
    assert "Idempotency-Key" not in headers(document["paths"]["/plain"]["delete"])
