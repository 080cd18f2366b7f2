"""Whether the server can be relied upon, and how busy it is. Numbers and traces are kept only where they were asked for."""

from __future__ import annotations

import importlib
import time
from threading import Lock
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.errors import HoldfastError, MissingExtraError
from holdfast.memory import Memory

FAILED = 100
"""So many jobs may have failed for good before that is called trouble."""

LOOKED = 5.0
"""For so many seconds an answer holds: a look is a commit, and whoever asks needs no key."""


def troubles(memory: Memory, durability: str) -> list[str]:
    """What would lose memories, or has: each in a line; empty where the store keeps what was asked of it."""
    found = []
    try:
        status = memory.status()
    except HoldfastError as error:
        return [f"the store cannot be read: {error}"]
    if status["durability"] != durability:
        found.append(f"commits are {status['durability']}, and {durability!r} was asked for")
    for task, one in status["backlog"].items():
        if one["failed"] > FAILED:
            found.append(f"{one['failed']:,} memories could not go through {task!r}; see: holdfast status")
    try:
        memory.store.set_meta("seen", str(int(time.time())))  # a commit: a full or failing disk shows here first
    except HoldfastError as error:
        found.append(f"the store cannot be written: {error}")
    return found


def router(memory: Memory, durability: str) -> APIRouter:
    """``/healthz`` and ``/readyz``, which need no key and tell nothing of what is remembered."""
    routes = APIRouter(include_in_schema=False)
    looked: list[tuple[float, list[str]]] = []
    looking = Lock()

    @routes.get("/healthz")
    def alive() -> dict[str, Any]:
        return {"alive": True}

    @routes.get("/readyz")
    def ready() -> Response:
        with looking:
            if not looked or time.monotonic() - looked[0][0] > LOOKED:
                looked[:] = [(time.monotonic(), troubles(memory, durability))]
            wrong = looked[0][1]
        told = {"ready": not wrong, "troubles": wrong}  # what is degraded may quote what somebody said: it needs a key
        return JSONResponse(told, 503 if wrong else 200, {"Cache-Control": "no-store"})

    return routes


class Metered:
    """Counts calls and their times by route, for ``/metrics``; and as spans of OpenTelemetry, where the program set that up.

    Args:
        metrics: needs ``prometheus-client``. traces: needs ``opentelemetry-api``; where spans go is for the program, or the
            environment's OTEL_* variables, to say.
    """

    def __init__(self, app: ASGIApp, registry: Any = None, tracer: Any = None) -> None:
        self._app, self._tracer = app, tracer
        if registry is not None:
            prometheus = _needed("prometheus_client", "prometheus-client")
            names = ["method", "route", "status"]
            self._seconds = prometheus.Histogram(
                "holdfast_request_seconds", "Seconds until the answer began", names, registry=registry
            )
        else:
            self._seconds = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._seconds is not None:
                    self._seconds.labels(scope["method"], _route(scope), status).observe(time.perf_counter() - started)
            await send(message)

        if self._tracer is None:
            return await self._app(scope, receive, watched)
        with self._tracer.start_as_current_span("holdfast.request") as span:
            try:
                return await self._app(scope, receive, watched)
            finally:
                span.update_name(f"{scope['method']} {_route(scope)}")
                span.set_attributes({"http.request.method": scope["method"], "http.response.status_code": status})


def _route(scope: Scope) -> str:
    """The route's pattern: an address itself would name memories and users."""
    return str(getattr(scope.get("route"), "path", "other"))


def add_metrics(app: FastAPI) -> Any:
    """``/metrics`` in Prometheus' words; the registry that ``Metered`` counts in. Raises MissingExtraError."""
    prometheus = _needed("prometheus_client", "prometheus-client")
    registry = prometheus.CollectorRegistry()

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(prometheus.generate_latest(registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    return registry


def tracer() -> Any:
    """The program's own tracer. Raises MissingExtraError."""
    return _needed("opentelemetry.trace", "opentelemetry-api").get_tracer("holdfast")


def _needed(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this needs {package}: pip install {package}") from error
