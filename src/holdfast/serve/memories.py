"""What programs ask that the console does not: keeping, packing, feedback, recipes, and who may do what. Names are ``Memory``'s."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from holdfast.cube import Channel, Kind, Ref
from holdfast.encode.base import Step, Trajectory
from holdfast.errors import InputError
from holdfast.serve.calls import PROBLEMS, Held, Named, Route
from holdfast.store.grants import Right

routes = APIRouter(tags=["memories"], responses=PROBLEMS, route_class=Route)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Model):
    """One turn of a chat."""

    role: Literal["user", "assistant", "system", "tool"]
    content: str


class New(_Model):
    """What is to be kept: a text, or the messages of a chat."""

    content: str | list[Message] = Field(examples=["I moved to Lisbon in May"])
    kind: str = Kind.MESSAGE
    channel: Channel = Channel.USER
    author: str | None = None
    source: str | None = None
    trust: float | None = Field(default=None, ge=0, le=1)
    at: str | None = Field(default=None, description="when it was said or became true", examples=["2026-05-03"])
    ttl_seconds: float | None = Field(default=None, gt=0, le=3e9)
    data: dict[str, Any] | None = None


class Done(_Model):
    """A step: what was done, and what came of it."""

    action: str
    observation: str = ""


class Seen(_Model):
    """A version of a memory."""

    id: str
    version: int


class Run(_Model):
    """What an agent did: the task, its steps and how it ended."""

    task: str
    answer: str = ""
    id: str = ""
    steps: list[Done] = Field(default=[], max_length=10_000)
    served: list[Seen] = Field(default=[], description="the versions of memories that it was shown")
    tokens: list[str] = []
    taint: list[str] = Field(default=[], description="what it read from outside")
    reward: float = Field(ge=-1, le=1)


@routes.post("/memories", operation_id="add", status_code=201)
def add(memory: Held, scope: Named, new: New) -> dict[str, Any]:
    """Keep something; it is durable and findable when this answers."""
    content = new.content if isinstance(new.content, str) else [one.model_dump() for one in new.content]
    done = memory.add(
        content,
        kind=new.kind,
        channel=new.channel,
        author=new.author,
        source=new.source,
        trust=new.trust,
        at=new.at,
        ttl=None if new.ttl_seconds is None else timedelta(seconds=new.ttl_seconds),
        data=new.data,
        **scope,
    )
    return {"ids": done.ids, "duplicates": done.duplicates, "reasons": done.reasons, "quarantined": done.quarantined}


@routes.post("/context", operation_id="context")
def context(
    memory: Held,
    scope: Named,
    query: Annotated[str, Body()],
    budget: Annotated[int, Body(ge=1, le=1_000_000)] = 800,
) -> dict[str, Any]:
    """What memory has to tell about a task, fenced as data and packed into a budget of tokens."""
    packed = memory.pack(query, budget=budget, **scope)
    return {"text": packed.text, "ids": [cube.id for cube in packed.cubes], "tokens": packed.tokens}


@routes.post("/feedback", operation_id="feedback")
def feedback(
    memory: Held,
    scope: Named,
    ids: Annotated[list[str], Body(max_length=10_000)],
    reward: Annotated[float, Body(ge=-1, le=1)],
) -> dict[str, Any]:
    """Say how well memories served; why some gained nothing."""
    return {"unmoved": memory.feedback(ids, reward, **scope)}


@routes.post("/useful", operation_id="useful")
def useful(memory: Held, scope: Named, task: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Memories by likeness, then by how they served, with a token to reward them by later."""
    found = memory.useful(task, **scope)
    return {"hits": [hit.to_dict() for hit in found.hits], "token": found.token}


@routes.post("/reward", operation_id="reward")
def reward(
    memory: Held,
    scope: Named,
    token: Annotated[str, Body()],
    reward: Annotated[float, Body(ge=-1, le=1)],
) -> dict[str, Any]:
    """Let a reward count once for all that a token is for."""
    done = memory.reward(token, reward, **scope)
    return {"applied": done.applied, "reward": done.reward, "moved": done.moved, "unmoved": done.unmoved}


@routes.post("/precedents", operation_id="precedents")
def precedents(
    memory: Held, scope: Named, task: Annotated[str, Body()], k: Annotated[int, Body(ge=1, le=100)] = 12
) -> dict[str, Any]:
    """What was done in a like case and may be acted upon: what a quorum of sources agrees on."""
    found = memory.precedents(task, k=k, **scope)
    told = {"abstained": found.abstained, "reason": found.reason, "quorum": found.quorum, "degraded": found.degraded}
    return {"kept": [hit.to_dict() for hit in found.kept], **told}


@routes.post("/provide", operation_id="provide")
def provide(
    memory: Held,
    scope: Named,
    task: Annotated[str, Body()],
    phase: Annotated[Literal["begin", "step"], Body()] = "begin",
    context: Annotated[str, Body()] = "",
) -> dict[str, Any]:
    """Guidance of the recipe that the server was started with, before a task or at a step."""
    _needs_recipe(memory.learns)
    told = memory.provide(task, phase, context=context, **scope)
    return {
        "text": told.text,
        "served": [{"id": ref.id, "version": ref.version} for ref in told.served],
        "token": told.token,
    }


@routes.post("/take_in", operation_id="take_in")
def take_in(memory: Held, scope: Named, run: Run) -> dict[str, Any]:
    """Learn from a run, by the recipe."""
    _needs_recipe(memory.learns)
    trajectory = Trajectory(
        run.task,
        tuple(Step(one.action, one.observation) for one in run.steps),
        run.answer,
        served=tuple(Ref(one.id, one.version) for one in run.served),
        tokens=tuple(run.tokens),
        taint=tuple(run.taint),
        id=run.id,
    )
    done = memory.take_in(trajectory, run.reward, **scope)
    return {"case": done.case, "made": done.made, "quarantined": done.quarantined, "reasons": done.reasons}


def _needs_recipe(there: bool) -> None:
    if not there:
        raise InputError("this server learns by no recipe; start it with: holdfast serve --recipe NAME")


# --- who may do what: the owner's ---

access = APIRouter(prefix="/access", tags=["access"], responses=PROBLEMS, route_class=Route)


class Enrolled(_Model):
    """A principal."""

    name: str = Field(examples=["support-bot"])
    channels: list[Channel] = []
    authors: list[str] = []
    trust: float = Field(default=1.0, ge=0, le=1)


class Granted(_Model):
    """Rights on a place, ``tenant/user[/agent[/session]]``."""

    name: str
    place: str = Field(examples=["acme/*"])
    rights: list[Right] = Field(min_length=1)
    kinds: list[str] = []


@access.get("", operation_id="list_access")
def listed(memory: Held) -> dict[str, Any]:
    """Everybody who is known, what they may do, and their keys, of which only the end is told."""
    found = memory.access
    keys = found.keys()
    return {
        "principals": [
            {"id": one.id, "name": one.name, "channels": sorted(one.channels), "trust": one.trust}
            for one in found.principals()
        ],
        "grants": [
            {"id": one.id, "name": one.principal, "place": one.place, "rights": sorted(one.rights)}
            for one in found.grants()
        ],
        "keys": [{"id": one.id, "principal": one.principal, "tail": one.tail} for one in keys],
    }


@access.post("/principals", operation_id="enrol", status_code=201)
def enrol(memory: Held, new: Enrolled) -> dict[str, Any]:
    """Make somebody known; it may do nothing yet."""
    made = memory.access.enrol(new.name, channels=new.channels, authors=new.authors, trust=new.trust)
    return {"id": made.id, "name": made.name}


@access.post("/grants", operation_id="grant", status_code=201)
def grant(memory: Held, new: Granted) -> dict[str, Any]:
    """Give rights."""
    return {"id": memory.access.grant(new.name, new.place, new.rights, kinds=new.kinds).id}


@access.post("/keys", operation_id="issue", status_code=201)
def issue(memory: Held, name: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """A new key, told this once."""
    return {"key": memory.access.issue(name)}


@access.post("/withdraw", operation_id="withdraw")
def withdraw(memory: Held, what: Annotated[str, Body()], reason: Annotated[str, Body()] = "") -> dict[str, Any]:
    """Withdraw a principal with all it has, or one grant or key; it counts with the next call."""
    return {"withdrawn": memory.access.withdraw(what, reason=reason)}
