"""What the owner looks after: whether the journal holds, whether the store is sound, and that nothing waits."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from holdfast.retrieve.text import ANALYSER
from holdfast.serve.calls import PROBLEMS, Held, Route
from holdfast.store.doctor import examine

routes = APIRouter(tags=["care"], responses=PROBLEMS, route_class=Route)


class Head(BaseModel):
    """What the status said of the journal's end earlier, noted elsewhere: it proves that nothing was cut off since."""

    seq: int = Field(ge=0, le=2**62)
    hash: str = Field(pattern="^[0-9a-f]{64}$")


@routes.post("/verify", operation_id="verify")
def verify(memory: Held, head: Annotated[Head | None, Body()] = None) -> dict[str, Any]:
    """Check the journal's hash chain and every memory against it."""
    found = memory.verify(None if head is None else (head.seq, head.hash))
    return {"problems": [str(problem) for problem in found], "found": [asdict(problem) for problem in found]}


@routes.get("/doctor", operation_id="doctor")
def doctor(memory: Held) -> dict[str, Any]:
    """Everything about the store, looked over; nothing is mended."""
    _ = memory.access  # raises for anybody but the owner
    return {"findings": [asdict(finding) for finding in examine(memory.store, analyser=ANALYSER)]}


@routes.post("/flush", operation_id="flush")
def flush(memory: Held) -> dict[str, Any]:
    """Embed and enrich everything that waits now."""
    _ = memory.access
    memory.flush()
    return {"backlog": memory.status()["backlog"]}
