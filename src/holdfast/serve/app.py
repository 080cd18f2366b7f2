"""The REST server: what ``Memory`` does, under ``/v1``, for whoever brings a key; the console under ``/``.

Routes only carry words: scope, rights, provenance and the guard are where they always are, beneath ``Memory``. Calls run on
threads, so none waits for another's disk.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

import holdfast
from holdfast.memory import Memory
from holdfast.serve import board, care, health, memories, oversight, streams
from holdfast.serve.calls import Door, JSONResponse, add_problems
from holdfast.serve.console import HEADERS, assets
from holdfast.serve.limits import Limited, Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def create_app(
    memory: Memory,
    owner_key: str,
    *,
    hosts: Collection[str] = (),
    limits: Limits | None = None,
    evidence: Path | None = None,
    durability: str = "full",
    metrics: bool = False,
    traces: bool = False,
) -> FastAPI:
    """The application.

    Args:
        memory: the owner's, opened without a user; the caller closes it.
        owner_key: opens everything.
        hosts: names that the server may be called by, beside this machine's own.
        limits: of one caller.
        evidence: the folder of the claims' reports.
        durability: what ``/readyz`` holds the store to.
        metrics, traces: see ``health``; off unless asked for.

    Raises AccessError for a memory that is not the owner's, InputError, MissingExtraError.
    """
    app = FastAPI(
        title="Holdfast",
        version=holdfast.__version__,
        summary="Memory for agents that can be traced, trusted and taken back.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        default_response_class=JSONResponse,
        generate_unique_id_function=lambda route: route.name,
    )
    door = app.state.door = Door(memory, owner_key)
    add_problems(app)
    # They are tried in turn, so search comes first.
    parts = board.router(evidence), oversight.router(), memories.routes, streams.routes, care.routes, memories.access
    for routes in parts:
        app.include_router(routes, prefix="/v1")
    app.include_router(health.router(memory, durability))
    _console(app)
    registry = health.add_metrics(app) if metrics else None
    if metrics or traces:
        app.add_middleware(health.Metered, registry=registry, tracer=health.tracer() if traces else None)
    names = (*LOOPBACK, *(name.lower() for name in hosts))
    app.add_middleware(Limited, limits=limits or Limits(), hosts=names, named=door.named)
    return app


def _console(app: FastAPI) -> None:
    files = assets()

    def page(name: str) -> Response:
        content, kind = files[name]
        return Response(content, media_type=kind, headers=dict(HEADERS))

    for name in files:
        app.get(f"/{name}", include_in_schema=False)(partial(page, name))
