"""The benchmarks compare what they say they compare: their statistics, their protocol, and one workload that runs."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from children import ran

ROOT: Final = Path(__file__).parents[3]
MODULES: Final = sorted((ROOT / "benchmarks").rglob("*.py"))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


@pytest.mark.usefixtures("modules")
def test_worse_is_above_one_whatever_the_unit() -> None:
    """A longer time is worse, and so is a lower rate; nothing is compared with nothing."""
    from benchmarks.figures import RATE, times_worse

    assert times_worse(6.0, 2.0, "ms") == 3.0
    assert times_worse(100.0, 300.0, RATE) == 3.0
    assert times_worse(1.0, 0.0, "ms") is None


@pytest.mark.usefixtures("modules")
def test_a_finding_survives_its_line() -> None:
    """What a program prints is what the report reads; what a library prints is refused."""
    from benchmarks.figures import Figure, Missing, read

    for finding in (Figure("1 step, sync", "ms", 1.5, "dbos"), Missing("there is no npm", "restate")):
        assert read(finding.line()) == finding
    for noise in ("up", '["a"]', '{"level": "info"}'):
        with pytest.raises((ValueError, TypeError)):
            read(noise)


@pytest.mark.usefixtures("modules")
def test_a_task_survives_its_argument() -> None:
    """A size is replaced by name, a misspelt one is refused, and a program is given what was asked for."""
    from benchmarks.program import Task, read
    from benchmarks.sizes import QUICK

    size = QUICK.but("sleepers=7 rates=1,2")
    assert (size.sleepers, size.rates, size.samples) == (7, (1, 2), QUICK.samples)
    task = Task("w1", "sqlite", "sqlite:///x.db", size, "/tmp")  # noqa: S108 - no file is made
    assert read(task.written()) == task
    with pytest.raises(ValueError, match="no size 'sleeper'"):
        QUICK.but("sleeper=7")


@pytest.mark.usefixtures("modules")
def test_a_report_takes_medians_and_judges_by_them() -> None:
    """Rounds are summed up by their median; goals are judged against a value, the floor, or a peer."""
    from benchmarks.catalogue import Goal, Workload
    from benchmarks.figures import RATE, Figure, Missing
    from benchmarks.report import Report, cell, written

    workload = Workload("t", "m", goals=(Goal("a", 2, "floor"), Goal("a", 5, "dbos"), Goal("b", 100), Goal("c", 3)))
    report = Report("w", workload, "postgres")
    for ours in (1.0, 9.0, 2.0):
        report.add([Figure("a", "ms", ours), Figure("a", "ms", 1.0, "floor"), Figure("a", "ms", 8.0, "dbos")])
    report.add([Figure("b", RATE, 99.0), Figure("c", "ms", 3.0), Missing("no npm", "x"), Missing("no npm", "x")])
    assert report.subjects == ["floor", "operon", "dbos"]
    assert report.value(("a", "ms"), "operon") == 2.0
    assert cell(8.0, report.ratio(("a", "ms"), "dbos")) == "8 (4x)"
    assert list(report.verdicts(("a", "ms"))) == [("<= 2 x floor", True), (">= 5 x dbos", False)]
    assert list(report.verdicts(("b", RATE))) == [(">= 100", False)]
    assert list(report.verdicts(("c", "ms"))) == [("<= 3", True)]
    assert report.missing == ["x: no npm"]
    assert json.loads(json.dumps(written(report)))["cases"][0]["subjects"]["operon"]["runs"] == [1.0, 9.0, 2.0]


@pytest.mark.usefixtures("modules")
def test_every_workload_has_its_program_and_peers_measure_known_ones() -> None:
    """What the catalogue names is there."""
    from benchmarks.catalogue import MISSING, WORKLOADS
    from benchmarks.peers.environments import PEERS

    for name, workload in WORKLOADS.items():
        program = (ROOT / "benchmarks" / "workloads" / f"{workload.module}.py").read_text("utf-8")
        assert f'"{name}": {name}' in program
    for name, peer in PEERS.items():
        program = (ROOT / "benchmarks" / "peers" / f"{name}.py").read_text("utf-8")
        assert set(peer.workloads) <= set(WORKLOADS)
        assert all(f'"{workload}": ' in program for workload in peer.workloads)
        assert all(set(kinds) <= set(WORKLOADS[each].databases) for each, kinds in peer.workloads.items())
    assert {f"w{number}" for number in range(1, 14)} <= {*WORKLOADS, *MISSING}


@pytest.mark.usefixtures("modules")
def test_a_workload_runs_and_reports(tmp_path: Path) -> None:
    """`python -m benchmarks` measures and writes what it measured; it tells no name of the machine, and no path."""
    output = tmp_path / "report"
    command = ["--quick", "--database", "sqlite", "--size", "samples=2", "--directory", str(tmp_path)]
    done = ran(
        *(sys.executable, "-m", "benchmarks", *command, "--output", str(output), "w1", "w13"),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "packages/operon/src")},
    )
    assert done.returncode == 0, done.stderr
    assert "w13: not measured: messages" in done.stdout
    text = (output / "w1.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    cases = {it["case"]: it["subjects"] for it in found["databases"]["sqlite"]["cases"]}
    assert set(cases) == {f"{steps}, {colour}, p50" for steps in ("1 step", "10 steps") for colour in ("sync", "async")}
    assert all(set(subjects) == {"floor", "operon"} for subjects in cases.values())
    assert found["machine"]["fsync_us"] > 0
    assert str(ROOT) not in text
    assert os.uname().nodename not in text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_keep_the_house_rules(path: Path) -> None:
    """Modules of 500 lines, functions of 60, seven parameters, a docstring each."""
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    assert len(path.read_text("utf-8").splitlines()) <= 500
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([it for it in given if it.arg not in {"self", "cls"}]) <= 7, node.name
