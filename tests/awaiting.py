"""What the tests of the asyncio driver and of its loops share."""

import asyncio

import cascade
from cascade import AsyncRouter, Policy


def tree(small=(), large=(), **more):
    return {
        "version": 1, "name": "p", "deadline": "30s", "cache": {},
        "tiers": [{"name": "small", "kind": "external", **dict(small)},
                  {"name": "large", "kind": "external", **dict(large)}],
        "escalation": {"thresholds": [0.5]}, **more,
    }  # fmt: skip


def pairs(confidence):
    return cascade.tier(lambda x: (x, confidence), returns="pairs", rows="one")


def serve(work, *, policy=None, tiers=None, **options):
    """Run ``work(router)`` in an event loop."""

    async def main():
        policy_ = Policy.from_dict(policy or tree())
        given = {"small": pairs(0.9), "large": pairs(1.0)} if tiers is None else tiers
        async with AsyncRouter(policy_, tiers=given, **options) as router:
            return await work(router)

    return asyncio.run(main())


async def until(condition):
    """Wait for what other threads do."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  they do not know of the loop
            await asyncio.sleep(0.001)
