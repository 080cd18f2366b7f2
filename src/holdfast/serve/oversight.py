"""What people look after: what waits for a decision, what was forgotten, the journal backwards, and what goes on now."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from holdfast.serve.board import told_of
from holdfast.serve.calls import PROBLEMS, Held, Named, Route
from holdfast.serve.pulse import Pulse, status
from holdfast.store.base import Action

_PAGE = Query(ge=1, le=1000)
_SEQ = Query(ge=1, lt=1 << 62)


def router() -> APIRouter:
    """The routes themselves."""
    routes = APIRouter(tags=["memory"], responses=PROBLEMS, route_class=Route)
    pulse = Pulse()

    @routes.get("/quarantine")
    def quarantine(
        memory: Held,
        scope: Named,
        limit: Annotated[int, _PAGE] = 1000,
        cursor: Annotated[int | None, Query(ge=0, lt=1 << 32)] = None,
    ) -> dict[str, Any]:
        """What waits, the oldest first, each with why; ``total`` is of all pages."""
        page = memory.store.waiting(memory.scope(**scope), limit=limit, after=-1 if cursor is None else cursor)
        waiting = [{"memory": cube.to_dict(), "reason": why} for cube, why in page.some]
        return {"waiting": waiting, "total": page.total, "next": page.next}

    @routes.get("/audit")
    def audit(
        memory: Held,
        scope: Named,
        before: Annotated[int | None, _SEQ] = None,
        action: Action | None = None,
        limit: Annotated[int, _PAGE] = 100,
    ) -> dict[str, Any]:
        """The journal backwards; ``next`` is the ``before`` of the page after this one, and null at its beginning."""
        home = memory.scope(**scope)
        found, following = memory.store.backwards(home, before=before, action=action, limit=limit)
        return {"events": [told_of(event) for event in found], "next": following}

    @routes.get("/receipts")
    def receipts(
        memory: Held,
        scope: Named,
        before: Annotated[int | None, _SEQ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """What was erased for good, as the journal keeps it: when, by whom, why, how many, and the first ids of each."""
        found = memory.store.receipts(memory.scope(**scope), before=before, limit=limit + 1)
        more, found = len(found) > limit, found[:limit]
        return {"receipts": [one.to_dict() for one in found], "next": found[-1].first if more else None}

    @routes.get("/receipts/{seq}")
    def receipt(memory: Held, scope: Named, seq: Annotated[int, Path(ge=1, lt=1 << 62)]) -> dict[str, Any]:
        """One receipt with all its ids, and what of it can be found now; an empty ``left`` means nothing."""
        found, left = memory.store.receipt(seq, memory.scope(**scope))
        return {**found.to_dict(), "left": left, "checked_at": memory.store.now().isoformat()}

    @routes.get("/status", name="status")
    def now(memory: Held, scope: Named) -> dict[str, Any]:
        return status(memory, scope)

    @routes.get("/events")
    async def events(request: Request, memory: Held, scope: Named) -> Response:
        """The status as it changes, as server-sent events."""
        await run_in_threadpool(pulse.look, memory, scope)  # what is refused is refused before a stream begins
        stopping = getattr(request.app.state, "stopping", bool)

        async def over() -> bool:
            return stopping() or await request.is_disconnected()

        stream = pulse.beat(memory, scope, over)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes
