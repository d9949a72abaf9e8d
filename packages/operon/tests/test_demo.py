"""`make demo` shows what it claims, in a small size."""

from __future__ import annotations

import sys
from pathlib import Path

from children import ran
from terminal import clean

DEMO = Path(__file__).parents[3] / "examples" / "shop" / "demo.py"


def test_demo_kills_the_shop_and_nothing_is_lost() -> None:
    ended = ran(sys.executable, str(DEMO), "--orders", "6", env=clean())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "kill -9" in ended.stdout
    assert ended.stdout.count("✔") == 4
