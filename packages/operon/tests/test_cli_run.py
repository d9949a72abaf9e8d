"""`operon run` and `operon dev`: they serve, they stop in order, and no child is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from children import PATIENCE, eventually, ran
from operon.embedded.child import descendants
from terminal import Project, fetch, free_port

APP = """
import os
from operon import Operon, sleep

app = Operon("served")

@app.step
def hold(fifo: str) -> str:
    print("holding", flush=True)
    with open(fifo) as end:
        return end.read()

@app.post("/hold")
@app.workflow
def held(fifo: str) -> str:
    return hold(fifo)

@app.get("/pid")
def pid() -> int:
    return os.getpid()

@app.post("/greet")
@app.workflow
def greet(name: str) -> str:
    return f"Hello, {name}!"
"""
UP = "● served"
FILL = """
from app import app, greet
from operon import enqueue

app.launch(run=False)
enqueue("reports", greet.using(key="report"), "Ada")
enqueue("mails", greet.using(key="mail"), "Ada")
app.close()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("app.py", APP)
    os.mkfifo(tmp_path / "fifo")
    return project


def status(project: Project, workflow: str) -> str:
    return str(json.loads(project.operon("workflows", "show", workflow, "--json").stdout)["status"])


def test_run_serves_and_stops(project: Project) -> None:
    port = free_port()
    with project.start("run", PORT=str(port)) as server:
        assert f"http://127.0.0.1:{port}" in server.until(UP)
        answer = fetch(f"http://127.0.0.1:{port}/greet?name=Ada", "POST", {"Idempotency-Key": "k"})
        assert answer == (200, '"Hello, Ada!"')
        taken = project.operon("run", "--port", str(port))
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert "--port" in taken.stderr
        assert server.ends(signal.SIGTERM) == 0


@pytest.mark.parametrize("http", [True, False])
def test_sigterm_drains(project: Project, http: bool) -> None:
    """What runs when SIGTERM comes is let to its end, and recorded, before the process ends."""
    port = free_port()
    with project.start("run", "--port", str(port), "--http" if http else "--no-http") as server:
        server.until(UP)
        assert project.operon("workflows", "start", "held", f"fifo={project.directory / 'fifo'}", "--key", "k").stdout
        server.until("holding")
        server.child.signal(signal.SIGTERM)
        (project.directory / "fifo").write_text("done")
        assert server.ends() == 0
    assert status(project, "k") == "succeeded"


@pytest.mark.parametrize("http", [True, False])
def test_sigterm_ends_a_process_that_hangs(project: Project, http: bool) -> None:
    """A thread of the user's that never ends would keep the interpreter for ever."""
    port = str(free_port())
    project.write("app.py", f"{APP}\nimport threading\nthreading.Thread(target=threading.Event().wait).start()\n")
    how = ("--http", "--port", port) if http else ("--no-http",)
    with project.start("run", *how, "--drain", "0.1") as server:
        server.until(UP)
        assert server.ends(signal.SIGTERM) == 128 + signal.SIGTERM


def test_second_sigterm_exits_at_once(project: Project) -> None:
    """The second signal does not wait for anything; the workflow is the next process's."""
    with project.start("run", "--no-http") as server:
        server.until(UP)
        assert project.operon("workflows", "start", "held", f"fifo={project.directory / 'fifo'}", "--key", "k").stdout
        server.until("holding")
        server.child.signal(signal.SIGTERM)
        server.until("Stopping")
        assert server.ends(signal.SIGTERM) == 128 + signal.SIGTERM
    with project.start("run", "--no-http") as server:
        server.until("holding", times=2)
        (project.directory / "fifo").write_text("done")
        eventually(lambda: status(project, "k") == "succeeded", "it ended")


def test_paused_serves_and_runs_nothing(project: Project) -> None:
    port = free_port()
    with project.start("run", "--paused", "--port", str(port)) as server:
        assert "paused" in server.until(UP)
        headers = {"Prefer": "respond-async"}
        assert fetch(f"http://127.0.0.1:{port}/greet?name=Ada", "POST", headers)[0] == 202
        (row,) = json.loads(project.operon("workflows", "list", "--json").stdout)
        assert row["status"] == "queued"


def test_a_process_runs_the_queues_it_is_told_to_and_no_others(project: Project) -> None:
    project.write("app.py", f"{APP}\nmails = app.queue('mails')\nreports = app.queue('reports')\n")
    project.write("fill.py", FILL)
    with project.start("run", "--no-http", "--queues", "mails") as server:
        assert "mails" in server.until(UP)
        ran(sys.executable, "fill.py", cwd=project.directory, env=project.environment, check=True)
        eventually(lambda: status(project, "mail") == "succeeded", "the mail is sent")
        assert status(project, "report") == "queued"
        assert server.ends(signal.SIGTERM) == 0
    unknown = project.operon("run", "--no-http", "--queues", "mials")
    assert unknown.returncode == 1
    assert "no queue 'mials' to run; it has mails, reports." in unknown.stderr


def test_workers_share_the_port_and_the_dead_are_replaced(project: Project, postgres_url: str) -> None:
    """Two processes answer; one that is killed is replaced; SIGTERM ends all, and SIGKILL of the parent too."""
    port = free_port()
    for end in (signal.SIGTERM, signal.SIGKILL):
        with project.start("run", "--workers", "2", "--port", str(port), DATABASE_URL=postgres_url) as server:
            server.until(UP, times=2 if end == signal.SIGTERM else 5)
            workers = [psutil.Process(pid) for pid in descendants(server.child.pid)]
            assert len(workers) == 2
            if end == signal.SIGTERM:
                workers[0].kill()
                server.until(UP, times=3)
                workers = [psutil.Process(pid) for pid in descendants(server.child.pid)]
                assert len(workers) == 2
            assert int(fetch(f"http://127.0.0.1:{port}/pid")[1]) in {worker.pid for worker in workers}
            assert server.ends(end) == (0 if end == signal.SIGTERM else -signal.SIGKILL)
            assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_workers_that_cannot_start_end_the_command(project: Project) -> None:
    project.write("app.py", "1 / 0")
    ended = project.operon("run", "--workers", "2", "--port", str(free_port()))
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr


def test_dev_serves_what_the_files_say_now(project: Project) -> None:
    """A change is served without a command, a mistake is told, and mended by the next change."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/greet?name=Ada"
    with project.start("dev", "--port", str(port)) as server:
        server.until(UP)
        assert fetch(url, "POST")[1] == '"Hello, Ada!"'
        project.write("app.py", APP.replace("Hello", "Howdy"))
        server.until(UP, times=2)
        assert fetch(url, "POST")[1] == '"Howdy, Ada!"'
        project.write("app.py", "1 / 0")
        server.until("ZeroDivisionError")
        project.write("app.py", APP)
        server.until(UP, times=3)
        assert fetch(url, "POST")[1] == '"Hello, Ada!"'
        assert server.ends(signal.SIGINT) == 0


def test_dev_on_the_embedded_postgres(project: Project) -> None:
    """The server is this command's: it is there while it runs, and its data the next time."""
    directory = project.directory / "postgres"
    port = free_port()
    for times in (1, 2):
        with project.start(
            "dev", "--postgres", "--port", str(port), OPERON_POSTGRES_DIRECTORY=str(directory)
        ) as server:
            assert "postgresql://" in server.until(UP, times)
            answer = fetch(f"http://127.0.0.1:{port}/greet?name=Ada", "POST", {"Idempotency-Key": "k"})
            assert answer == (200, '"Hello, Ada!"')
            assert server.ends(signal.SIGTERM) == 0
            assert project.operon("postgres", "url", "--directory", str(directory)).returncode == 1


def test_postgres_runs_on_in_the_background(project: Project) -> None:
    directory = ("--directory", str(project.directory / "postgres"))
    started = project.operon("postgres", "start", *directory)
    try:
        assert started.stdout.startswith("postgresql://")
        assert project.operon("postgres", "url", *directory).stdout == started.stdout
        assert project.operon("migrate", "--database", started.stdout.strip()).returncode == 0
    finally:
        assert project.operon("postgres", "stop", *directory).stdout == "Stopped.\n"
    assert project.operon("postgres", "url", *directory).returncode == 1


@pytest.mark.parametrize("full", [False, True], ids=["gone", "asleep"])
@pytest.mark.parametrize("ends", [True, False], ids=["in order", "never"])
def test_a_signal_is_heeded_though_nobody_reads_stderr(*, full: bool, ends: bool) -> None:
    """As behind `| head -1`, or with a shipper of logs that has died, or hangs."""
    reader, writer = os.pipe()
    if full:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            filled = 0
            while True:
                filled += os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
    else:
        os.close(reader)
    how = f"asked.set, {PATIENCE}" if ends else "lambda: None, 0.0"
    code = (
        "import os, signal, threading; from operon.cli.serving import heed; asked = threading.Event(); "
        f"heed({how}); os.kill(os.getpid(), signal.SIGTERM); asked.wait({PATIENCE}); os._exit(0)"
    )
    try:
        child = ran(sys.executable, "-c", code, stderr=writer)
    finally:
        os.close(writer)
        if full:
            os.close(reader)
    assert child.returncode == (0 if ends else 128 + signal.SIGTERM)
