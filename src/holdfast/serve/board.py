"""What the console asks, and programs too: searching, looking, judging, taking back, the journal, claims, what goes on now."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from holdfast.cube import Cube, Scope, Status
from holdfast.errors import AccessError, HoldfastError, InputError, NotFoundError
from holdfast.guard.revocation import Revocation
from holdfast.memory import Change, Memory
from holdfast.serve.calls import PROBLEMS, Held, Named, Route, told_hits
from holdfast.store.base import Action, Event
from holdfast.store.forget import Receipt

_BEAT = 1.0  # seconds between two looks at the status
_WINDOW = 512  # events that are read at once
_LAST = 2**62  # later than any event

Seq = Annotated[int, Query(ge=0, le=_LAST, description="an event's number")]


class Asked(BaseModel):
    """A search: one body, as FastAPI takes longer over a field of its own than this over all of them."""

    query: str
    k: int = Field(default=10, ge=1, le=200)
    kinds: list[str] = []
    as_of: str | None = None
    true_at: str | None = None
    neighbours: int = Field(default=0, ge=0, le=50)
    now: str | None = None


def router(evidence: Path | None = None) -> APIRouter:
    """The routes themselves."""
    routes = APIRouter(tags=["memory"], responses=PROBLEMS, route_class=Route)

    @routes.post("/search")
    def search(memory: Held, scope: Named, asked: Asked) -> dict[str, Any]:
        k, kinds, beside = asked.k, asked.kinds, asked.neighbours
        if not (asked.as_of or asked.true_at):
            return told_hits(memory.search(asked.query, k=k, kinds=kinds, neighbours=beside, now=asked.now, **scope))
        if asked.now is not None:
            raise InputError("as_of says from when a query counts; leave out now")
        view = memory.as_of(asked.as_of, true_at=asked.true_at)
        return told_hits(view.search(asked.query, k=k, kinds=kinds, neighbours=beside, **scope))

    @routes.get("/timeline")
    def timeline(
        memory: Held,
        scope: Named,
        known: str | None = None,
        true_at: str | None = None,
        kind: Annotated[list[str], Query()] = [],  # noqa: B006
        status: Annotated[list[Status], Query()] = [],  # noqa: B006
        source: str | None = None,
        author: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        whole: Annotated[bool, Query(description="with all words and data of each, where long ones are cut")] = False,
    ) -> dict[str, Any]:
        page = memory.page(
            limit=limit,
            after=cursor,
            known=known,
            true_at=true_at,
            kinds=kind,
            statuses=status,
            source=source,
            author=author,
            **scope,
        )
        shown = [cube.to_dict() if whole else _short(cube) for cube in page.cubes]
        ends = {"first": _iso(page.first), "last": _iso(page.last)}
        return {"memories": shown, "total": page.total, "next": page.next, **ends}

    @routes.get("/timeline/range")
    def reach(memory: Held, scope: Named) -> dict[str, Any]:
        page = memory.page(limit=1, **scope)
        return {"first": _iso(page.first), "last": _iso(page.last), "total": page.total}

    @routes.get("/memories/{id}")
    def get(
        memory: Held, scope: Named, id: str, version: int | None = None, as_of: str | None = None
    ) -> dict[str, Any]:
        if as_of is None:
            return memory.get(id, version=version, **scope).to_dict()
        if version is not None:
            raise InputError("name a version, or as_of a time; not both")
        return memory.as_of(as_of).get(id, **scope).to_dict()

    @routes.get("/memories/{id}/history")
    def history_of(memory: Held, scope: Named, id: str, since: Seq = 0, until: Seq | None = None) -> dict[str, Any]:
        return {"changes": [_change(one) for one in memory.history(id, since=since, until=until, **scope)]}

    @routes.get("/history")
    def history(
        memory: Held,
        scope: Named,
        since: Seq = 0,
        until: Seq = _LAST,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        found = list(islice(_forwards(memory, scope, since, until), limit + 1))
        shown = found[:limit]
        return {
            "changes": [_change(one) for one in shown],
            "next": shown[-1].event.seq if len(found) > limit else None,
        }

    @routes.get("/memories/{id}/lineage")
    def lineage(memory: Held, scope: Named, id: str) -> dict[str, Any]:
        cube = memory.get(id, **scope)
        home = Scope(cube.scope.tenant, cube.scope.user)
        above, below = (memory.lineage(id, down=down, **scope) for down in (False, True))
        up, down = (memory.store.several([ref.id for ref in some], home) for some in (above, below))
        refs = {"derived_from": [asdict(ref) for ref in above], "derived": [asdict(ref) for ref in below]}
        return {"derived_from": _far(cube, up, up_=True), "derived": _far(cube, down, up_=False), "refs": refs}

    @routes.post("/memories/{id}/{what}")
    def act(
        memory: Held,
        scope: Named,
        id: str,
        what: Literal["correct", "retract", "restore", "freeze", "thaw", "approve", "reject"],
        reason: Annotated[str, Body()] = "",
        text: Annotated[str | None, Body()] = None,
    ) -> dict[str, Any]:
        if what == "correct":
            return memory.correct(id, text or "", reason=reason, **scope).to_dict()
        if what == "retract":
            memory.retract(id, reason=reason, **scope)
            return memory.get(id, **scope).to_dict()
        changed: Cube = getattr(memory, what)(id, reason=reason, **scope)
        return changed.to_dict()

    @routes.post("/forget")
    def forget(
        memory: Held,
        scope: Named,
        ids: Annotated[list[str], Body()] = [],  # noqa: B006
        source: Annotated[str | None, Body()] = None,
        author: Annotated[str | None, Body()] = None,
        since: Annotated[str | None, Body()] = None,
        everything: Annotated[bool, Body()] = False,
        reason: Annotated[str, Body()] = "",
        dry_run: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        done = memory.forget(
            ids,
            source=source,
            author=author,
            since=since,
            everything=everything,
            reason=reason,
            dry_run=dry_run,
            **scope,
        )
        if dry_run:
            return {**done.to_dict(), "preview": list(done.preview)}
        return {**done.to_dict(), **_looked(done)}

    @routes.post("/revoke")
    def revoke(
        memory: Held,
        scope: Named,
        source: Annotated[str | None, Body()] = None,
        author: Annotated[str | None, Body()] = None,
        by: Annotated[str | None, Body(description="the principal that added them")] = None,
        since: Annotated[str | None, Body()] = None,
        until: Annotated[str | None, Body()] = None,
        reason: Annotated[str, Body()] = "",
        dry_run: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        done = memory.revoke(
            source=source, author=author, by=by, since=since, until=until, reason=reason, dry_run=dry_run, **scope
        )
        return {**done.to_dict(), "diff": list(done.diff), **({} if dry_run else _looked(done))}

    @routes.post("/undo")
    def undo(
        memory: Held, scope: Named, seq: Annotated[int, Body()], reason: Annotated[str, Body()] = ""
    ) -> dict[str, Any]:
        return {"memories": [cube.to_dict() for cube in memory.undo(seq, reason=reason, **scope)]}

    @routes.get("/quarantine")
    def quarantine(memory: Held, scope: Named) -> dict[str, Any]:
        waiting = []
        for cube in memory.quarantined(**scope):
            events = [one.event for one in memory.history(cube.id, **scope)]
            reason = next((event.reason for event in reversed(events) if event.reason), "")
            waiting.append({"memory": cube.to_dict(), "reason": reason})
        return {"waiting": waiting}

    @routes.get("/audit")
    def audit(
        memory: Held,
        scope: Named,
        before: int | None = None,
        action: Action | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        home = memory.scope(**scope)
        found = list(_backwards(memory, home, before, action, limit + 1))
        more = len(found) > limit
        return {"events": [_event(event) for event in found[:limit]], "next": found[limit - 1].seq if more else None}

    @routes.get("/status")
    def status(memory: Held, scope: Named) -> dict[str, Any]:
        return _status(memory, scope)

    @routes.get("/events")
    async def events(request: Request, memory: Held, scope: Named) -> Response:
        await run_in_threadpool(_status, memory, scope)  # what is refused is refused before a stream begins

        async def beat() -> AsyncIterator[str]:
            before = ""
            while not await request.is_disconnected():
                try:
                    now = json.dumps(
                        await run_in_threadpool(_status, memory, scope)
                    )  # ASCII: half a character is escaped
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


def _looked(done: Receipt | Revocation) -> dict[str, Any]:
    """Whether what should be gone is, looked for just now."""
    try:
        done.verify()
    except HoldfastError as error:
        return {"verified": False, "problem": str(error)}
    return {"verified": True}


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


def _backwards(memory: Memory, scope: Scope, before: int | None, wanted: Action | None, limit: int) -> Iterator[Event]:
    """The events of a scope's user, the newest first."""
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


def _forwards(memory: Memory, scope: dict[str, Any], since: int, until: int) -> Iterator[Change]:
    """The changes of a scope's user, the oldest first, some at a time."""
    until, window = min(until, memory.store.newest(memory.scope(**scope))), _WINDOW
    while since < until:
        end = min(until, since + window)
        yield from memory.history(since=since, until=end, **scope)
        since, window = end, window * 2


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
