"""Ten times what it can do, over a Unix socket: ``python -m tests.benchmarks.overload [SECONDS]``.

A server process answers frames by an AsyncRouter whose top tier takes 20 ms and releases the
interpreter; this process sends them on a Poisson schedule, whatever comes back (an open loop), and
counts from the intended start.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import cascade

TOP = 0.020  # s per call of the top tier, one worker
DEADLINE = 0.100
CAPACITY = 1 / TOP
OVERLOAD = 10.0
ASK, REPLY = struct.Struct("<I"), struct.Struct("<IBf")
MEMORY = 0xFFFFFFFF
ANSWERED, REFUSED, LATE = range(3)


# -- the server ----------------------------------------------------------------------------------


def policy() -> cascade.Policy:
    return cascade.Policy.from_dict(
        {
            "version": 1, "name": "overload", "deadline": DEADLINE,
            "tiers": [
                {"name": "small", "kind": "external", "execution": "inline"},
                {"name": "large", "kind": "external", "execution": "worker", "workers": 1},
            ],
            "escalation": {"thresholds": [0.5]},
        }
    )  # fmt: skip


def large(x: Any) -> Any:
    time.sleep(TOP)
    return x


async def serve(path: str) -> None:
    """Answer frames until the connection ends."""
    tiers = {
        "small": cascade.tier(lambda x: (x, 0.0), returns="pairs", rows="one"),
        "large": cascade.tier(large, rows="one"),
    }
    over = asyncio.Event()
    async with cascade.AsyncRouter(policy(), tiers=tiers) as router:

        async def answer(number: int, writer: asyncio.StreamWriter) -> None:
            begun, code = time.perf_counter(), ANSWERED
            try:
                outcome = await router.route(number, at_least="large")
                code = ANSWERED if outcome.latency.total <= DEADLINE else LATE
            except cascade.CascadeError as error:
                refused = error.outcome is not None and error.outcome.disposition == "shed"
                code = REFUSED if refused else LATE
            writer.write(REPLY.pack(number, code, time.perf_counter() - begun))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks: set[asyncio.Task[None]] = set()
            try:
                while frame := await reader.read(1 << 16):
                    while len(frame) % ASK.size:
                        frame += await reader.readexactly(ASK.size - len(frame) % ASK.size)
                    for (number,) in ASK.iter_unpack(frame):
                        if number == MEMORY:
                            writer.write(REPLY.pack(MEMORY, 0, resident()))
                            continue
                        task = asyncio.create_task(answer(number, writer))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
            finally:
                over.set()

        server = await asyncio.start_unix_server(connected, path)
        async with server:
            await over.wait()


def resident() -> float:
    """Return this process's resident memory in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


# -- the load ------------------------------------------------------------------------------------


class Client:
    """Sends frames on schedule; notes what came back, when, and how long ``route`` took."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent = 0
        self.codes: dict[int, tuple[int, float, float]] = {}
        self.memory: asyncio.Future[float] | None = None
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            try:
                frame = await self.reader.readexactly(REPLY.size)
            except asyncio.IncompleteReadError:
                return
            number, code, seconds = REPLY.unpack(frame)
            if number == MEMORY:
                assert self.memory is not None
                self.memory.set_result(seconds)
            else:
                self.codes[number] = code, time.perf_counter(), seconds

    async def resident(self) -> float:
        self.memory = asyncio.get_running_loop().create_future()
        self.writer.write(ASK.pack(MEMORY))
        return await self.memory

    async def send(self, times: np.ndarray) -> np.ndarray:
        """Send at these times (s from now); return (intended start, code, reply, in route) rows."""
        first, begun = self.sent, time.perf_counter()
        due = begun + times
        at = 0
        while at < len(due):
            await asyncio.sleep(max(0.0, due[at] - time.perf_counter()))
            upto = int(np.searchsorted(due, time.perf_counter(), side="right"))
            self.writer.write(b"".join(ASK.pack(first + i) for i in range(at, upto)))
            at = upto
        self.sent += len(due)
        await asyncio.sleep(5 * DEADLINE)
        for _ in range(1_000):
            if len(self.codes) == self.sent:
                break
            await asyncio.sleep(0.01)
        rows = [(due[i] - begun, *self.codes[first + i]) for i in range(len(due))]
        found = np.array(rows)
        found[:, 2] -= begun
        return found


def poisson(rate: float, seconds: float, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.sort(chance.random(chance.poisson(rate * seconds)) * seconds)


def told(name: str, found: np.ndarray, seconds: float, more: str = "") -> float:
    """Print a row; return the goodput per second."""
    good = found[found[:, 1] == ANSWERED]
    refused = found[found[:, 1] == REFUSED]
    late = int((found[:, 1] == LATE).sum())
    goodput = len(good) / seconds
    p99 = f"{np.quantile(good[:, 3], 0.99) * 1e3:.0f}" if len(good) else ""
    shed = f"{np.quantile(refused[:, 3], 0.99) * 1e3:.2f}" if len(refused) else ""
    shares = f"{len(refused) / len(found):.0%} | {late}"
    print(
        f"| {name} | {len(found)} | {goodput:.1f} | {shares} | {p99} | {shed} | {more} |",
        flush=True,
    )
    return goodput


def settled(found: np.ndarray) -> float:
    """Return from when on (s) every half second's p99 (from the intended start) is in time."""
    last = 0.0
    for begin in np.arange(0.0, found[:, 0].max(), 0.5):
        part = found[(found[:, 0] >= begin) & (found[:, 0] < begin + 0.5)]
        good = part[part[:, 1] == ANSWERED]
        slow = len(good) and np.quantile(good[:, 2] - good[:, 0], 0.99) > DEADLINE
        if slow or (part[:, 1] != ANSWERED).mean() > 0.01:
            last = float(begin) + 0.5
    return last


async def drive(client: Client, seconds: float) -> None:
    columns = (
        "load | requests | goodput, 1/s | refused | late | p99 admitted, ms | p99 refusing, ms"
    )
    print(f"| {columns} | |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    await client.send(poisson(CAPACITY, 5.0, 0))  # warm-up
    peak = 0.0
    for i, load in enumerate((0.5, 0.8, 1.0, 1.3, 2.0)):
        found = await client.send(poisson(load * CAPACITY, 10.0, i))
        peak = max(peak, told(f"{load:g} ×", found, 10.0))
    before = await client.resident()
    found = await client.send(
        np.concatenate([
            poisson(OVERLOAD * CAPACITY, seconds, 7),
            seconds + poisson(0.3 * CAPACITY, 10.0, 8),
        ])
    )  # fmt: skip
    after = await client.resident()
    heavy, light = found[found[:, 0] < seconds], found[found[:, 0] >= seconds].copy()
    light[:, [0, 2]] -= seconds
    goodput = told(
        f"{OVERLOAD:g} × for {seconds:g} s", heavy, seconds, f"memory {after - before:+.1f} MB"
    )
    told("then 0.3 ×", light, 10.0, f"normal after {settled(light):.1f} s")
    print(f"\ngoodput under overload ÷ peak: {goodput / peak:.2f}\n")
    burst = np.concatenate([np.zeros(10_000), poisson(0.3 * CAPACITY, 10.0, 9)])
    before = await client.resident()
    found = await client.send(np.sort(burst))
    after = await client.resident()
    told("10,000 at once", found[:10_000], 1.0, f"memory {after - before:+.1f} MB")
    told("then 0.3 ×", found[10_000:], 10.0, f"normal after {settled(found[10_000:]):.1f} s")


async def call(path: str, seconds: float) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    client = Client(reader, writer)
    try:
        await drive(client, seconds)
    finally:
        writer.close()
        client.task.cancel()
        await writer.wait_closed()


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        command = [sys.executable, "-m", "tests.benchmarks.overload", "--serve", str(path)]
        server = subprocess.Popen(command)
        while not path.exists():
            time.sleep(0.05)
        asyncio.run(call(str(path), seconds))
        server.wait(20)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
