"""What the console asks, and programs too: searching, looking, judging, taking back, claims; see ``oversight`` for the rest."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from fastapi.responses import Response

from holdfast.cube import Cube, Scope
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.memory import Change
from holdfast.serve.calls import PROBLEMS, Held, Named, Route
from holdfast.store.base import Event


def router(evidence: Path | None = None) -> APIRouter:
    """The routes themselves."""
    routes = APIRouter(tags=["memory"], responses=PROBLEMS, route_class=Route)

    @routes.post("/search")
    def search(
        memory: Held,
        scope: Named,
        query: Annotated[str, Body()],
        k: Annotated[int, Body(ge=1, le=200)] = 10,
        kinds: Annotated[list[str], Body()] = [],  # noqa: B006  (read, never changed)
        as_of: Annotated[str | None, Body()] = None,
        true_at: Annotated[str | None, Body()] = None,
    ) -> dict[str, Any]:
        view = memory.as_of(as_of, true_at=true_at) if as_of or true_at else memory
        hits = view.search(query, k=k, kinds=kinds, **scope)
        told = [hit.to_dict() for hit in hits]
        return {"hits": told, "abstain": hits.abstain, "reason": hits.reason, "degraded": list(hits.degraded)}

    @routes.get("/timeline")
    def timeline(
        memory: Held,
        scope: Named,
        known: str | None = None,
        true_at: str | None = None,
        kind: Annotated[list[str], Query()] = [],  # noqa: B006
        limit: int = 100,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        page = memory.page(limit=limit, after=cursor, known=known, true_at=true_at, kinds=kind, **scope)
        return {"memories": [_short(cube) for cube in page.cubes], "total": page.total, "next": page.next}

    @routes.get("/timeline/range")
    def reach(memory: Held, scope: Named) -> dict[str, Any]:
        page = memory.page(limit=1, **scope)
        return {"first": _iso(page.first), "last": _iso(page.last), "total": page.total}

    @routes.get("/memories/{id}")
    def get(memory: Held, scope: Named, id: str, version: int | None = None) -> dict[str, Any]:
        return memory.get(id, version=version, **scope).to_dict()

    @routes.get("/memories/{id}/history")
    def history(memory: Held, scope: Named, id: str) -> dict[str, Any]:
        return {"changes": [_change(one) for one in memory.history(id, **scope)]}

    @routes.get("/memories/{id}/lineage")
    def lineage(memory: Held, scope: Named, id: str) -> dict[str, Any]:
        cube = memory.get(id, **scope)
        home = Scope(cube.scope.tenant, cube.scope.user)
        up = memory.store.several([ref.id for ref in memory.lineage(id, down=False, **scope)], home)
        down = memory.store.several([ref.id for ref in memory.lineage(id, **scope)], home)
        return {"derived_from": _far(cube, up, up_=True), "derived": _far(cube, down, up_=False)}

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
        scope: Named,
        source: Annotated[str | None, Body()] = None,
        author: Annotated[str | None, Body()] = None,
        reason: Annotated[str, Body()] = "",
        dry_run: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        done = memory.revoke(source=source, author=author, reason=reason, dry_run=dry_run, **scope)
        return {**done.to_dict(), "diff": list(done.diff)}

    @routes.post("/undo")
    def undo(memory: Held, scope: Named, seq: Annotated[int, Body(embed=True)]) -> dict[str, Any]:
        return {"memories": [cube.to_dict() for cube in memory.undo(seq, **scope)]}

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
    return {"event": told_of(one.event), "memory": None if one.cube is None else one.cube.to_dict()}


def told_of(event: Event) -> dict[str, Any]:
    """An event as JSON says it."""
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
