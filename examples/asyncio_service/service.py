"""A service that answers within each caller's deadline: Starlette, uvicorn, and a bundle.

    pip install "cascade-router[export,serve]"
    python examples/asyncio_service/service.py [BUNDLE]
    python examples/asyncio_service/load.py             # in a second terminal

The header ``X-Deadline-Ms`` says how long the caller is willing to wait. What is wrong with a
request is said with 400 (the header) or 422 (the body); 503 is for later, 504 for too late. Ctrl-C
lets the requests that are under way end, then leaves.
"""

import math
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
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cascade import (
    AsyncRouter,
    CascadeClassifier,
    CascadeError,
    DeadlineExceeded,
    InputTypeError,
    InputValueError,
    Overloaded,
)

PORT = 8765
PIXELS = 64
DEADLINE_MS = 100.0  # for callers who name none


def bundle_at(folder: Path) -> Path:
    """Train and export two tiers for 8 × 8 digits, unless that was done before."""
    if not (folder / "policy.yaml").exists():
        x, y = load_digits(return_X_y=True)
        x, _, y, _ = train_test_split(x, y, test_size=0.2, random_state=0)
        tiers = [("small", LogisticRegression(max_iter=5_000)), ("large", SVC())]
        CascadeClassifier(tiers, max_loss=0.02, random_state=0).fit(x, y).export(folder)
    return folder / "policy.yaml"


def deadline_of(request: Request) -> float:
    """Return how many seconds the caller is willing to wait."""
    given = request.headers.get("X-Deadline-Ms", str(DEADLINE_MS))
    try:
        seconds = float(given) / 1e3
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise HTTPException(400, "X-Deadline-Ms: expected a positive number of milliseconds")
    return seconds


async def row_of(request: Request) -> list[float]:
    """Return the digit that the caller asks about."""
    try:
        row = await request.json()
    except (ValueError, RecursionError):
        row = None
    if not (isinstance(row, list) and all(type(x) in {int, float} for x in row)):
        raise HTTPException(422, f"body: expected a JSON list of {PIXELS} numbers")
    return row


async def predict(request: Request) -> Response:
    """Answer one digit: a JSON list of 64 numbers."""
    received = time.monotonic_ns()  # reading the body counts too
    router: AsyncRouter = request.app.state.router
    try:
        deadline, row = deadline_of(request), await row_of(request)
        outcome = await router.route(row, deadline=deadline, received=received)
    except HTTPException as error:
        return JSONResponse({"error": error.detail}, error.status_code)
    except (InputTypeError, InputValueError) as error:
        return JSONResponse({"error": str(error)}, 422)
    except Overloaded as error:
        later = str(math.ceil(error.retry_after or 1.0))
        return JSONResponse({"error": "overloaded"}, 503, {"Retry-After": later})
    except DeadlineExceeded as error:
        return JSONResponse({"error": str(error)}, 504)
    except CascadeError as error:  # every tier failed, or the router is closing
        return JSONResponse({"error": type(error).__name__}, 503)
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
