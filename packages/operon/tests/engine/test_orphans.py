"""A loop that its owner closes while the app is launched: what was to end on it ends elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import operon
from children import PATIENCE, eventually
from engine.conftest import MakeApp
from operon import Operon, aio
from operon.core.commands import Load
from operon.core.rows import Kind
from operon.errors import Cancelled, NotInWorkflow

Starting = Callable[[asyncio.AbstractEventLoop, Any, asyncio.Event], None]


def notice(app: Operon) -> None:
    """Have an app, whose lease is so long that no other takes over from it, look at its loop now."""
    engine: Any = app._engine
    engine.service.beat()


def begun(loop: asyncio.AbstractEventLoop, flow: Any, began: asyncio.Event) -> None:
    """Its body waits for something when the loop is closed."""

    async def main() -> None:
        await aio.start(flow.using(key="w"))
        await asyncio.wait_for(began.wait(), PATIENCE)

    loop.run_until_complete(main())


def awaited(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """It is started by the last thing that the loop does."""
    loop.run_until_complete(aio.start(flow.using(key="w")))


def blocking(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """It is started on a thread, while the loop does nothing any more, and is not closed yet."""
    assert not loop.is_closed()
    operon.start(flow.using(key="w"))


def too_late(loop: asyncio.AbstractEventLoop, flow: Any, _: asyncio.Event) -> None:
    """The loop is closed between the place that is taken and the run."""
    engine = flow.host
    spawn = engine.spawn

    def closing(*args: Any, **kwargs: Any) -> Any:
        loop.close()
        return spawn(*args, **kwargs)

    engine.spawn = closing
    operon.start(flow.using(key="w"))


@pytest.mark.parametrize("starting", [begun, awaited, blocking, too_late], ids=lambda starting: starting.__name__)
def test_what_a_closed_loop_was_to_run_is_run_elsewhere(make: MakeApp, starting: Starting) -> None:
    """No row is left running in a process that does not run it, though that lives and renews its lease."""
    began = asyncio.Event()

    def declared(app: Operon, *, hangs: bool) -> Any:
        @app.workflow
        async def flow() -> str:
            if hangs:
                began.set()
                await asyncio.Event().wait()
            return "elsewhere"

        return flow

    here, elsewhere = make(lease=600), make()
    flow, other = declared(here, hangs=True), declared(elsewhere, hangs=False)
    loop = asyncio.SelectorEventLoop()
    loop.run_until_complete(here.__aenter__())
    starting(loop, flow, began)
    loop.close()
    engine: Any = here._engine
    notice(here)
    with elsewhere:
        assert operon.retrieve("w", other).result(PATIENCE) == "elsewhere"
    assert not engine.runs.claims()
    assert not engine.runs


@pytest.mark.parametrize("where", ["step", "body", "sleep", "task"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "async"])
def test_what_a_closed_loop_has_left_is_collected_in_another_body_which_is_none_the_worse(
    make: MakeApp, where: str, *, asynchronous: bool
) -> None:
    """A coroutine is closed wherever it is collected: that is not the place of its own body, and stays what it is."""
    here, elsewhere = make("here", lease=60, grace=30), make("elsewhere")
    began, loop = asyncio.Event(), asyncio.SelectorEventLoop()

    @here.step
    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    @here.workflow
    async def left() -> None:
        if where == "step":
            await hang()
        elif where == "task":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(hang())
                tasks.create_task(aio.sleep(20))
        began.set()
        await (aio.sleep(20) if where == "sleep" else asyncio.Event().wait())

    @elsewhere.step
    def note(what: str) -> str:
        return what

    def collect() -> None:
        for task in tasks:
            task.get_coro().close()

    def blocking() -> tuple[str, str, str]:
        collect()
        return note("a"), operon.context().workflow_id or "", note("b")

    async def awaited() -> tuple[str, str, str]:
        collect()
        return await aio.call(note, "a"), operon.context().workflow_id or "", await aio.call(note, "b")

    flow: Any = elsewhere.workflow(name="flow")(awaited if asynchronous else blocking)
    loop.run_until_complete(here.__aenter__())
    begun(loop, left, began)
    loop.close()
    engine: Any = here._engine
    tasks = {*engine.loop._tasks, *engine.runs["w"].tasks}
    with elsewhere:
        assert operon.start(flow.using(key="other")).result(PATIENCE) == ("a", "other", "b")
        journal = engine.store.ask(Load("other"))
    assert [entry.output for entry in journal if entry.kind is Kind.STEP] == ['"a"', '"b"']


def test_what_a_body_does_as_its_loop_is_closed_is_done_in_nobodys_name(make: MakeApp) -> None:
    """It is refused, as what cannot be recorded: neither another workflow nor nobody would have done it."""
    began, refused, undone = asyncio.Event(), list[str](), list[str]()
    loop = asyncio.SelectorEventLoop()

    def declared(app: Operon, *, hangs: bool) -> Any:
        @app.step
        async def undo() -> None:
            undone.append("undo")

        async def part() -> None:
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                try:
                    await undo()
                except NotInWorkflow as error:
                    refused.append(str(error))

        @app.workflow
        async def flow() -> str:
            if hangs:
                began.set()
                await asyncio.gather(part(), part())
            return "elsewhere"

        return flow

    here, elsewhere = make(lease=600), make()
    flow, other = declared(here, hangs=True), declared(elsewhere, hangs=False)
    loop.run_until_complete(here.__aenter__())
    begun(loop, flow, began)
    loop.close()
    notice(here)
    with elsewhere:
        assert operon.retrieve("w", other).result(PATIENCE) == "elsewhere"
    assert not undone
    assert len(refused) == 2
    assert "after its event loop was closed" in refused[0]


@pytest.mark.parametrize("begins", [False, True], ids=["before it begins", "as it waits"])
def test_a_clean_up_whose_loop_is_closed_is_begun_anew_elsewhere(make: MakeApp, *, begins: bool) -> None:
    """Its place is free again at once; another process begins as soon as this one is gone."""
    began, heard, loop = asyncio.Event(), threading.Event(), asyncio.SelectorEventLoop()

    def declared(app: Operon, *, hangs: bool) -> Any:
        @app.workflow
        async def flow() -> None:
            try:
                began.set()
                await aio.sleep(3600)
            except Cancelled:
                if not hangs:
                    heard.set()
                    raise
                began.set()
                await asyncio.Event().wait()

        return flow

    here, elsewhere = make(), make()
    flow, _ = declared(here, hangs=True), declared(elsewhere, hangs=False)
    loop.run_until_complete(here.__aenter__())
    begun(loop, flow, began)
    engine: Any = here._engine
    while engine.runs:
        loop.run_until_complete(asyncio.sleep(0.001))
    began.clear()
    operon.cancel("w")
    if begins:
        loop.run_until_complete(asyncio.wait_for(began.wait(), PATIENCE))
    else:
        eventually(lambda: engine.cleaning)
    loop.close()
    eventually(lambda: not engine.cleaning)
    eventually(lambda: engine.places._taken == {False: 0, True: 0})
    here.close()
    with elsewhere:
        assert heard.wait(PATIENCE)


def test_who_waits_for_a_loop_that_does_not_run_is_told(make: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """As in a blocking test whose fixture has launched the app: it cannot be known here whether the loop goes on."""
    app, loop = make(lease=1), asyncio.SelectorEventLoop()

    @app.workflow
    async def flow() -> str:
        return "done"

    loop.run_until_complete(app.__aenter__())
    handle = operon.start(flow)
    eventually(lambda: any("wait for it (1)" in record.getMessage() for record in caplog.records))

    async def result() -> str:
        return await handle

    assert loop.run_until_complete(asyncio.wait_for(result(), PATIENCE)) == "done"
    loop.run_until_complete(app.__aexit__(None, None, None))
    loop.close()
    assert len([record for record in caplog.records if "does not run" in record.getMessage()]) == 1
