"""Every example runs: those of docs/http.md, one after the other, as one program."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from children import ran

PAGE = Path(__file__).parents[4] / "docs" / "http.md"


def test_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert blocks
    (tmp_path / "shop.py").write_text("\n".join(blocks))
    ran(sys.executable, "-W", "error", "shop.py", cwd=tmp_path, check=True)
