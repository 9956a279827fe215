"""Virtual time: how a loop that never waits runs, and how it ends."""

import asyncio
import gc
import threading
import warnings

import pytest

from cascade.testing import run_virtual


def test_what_is_left_is_ended_to_its_last_await():
    ended = []

    async def slow_to_end():
        try:
            await asyncio.sleep(1e9)
        finally:
            await asyncio.sleep(1)
            await asyncio.sleep(60)
            ended.append("cleaned up")

    async def main(loop):
        loop.keep = loop.create_task(slow_to_end())
        await asyncio.sleep(1)
        return "done"

    assert run_virtual(main) == "done"
    assert ended == ["cleaned up"]


def test_asynchronous_generators_are_closed():
    ended, kept = [], []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            ended.append("closed")

    async def main(loop):
        kept.append(numbers())
        return await anext(kept[0])

    assert run_virtual(main) == 1
    assert ended == ["closed"]


def test_no_thread_is_waited_for():
    async def main(loop):
        return await asyncio.to_thread(lambda: "from a thread")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_virtual(main) == "from a thread"
        gc.collect()


def test_to_wait_for_what_never_comes_is_an_error():
    async def never(loop):
        loop.patience = 0.01
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"nothing is left to wait for: .* waits: .*\.never$"):
        run_virtual(never)


def test_a_thread_may_wake_the_loop():
    async def main(loop):
        woken, begin = asyncio.Event(), threading.Event()

        def wake():
            begin.wait(60.0)
            loop.call_soon_threadsafe(woken.set)

        threading.Thread(target=wake, daemon=True).start()
        loop.call_soon(begin.set)
        await woken.wait()
        return loop.time()

    assert run_virtual(main) == 1_000.0
