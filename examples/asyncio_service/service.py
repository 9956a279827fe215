"""A service that answers within each caller's deadline: Starlette, uvicorn, and a bundle.

    pip install "cascade-router[export,serve]"
    python examples/asyncio_service/service.py [BUNDLE]
    python examples/asyncio_service/load.py             # in a second terminal

The header ``X-Deadline-Ms`` says how long the caller is willing to wait. Ctrl-C lets the requests
that are under way end, then leaves.
"""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cascade import AsyncRouter, CascadeClassifier, DeadlineExceeded, Overloaded

PORT = 8765
DEADLINE_MS = 100.0  # for callers who name none


def bundle_at(folder: Path) -> Path:
    """Train and export two tiers for 8 × 8 digits, unless that was done before."""
    if not (folder / "policy.yaml").exists():
        x, y = load_digits(return_X_y=True)
        x, _, y, _ = train_test_split(x, y, test_size=0.2, random_state=0)
        tiers = [("small", LogisticRegression(max_iter=5_000)), ("large", SVC())]
        CascadeClassifier(tiers, max_loss=0.02, random_state=0).fit(x, y).export(folder)
    return folder / "policy.yaml"


async def predict(request: Request) -> Response:
    """Answer one digit: a JSON list of 64 numbers."""
    received = time.monotonic_ns()  # reading the body counts too
    router: AsyncRouter = request.app.state.router
    deadline = float(request.headers.get("X-Deadline-Ms", DEADLINE_MS)) / 1e3
    try:
        outcome = await router.route(await request.json(), deadline=deadline, received=received)
    except Overloaded as error:
        return JSONResponse({"error": "overloaded"}, 503, {"Retry-After": f"{error.retry_after}"})
    except DeadlineExceeded as error:
        return JSONResponse({"error": str(error)}, 504)
    except (TypeError, ValueError) as error:
        return JSONResponse({"error": str(error)}, 422)
    return JSONResponse(outcome.to_dict())


async def health(request: Request) -> Response:
    """Say whether requests can be served."""
    ready = request.app.state.router.ready
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def metrics(request: Request) -> Response:
    """Return the counters for Prometheus."""
    return PlainTextResponse(request.app.state.router.metrics())


def app(policy: Path) -> Starlette:
    """Build the service; models are opened when it starts and let go when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncRouter.from_yaml(policy) as router:
            app.state.router = router
            yield

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "digits-bundle")
    port = int(sys.argv[2]) if len(sys.argv) > 2 else PORT
    uvicorn.run(app(bundle_at(folder)), port=port, timeout_graceful_shutdown=5, log_level="warning")
