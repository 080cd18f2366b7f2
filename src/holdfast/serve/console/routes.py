"""The addresses that the console asks, as a router of FastAPI: thin words around ``Memory``, and the console's own files.

Who calls is known by a key in the header ``Authorization: Bearer``; what that key may do is checked in the store, at every call.
"""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from holdfast.cube import Cube, Scope
from holdfast.errors import (
    AccessError,
    ConflictError,
    GuardError,
    HoldfastError,
    InputError,
    MissingExtraError,
    NotFoundError,
    ScopeError,
)
from holdfast.memory import Change, Memory
from holdfast.serve.console import HEADERS, assets
from holdfast.store.base import Action, Event

try:
    from fastapi import APIRouter, Body, Depends, FastAPI, Header, Query, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse, Response, StreamingResponse
except ImportError as error:
    raise MissingExtraError("the console needs the extra: pip install 'holdfast[serve]'") from error

Opened = Callable[[str | None], Memory]
"""The memory as the holder of a key sees it; raises AccessError for a key that opens nothing, or where one is needed."""

_BEAT = 1.0  # seconds between two looks at the status
_WINDOW = 512  # events that are read at once, looking backwards
_STATUS = {
    AccessError: 403,
    ScopeError: 403,
    InputError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    GuardError: 409,
}


def mount(app: FastAPI, opened: Opened, *, evidence: Path | None = None) -> None:
    """Serve the console's files under ``/`` and what it asks under ``/v1``. ``evidence``: the folder of the claims' reports."""
    files = assets()

    def page(name: str) -> Response:
        if name not in files:
            return JSONResponse({"detail": "there is nothing here"}, 404, dict(HEADERS))
        content, kind = files[name]
        return Response(content, media_type=kind, headers=dict(HEADERS))

    app.include_router(router(opened, evidence), prefix="/v1")
    app.add_exception_handler(HoldfastError, _refused)
    for name in files:
        app.get(f"/{name}", include_in_schema=False)(partial(page, name))


def _refused(_: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    if getattr(error, "unknown_key", False):
        status = 401
    return JSONResponse({"detail": str(error)}, status, {"Cache-Control": "no-store"})


def router(opened: Opened, evidence: Path | None = None) -> APIRouter:
    """The routes themselves."""
    routes = APIRouter(tags=["console"])

    def memory_of(authorization: Annotated[str | None, Header()] = None) -> Memory:
        kind, _, key = (authorization or "").partition(" ")
        try:
            return opened(key.strip() if kind.lower() == "bearer" and key.strip() else None)
        except AccessError as error:
            error.unknown_key = True  # type: ignore[attr-defined]
            raise

    def scope_of(
        user: str, tenant: str = "default", agent: str | None = None, session: str | None = None
    ) -> dict[str, str | None]:
        return {"tenant": tenant, "user": user, "agent": agent, "session": session}

    Held = Annotated[Memory, Depends(memory_of)]
    Where = Annotated[dict[str, Any], Depends(scope_of)]

    @routes.post("/search")
    def search(
        memory: Held,
        scope: Where,
        query: Annotated[str, Body()],
        k: Annotated[int, Body()] = 10,
        kinds: Annotated[list[str], Body()] = [],  # noqa: B006  (read, never changed)
        as_of: Annotated[str | None, Body()] = None,
    ) -> dict[str, Any]:
        view = memory.as_of(as_of) if as_of else memory
        hits = view.search(query, k=min(k, 200), kinds=kinds, **scope)
        told = [hit.to_dict() for hit in hits]
        return {"hits": told, "abstain": hits.abstain, "reason": hits.reason, "degraded": list(hits.degraded)}

    @routes.get("/timeline")
    def timeline(
        memory: Held,
        scope: Where,
        known: str | None = None,
        true_at: str | None = None,
        kind: Annotated[list[str], Query()] = [],  # noqa: B006
        limit: int = 100,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        page = memory.page(limit=limit, after=cursor, known=known, true_at=true_at, kinds=kind, **scope)
        return {"memories": [_short(cube) for cube in page.cubes], "total": page.total, "next": page.next}

    @routes.get("/timeline/range")
    def reach(memory: Held, scope: Where) -> dict[str, Any]:
        page = memory.page(limit=1, **scope)
        return {"first": _iso(page.first), "last": _iso(page.last), "total": page.total}

    @routes.get("/memories/{id}")
    def get(memory: Held, scope: Where, id: str, version: int | None = None) -> dict[str, Any]:
        return memory.get(id, version=version, **scope).to_dict()

    @routes.get("/memories/{id}/history")
    def history(memory: Held, scope: Where, id: str) -> dict[str, Any]:
        return {"changes": [_change(one) for one in memory.history(id, **scope)]}

    @routes.get("/memories/{id}/lineage")
    def lineage(memory: Held, scope: Where, id: str) -> dict[str, Any]:
        cube = memory.get(id, **scope)
        home = Scope(cube.scope.tenant, cube.scope.user)
        up = memory.store.several([ref.id for ref in memory.lineage(id, down=False, **scope)], home)
        down = memory.store.several([ref.id for ref in memory.lineage(id, **scope)], home)
        return {"derived_from": _far(cube, up, up_=True), "derived": _far(cube, down, up_=False)}

    @routes.post("/memories/{id}/{what}")
    def act(
        memory: Held,
        scope: Where,
        id: str,
        what: str,
        reason: Annotated[str, Body()] = "",
        text: Annotated[str | None, Body()] = None,
    ) -> dict[str, Any]:
        if what == "correct":
            return memory.correct(id, text or "", reason=reason, **scope).to_dict()
        if what == "retract":
            memory.retract(id, reason=reason, **scope)
            return memory.get(id, **scope).to_dict()
        if what in ("restore", "freeze", "thaw", "approve", "reject"):
            changed: Cube = getattr(memory, what)(id, reason=reason, **scope)
            return changed.to_dict()
        raise NotFoundError(f"a memory cannot be asked to {what!r}")

    @routes.post("/forget")
    def forget(
        memory: Held,
        scope: Where,
        ids: Annotated[list[str], Body()] = [],  # noqa: B006
        source: Annotated[str | None, Body()] = None,
        reason: Annotated[str, Body()] = "",
        dry_run: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        done = memory.forget(ids, source=source, reason=reason, dry_run=dry_run, **scope)
        told = done.to_dict()
        if dry_run:
            return {**told, "preview": list(done.preview)}
        try:
            done.verify()
        except HoldfastError as error:
            return {**told, "verified": False, "problem": str(error)}
        return {**told, "verified": True}

    @routes.post("/revoke")
    def revoke(
        memory: Held,
        scope: Where,
        source: Annotated[str | None, Body()] = None,
        author: Annotated[str | None, Body()] = None,
        reason: Annotated[str, Body()] = "",
        dry_run: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        done = memory.revoke(source=source, author=author, reason=reason, dry_run=dry_run, **scope)
        return {**done.to_dict(), "diff": list(done.diff)}

    @routes.post("/undo")
    def undo(memory: Held, scope: Where, seq: Annotated[int, Body(embed=True)]) -> dict[str, Any]:
        return {"memories": [cube.to_dict() for cube in memory.undo(seq, **scope)]}

    @routes.get("/quarantine")
    def quarantine(memory: Held, scope: Where) -> dict[str, Any]:
        waiting = []
        for cube in memory.quarantined(**scope):
            events = [one.event for one in memory.history(cube.id, **scope)]
            reason = next((event.reason for event in reversed(events) if event.reason), "")
            waiting.append({"memory": cube.to_dict(), "reason": reason})
        return {"waiting": waiting}

    @routes.get("/audit")
    def audit(
        memory: Held, scope: Where, before: int | None = None, action: str | None = None, limit: int = 100
    ) -> dict[str, Any]:
        home = memory.scope(**scope)
        found = list(_backwards(memory, home, before, action, min(max(limit, 1), 1000) + 1))
        more = len(found) > limit
        return {"events": [_event(event) for event in found[:limit]], "next": found[limit - 1].seq if more else None}

    @routes.post("/verify")
    def verify(memory: Held) -> dict[str, Any]:
        return {"problems": [str(problem) for problem in memory.verify()]}

    @routes.get("/status")
    def status(memory: Held, scope: Where) -> dict[str, Any]:
        return _status(memory, scope)

    @routes.get("/events")
    async def events(request: Request, memory: Held, scope: Where) -> Response:
        await run_in_threadpool(_status, memory, scope)  # what is refused is refused before a stream begins

        async def beat() -> AsyncIterator[str]:
            before = ""
            while not await request.is_disconnected():
                try:
                    now = json.dumps(await run_in_threadpool(_status, memory, scope))
                except HoldfastError:
                    return
                yield f"event: status\ndata: {now}\n\n" if now != before else ": still here\n\n"
                before = now
                await asyncio.sleep(_BEAT)

        return StreamingResponse(beat(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @routes.get("/claims")
    def claims(_: Held) -> dict[str, Any]:
        if evidence is None:
            return {"claims": []}
        rows: Sequence[Any] = importlib.import_module("holdfast.claims.runner").list_claims(evidence)
        paper = importlib.import_module("holdfast.claims.catalogue").paper
        return {"claims": [{**row.to_dict(), "title": paper(row.number).title} for row in rows]}

    @routes.get("/claims/{number}")
    def claim(_: Held, number: int) -> Any:
        return json.loads(_report(evidence, number, ".json").read_text("utf-8"))

    @routes.get("/claims/{number}/plot")
    def plot(_: Held, number: int) -> Response:
        return Response(_report(evidence, number, ".png").read_bytes(), media_type="image/png")

    return routes


def _report(evidence: Path | None, number: int, ending: str) -> Path:
    if evidence is not None:
        for path in evidence.glob(f"{number:02d}-*{ending}"):
            return path
    raise NotFoundError(f"there is no evidence of claim {number} here")


def _status(memory: Memory, scope: dict[str, Any]) -> dict[str, Any]:
    """Of a principal's scope, what it may know; of the store as a whole, only for its owner."""
    here = memory.page(limit=1, **scope)
    told = {"memories": here.total, "first": _iso(here.first), "last": _iso(here.last), "degraded": memory.degraded}
    try:
        return {**memory.status(), **told}
    except AccessError:
        return told


def _backwards(memory: Memory, scope: Scope, before: int | None, action: str | None, limit: int) -> Iterator[Event]:
    """The events of a scope's user, the newest first."""
    wanted = None if action is None else Action(action)
    end = (memory.store.newest(scope) + 1) if before is None else before
    window, given = _WINDOW, 0
    while end > 1 and given < limit:
        begin = max(0, end - 1 - window)
        some = [event for event in memory.store.events(begin, scope=scope) if event.seq < end]
        for event in reversed(some):
            if wanted in (None, event.action):
                yield event
                given += 1
                if given == limit:
                    return
        end, window = begin + 1, window * 2


def _far(cube: Cube, others: dict[str, Cube], *, up_: bool) -> list[dict[str, Any]]:
    """Some cubes with how many steps of lineage lie between them and this one, the nearest first."""
    found: dict[str, int] = {cube.id: 0}
    edge, step = {cube.id}, 0
    known = {**others, cube.id: cube}
    while edge:
        step += 1
        if up_:
            beside = {ref.id for id in edge if id in known for ref in known[id].origin.derived_from}
        else:
            beside = {id for id, other in others.items() if edge & {ref.id for ref in other.origin.derived_from}}
        edge = {id for id in beside if id in others and id not in found}
        found |= dict.fromkeys(edge, step)
    far = max(found.values()) + 1
    near = sorted(others.values(), key=lambda other: found.get(other.id, far))
    return [{"cube": _short(other), "distance": found.get(other.id, far)} for other in near]


def _short(cube: Cube) -> dict[str, Any]:
    """A cube for a list: long words are cut, and what stands beside them is left out."""
    told = cube.to_dict()
    return {
        **told,
        "text": cube.text[:500],
        "data": {key: told["data"][key] for key in ("bytes",) if key in told["data"]},
    }


def _change(one: Change) -> dict[str, Any]:
    return {"event": _event(one.event), "memory": None if one.cube is None else one.cube.to_dict()}


def _event(event: Event) -> dict[str, Any]:
    told = asdict(event)
    return {
        **told,
        "at": event.at.isoformat(),
        "action": str(event.action),
        "digest": event.digest.hex(),
        "hash": event.hash.hex(),
    }


def _iso(when: Any) -> str | None:
    return None if when is None else str(when.isoformat())
