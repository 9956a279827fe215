"""Ask the service from a second process, and see that its ledger adds up.

python examples/asyncio_service/load.py [PORT] [REQUESTS]
"""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from typing import Any

from sklearn.datasets import load_digits

CLIENTS = 8


def ask(port: int, rows: list[Any], count: int) -> list[tuple[int, float, dict[str, Any]]]:
    """Ask one question after the other over one connection: status, seconds, answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "X-Deadline-Ms": "200"}
    found = []
    for i in range(count):
        start = time.perf_counter()
        connection.request("POST", "/predict", json.dumps(rows[i % len(rows)]), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        found.append((response.status, time.perf_counter() - start, answer))
    connection.close()
    return found


def main(port: int, requests: int) -> None:
    """Have several clients ask at once, and print what they met."""
    x, _ = load_digits(return_X_y=True)
    each = requests // CLIENTS
    parts = [x[i::CLIENTS].tolist() for i in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [
            one for part in pool.map(lambda rows: ask(port, rows, each), parts) for one in part
        ]
    good = [(seconds, answer) for status, seconds, answer in answers if status == 200]
    ledgers = [answer["latency"] for _, answer in good]
    for (seconds, _), ledger in zip(good, ledgers, strict=True):
        parts_of = (ledger[part] for part in ("input", "transfer", "compute", "output"))
        if abs(sum(parts_of) - ledger["total"]) > 1e-9 or ledger["total"] > seconds:
            raise SystemExit(f"a ledger does not add up: {ledger}, {seconds} s outside")
    tiers = sorted({answer["tier"] for _, answer in good})
    print(f"{len(good)} of {len(answers)} answered, by {' and '.join(tiers)}")
    seen, inside = ([s for s, _ in good], [ledger["total"] for ledger in ledgers])
    for name, times in (("over HTTP", seen), ("in the router", inside)):
        cuts = quantiles(times, n=100)
        print(f"{name}: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 8765,
        int(sys.argv[2]) if len(sys.argv) > 2 else 2_000,
    )
