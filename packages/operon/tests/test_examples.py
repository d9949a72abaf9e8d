"""The examples and the documentation are true: their code runs, and the files they name exist."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from children import ran
from terminal import Project, clean, fetch, free_port

ROOT: Final = Path(__file__).parents[3]
SOURCES: Final = ROOT / "packages" / "operon" / "src" / "operon"
PAGES: Final = sorted((ROOT / "docs").glob("*.md"))


def programs() -> list[tuple[str, str]]:
    """Every Python block of the documentation that is a whole program."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        found += [(page.name, block) for block in blocks if re.search(r"^(with app|simulate)\b", block, re.MULTILINE)]
    return found


@pytest.mark.parametrize("code", [code for _, code in programs()], ids=[name for name, _ in programs()])
def test_documented_program_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code)
    ended = ran(sys.executable, "-W", "error", "program.py", cwd=tmp_path, env=clean())
    assert (ended.returncode, ended.stderr) == (0, "")


def test_architecture_names_files_that_exist() -> None:
    """Every path in ARCHITECTURE.md is there, and every layer that is there is in its table."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`([\w/.]+(?:\.py|\.sql|\.toml|/))`", text))
    missing = [name for name in named if not ((SOURCES / name).exists() or (ROOT / name).exists())]
    assert not missing
    layers = {path.name for path in SOURCES.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert {f"{layer}/" for layer in layers} <= named


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """The shop, copied, with empty books."""
    shutil.copytree(ROOT / "examples" / "shop", tmp_path / "shop", ignore=shutil.ignore_patterns("*.db*"))
    project = Project(tmp_path / "shop")
    if request.param == "postgres":
        project.environment["DATABASE_URL"] = str(request.getfixturevalue("postgres_url"))
    return project


def test_shop_sells(shop: Project) -> None:
    """An order is answered once per key, declined cards give the goods back, and the page shows it all."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def order(key: str, body: str) -> tuple[int, str]:
        return fetch(f"{url}/orders", "POST", {"Idempotency-Key": key, "Content-Type": "application/json"}, body)

    with shop.start("run", "shop:app", "--port", str(port)) as server:
        server.until("● shop")
        first = order("a", '{"sku": "lamp", "quantity": 2, "card": "ada"}')
        assert first == order("a", '{"sku": "lamp", "quantity": 2, "card": "ada"}')
        assert first[0] == 201
        assert fetch(f"{url}/orders/1") == (200, first[1])
        assert order("b", '{"sku": "lamp", "card": "declined"}')[0] == 402
        assert order("c", '{"sku": "unicorn", "card": "ada"}')[0] == 404
        assert order("d", '{"sku": "lamp", "quantity": 99, "card": "ada"}')[0] == 422
        status, page = fetch(f"{url}/")
        assert status == 200
        assert '<td>Desk lamp</td><td class="number">€ 39.00</td><td class="number">38</td>' in page
        assert server.ends(signal.SIGTERM) == 0
