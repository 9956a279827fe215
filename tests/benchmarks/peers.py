"""One request to an instant model, beside other libraries: ``python -m tests.benchmarks.peers``.

Each is installed by whoever wants its row: batched, litellm, cascadeflow, ray[serve], bentoml. They
do other things besides, and the table says which: it shows what a hop, a window or a log record
costs, not who is better.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

Ask = Callable[[int], Awaitable[Any]]
Peer = Callable[[], AbstractAsyncContextManager[Ask]]

CALLS = 200
ROUNDS = 5


@asynccontextmanager
async def inline() -> AsyncIterator[Ask]:
    """An instant tier in the event loop."""
    async with _router("inline") as ask:
        yield ask


@asynccontextmanager
async def worker() -> AsyncIterator[Ask]:
    """An instant tier on a worker thread."""
    async with _router("worker") as ask:
        yield ask


@asynccontextmanager
async def _router(execution: str) -> AsyncIterator[Ask]:
    from cascade import AsyncRouter, Policy, tier

    tiers = [
        {"name": "small", "kind": "external", "execution": execution},
        {"name": "large", "kind": "external"},
    ]
    tree = {
        "version": 1, "name": "peers", "deadline": "1s", "tiers": tiers,
        "escalation": {"thresholds": [0.5]},
    }  # fmt: skip
    instant = tier(lambda x: (x, 0.9), returns="pairs", rows="one")
    policy = Policy.from_dict(tree)
    async with AsyncRouter(policy, tiers={"small": instant, "large": list}) as router:
        yield router.route


@asynccontextmanager
async def batched() -> AsyncIterator[Ask]:
    """Batched's dynamic batching, as it comes."""
    import batched

    def instant(xs: list[int]) -> list[int]:
        return xs

    yield batched.aio.dynamically(instant)


@asynccontextmanager
async def litellm() -> AsyncIterator[Ask]:
    """LiteLLM's router with a mocked response."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    settings = {"model": "openai/gpt-4o", "api_key": "none", "mock_response": "yes"}
    router = litellm.Router(model_list=[{"model_name": "m", "litellm_params": settings}])

    async def ask(i: int) -> Any:
        return await router.acompletion(model="m", messages=[{"role": "user", "content": str(i)}])

    yield ask


@asynccontextmanager
async def cascadeflow() -> AsyncIterator[Ask]:
    """A cascadeflow agent over a provider that answers at once."""
    os.environ.setdefault("OPENAI_API_KEY", "none")
    from cascadeflow import CascadeAgent, ModelConfig
    from cascadeflow.providers.base import ModelResponse
    from cascadeflow.providers.openai import OpenAIProvider

    class Instant(OpenAIProvider):
        async def complete(self, prompt: str, model: str = "", **_: Any) -> Any:
            return ModelResponse(
                content=f"The answer to {prompt} is certainly yes, and that is all.",
                model=model, provider="openai", cost=0.0, tokens_used=9, confidence=0.99,
                latency_ms=0.0,
            )  # fmt: skip

    models = [ModelConfig(name=name, provider="openai", cost=c) for name, c in _TWO]
    agent = CascadeAgent(models)
    agent.providers = dict.fromkeys(agent.providers, Instant())

    async def ask(i: int) -> Any:
        return await agent.run(f"Is {i} a number?")

    yield ask


_TWO = (("gpt-4o-mini", 0.001), ("gpt-4o", 0.01))


@asynccontextmanager
async def ray_serve() -> AsyncIterator[Ask]:
    """A handle of Ray Serve on the same machine."""
    import ray
    from ray import serve

    @serve.deployment
    class Instant:
        async def __call__(self, x: int) -> int:
            return x

    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    handle = serve.run(Instant.bind(), route_prefix=None)
    try:
        yield handle.remote
    finally:
        serve.shutdown()
        ray.shutdown()


@asynccontextmanager
async def bentoml() -> AsyncIterator[Ask]:
    """A BentoML service over HTTP, as it is served."""
    from bentoml import AsyncHTTPClient  # since 1.2

    code = """
        import bentoml

        @bentoml.service
        class Instant:
            @bentoml.api
            async def predict(self, x: int) -> int:
                return x
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        (Path(folder) / "service.py").write_text(textwrap.dedent(code))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = subprocess.Popen(  # noqa: ASYNC220  before anything else runs
            [sys.executable, "-m", "bentoml", "serve", "service:Instant", "--port", str(port)],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with AsyncHTTPClient(
                f"http://127.0.0.1:{port}", server_ready_timeout=60
            ) as client:
                yield lambda i: client.predict(x=i)
        finally:
            server.terminate()
            server.wait()


PEERS: dict[str, tuple[Peer, str]] = {
    "cascade, inline": (inline, "decision, ledger, deadline; nothing leaves the loop"),
    "cascade, worker": (worker, "the same, off-loaded to a thread"),
    "batched": (batched, "waits for a window to fill"),
    "LiteLLM router": (litellm, "retries, fallbacks, cost tracking, callbacks"),
    "cascadeflow": (cascadeflow, "drafts, judges the text's quality, tracks cost"),
    "Ray Serve handle": (ray_serve, "another process, replicas, a cluster"),
    "BentoML": (bentoml, "HTTP, another process, adaptive batching"),
}


async def measure(peer: Peer) -> float:
    """Return the p50 in µs of one request after the other, the median of several rounds."""
    rounds = []
    async with peer() as ask:
        for i in range(20):
            await ask(i)
        for _ in range(ROUNDS):
            times = []
            for i in range(CALLS):
                start = time.perf_counter_ns()
                await ask(i)
                times.append(time.perf_counter_ns() - start)
            rounds.append(median(times) / 1e3)
    return median(rounds)


def main() -> None:
    """Print a row for each that is installed."""
    logging.disable(logging.CRITICAL)
    print("| an instant model behind | p50, µs | what it does besides |\n|---|---:|---|")
    for name, (peer, besides) in PEERS.items():
        with contextlib.suppress(ImportError):
            print(f"| {name} | {asyncio.run(measure(peer)):,.0f} | {besides} |", flush=True)


if __name__ == "__main__":
    main()
