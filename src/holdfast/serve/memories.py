"""What programs ask that the console does not: keeping, packing, likeness, feedback, recipes, the guard, and who may do what.

Names are ``Memory``'s.
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field

from holdfast.cube import Channel, Cube, Kind, Ref, utc
from holdfast.encode.base import Outcome, Step, Trajectory
from holdfast.errors import InputError
from holdfast.guard.base import Dropped
from holdfast.guard.chains import Chain
from holdfast.guard.lessons import Caution
from holdfast.serve.calls import PROBLEMS, Held, Named, Route, told_hit, told_hits
from holdfast.store.access import Principal
from holdfast.store.grants import Grant, Right

routes = APIRouter(tags=["memories"], responses=PROBLEMS, route_class=Route)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Model):
    """One turn of a chat."""

    role: Literal["user", "human", "assistant", "ai", "tool", "function", "document", "system", "developer"] = "user"
    content: str | list[Any] | None
    name: str | None = Field(default=None, description="who says it")
    at: str | float | None = None
    timestamp: str | float | None = None
    id: str | int | None = None
    caption: str | None = None


class Made(_Model):
    """A cube of the caller's own, as ``GET /v1/memories/{id}`` gives them."""

    cube: dict[str, Any]


class Seen(_Model):
    """A version of a memory."""

    id: str
    version: Annotated[int, Field(ge=1, le=2**31)]


class New(_Model):
    """What is to be kept: a text, or texts, messages of a chat and cubes."""

    content: str | list[str | Message | Made] = Field(examples=["I moved to Lisbon in May"])
    kind: str = Kind.MESSAGE
    channel: Channel = Channel.USER
    author: str | None = None
    source: str | None = None
    trust: float | None = Field(default=None, ge=0, le=1)
    at: str | None = Field(default=None, description="when it was said or became true", examples=["2026-05-03"])
    ttl_seconds: float | None = Field(default=None, gt=0, le=3e9)
    data: dict[str, Any] | None = None
    derived_from: list[Seen] = Field(default=[], max_length=10_000)
    taint: list[str] = Field(default=[], description="what it was made from, from outside")


class Done(_Model):
    """A step: what was done, and what came of it; ``tool`` and ``arguments`` name the call, where it was one."""

    action: str
    observation: str = ""
    tool: str = ""
    arguments: dict[str, Any] = {}


class Run(_Model):
    """What an agent did: the task, its steps and how it ended."""

    task: str
    answer: str = ""
    id: str = ""
    steps: list[Done] = Field(default=[], max_length=10_000)
    served: list[Seen] = Field(default=[], description="the versions of memories that it was shown")
    tokens: list[str] = []
    taint: list[str] = Field(default=[], description="what it read from outside")
    data: dict[str, Any] = {}
    reward: float | None = Field(default=None, ge=-1, le=1, description="how it went; none where nobody knows")
    feedback: str = ""
    author: str | None = Field(default=None, description="for whom the agent works")


@routes.post("/memories", operation_id="add", status_code=201)
def add(memory: Held, scope: Named, new: New) -> dict[str, Any]:
    """Keep something; it is durable and findable when this answers."""
    content = new.content if isinstance(new.content, str) else [_item(one) for one in new.content]
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
        derived_from=_refs(new.derived_from),
        taint=new.taint,
        **scope,
    )
    return {"ids": done.ids, "duplicates": done.duplicates, "reasons": done.reasons, "quarantined": done.quarantined}


def _item(one: str | Message | Made) -> str | dict[str, Any] | Cube:
    if isinstance(one, Made):
        return Cube.from_dict(one.cube)
    return (
        one
        if isinstance(one, str)
        else one.model_dump(exclude_none=True, exclude={"content"}) | {"content": one.content}
    )


def _refs(some: list[Seen]) -> tuple[Ref, ...]:
    return tuple(Ref(one.id, one.version) for one in some)


@routes.post("/context", operation_id="context")
def context(
    memory: Held,
    scope: Named,
    query: Annotated[str, Body()],
    budget: Annotated[int, Body(ge=1, le=1_000_000)] = 800,
    k: Annotated[int, Body(ge=1, le=200)] = 50,
    as_of: Annotated[str | None, Body()] = None,
    true_at: Annotated[str | None, Body()] = None,
    whole: Annotated[bool, Body(description="with the memories themselves")] = False,
) -> dict[str, Any]:
    """What memory has to tell about a task, fenced as data and packed into a budget of tokens."""
    view = memory.as_of(as_of, true_at=true_at) if as_of or true_at else memory
    packed = view.pack(query, budget=budget, k=k, **scope)
    served = [asdict(cube.ref) for cube in packed.cubes]
    told = {"text": packed.text, "ids": [ref["id"] for ref in served], "served": served, "tokens": packed.tokens}
    return told | ({"memories": [cube.to_dict() for cube in packed.cubes]} if whole else {})


@routes.post("/nearest", operation_id="nearest")
def nearest(
    memory: Held,
    scope: Named,
    text: Annotated[str, Body()],
    k: Annotated[int, Body(ge=1, le=200)] = 10,
    kinds: Annotated[list[str], Body()] = [],  # noqa: B006  (read, never changed)
) -> dict[str, Any]:
    """The memories that are most like a text."""
    return told_hits(memory.nearest(text, k=k, kinds=kinds, **scope))


@routes.post("/alike", operation_id="alike")
def alike(
    memory: Held,
    scope: Named,
    texts: Annotated[list[str], Body(min_length=2, max_length=1_000)],
    k: Annotated[int, Body(ge=1, le=200)] = 5,
) -> dict[str, Any]:
    """The sessions that are most like several texts."""
    return {"sessions": [asdict(one) for one in memory.alike(texts, k=k, **scope)]}


@routes.get("/changed", operation_id="changed")
def changed(
    memory: Held,
    scope: Named,
    since: str,
    kind: Annotated[list[str], Query()] = [],  # noqa: B006
) -> dict[str, Any]:
    """What a search may find that was recorded or changed since a time."""
    return {"memories": [cube.to_dict() for cube in memory.changed(utc(since), kinds=kind, **scope)]}


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
def useful(
    memory: Held,
    scope: Named,
    task: Annotated[str, Body()],
    kinds: Annotated[list[str], Body()] = [],  # noqa: B006
) -> dict[str, Any]:
    """Memories by likeness, then by how they served, with a token to reward them by later."""
    found = memory.useful(task, kinds=kinds, **scope)
    return {**told_hits(found.hits), "token": found.token}


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
    memory: Held,
    scope: Named,
    task: Annotated[str, Body()],
    k: Annotated[int, Body(ge=1, le=100)] = 12,
    min_sources: Annotated[int, Body(ge=1, le=100)] = 2,
    learn: Annotated[bool, Body()] = True,
) -> dict[str, Any]:
    """What was done in a like case and may be acted upon: what a quorum of sources agrees on."""
    found = memory.precedents(task, k=k, min_sources=min_sources, learn=learn, **scope)
    chains = {id: _chain(chain) for id, chain in found.chains.items()}
    whole = {
        "kept": [told_hit(hit) | {"leads_to": chains.get(hit.id)} for hit in found.kept],
        "dropped": [_dropped(one) | {"leads_to": chains.get(one.hit.id)} for one in found.dropped],
        "cautions": [_caution(one) for one in found.cautions],
    }
    return {**found.to_dict(), **whole, "quorum": found.quorum}


def _caution(one: Caution) -> dict[str, Any]:
    return {**one.to_dict(), "taint": list(one.taint)}


def _chain(chain: Chain) -> dict[str, Any]:
    effects = [{"kind": str(effect.kind), "target": effect.target} for effect in sorted(chain.effects)]
    return {"operation": chain.operation, "object": chain.object, "effects": effects, "text": chain.text}


def _dropped(one: Dropped) -> dict[str, Any]:
    return {**told_hit(one.hit), "reason": one.reason}


@routes.post("/provide", operation_id="provide")
def provide(
    memory: Held,
    scope: Named,
    task: Annotated[str, Body()],
    phase: Annotated[Literal["begin", "step"], Body()] = "begin",
    context: Annotated[str, Body()] = "",
    author: Annotated[str | None, Body(description="for whom the agent works")] = None,
) -> dict[str, Any]:
    """Guidance of the recipe that the server was started with, before a task or at a step."""
    _needs_recipe(memory.learns)
    told = memory.provide(task, phase, context=context, author=author, **scope)
    return {
        "text": told.text,
        "served": [asdict(ref) for ref in told.served],
        "hits": [told_hit(hit) for hit in told.hits],
        "dropped": [_dropped(one) for one in told.dropped],
        "token": told.token,
    }


@routes.post("/take_in", operation_id="take_in")
def take_in(memory: Held, scope: Named, run: Run) -> dict[str, Any]:
    """Learn from a run, by the recipe."""
    _needs_recipe(memory.learns)
    trajectory = Trajectory(
        run.task,
        tuple(Step(one.action, one.observation, one.tool, one.arguments) for one in run.steps),
        run.answer,
        served=_refs(run.served),
        tokens=tuple(run.tokens),
        taint=tuple(run.taint),
        id=run.id,
        data=run.data,
    )
    done = memory.take_in(trajectory, Outcome(run.reward, run.feedback), author=run.author, **scope)
    return asdict(done)


@routes.post("/manage", operation_id="manage")
def manage(memory: Held, scope: Named) -> dict[str, Any]:
    """Let the recipe tend what it made."""
    _needs_recipe(memory.learns)
    return {"changed": memory.manage(**scope)}


def _needs_recipe(there: bool) -> None:
    if not there:
        raise InputError("this server learns by no recipe; start it with: holdfast serve --recipe NAME")


# --- the guard ---


@routes.post("/release", operation_id="release")
def release(
    memory: Held,
    scope: Named,
    inside: Annotated[int, Body(ge=2, le=1_000)] = 2,
    sites: Annotated[int, Body(ge=2, le=1_000)] = 3,
    dry_run: Annotated[bool, Body()] = False,
) -> dict[str, Any]:
    """Let out of quarantine what enough independent sources say as well, and put back what they no longer do."""
    from holdfast.guard.release import Rule  # the grammars that it reads claims by take a second to compile

    return memory.release(rule=Rule(inside, sites), dry_run=dry_run, **scope).to_dict()


@routes.post("/canaries", operation_id="canary", status_code=201)
def canary(
    memory: Held, scope: Named, question: Annotated[str, Body()], expects: Annotated[str, Body()]
) -> dict[str, Any]:
    """Keep a question that must go on finding a memory: a change that ends that is undone."""
    return memory.canary(question, expects, **scope).to_dict()


@routes.post("/canaries/{id}/ask", operation_id="answers")
def answers(memory: Held, scope: Named, id: str) -> dict[str, Any]:
    """Whether a canary's question finds what it expects now."""
    return {"answered": memory.answers(memory.get(id, **scope))}


@routes.get("/lessons", operation_id="lessons")
def lessons(memory: Held, scope: Named) -> dict[str, Any]:
    """What was caught before it was acted upon, and warns now."""
    return {"lessons": [cube.to_dict() for cube in memory.lessons(**scope).all()]}


@routes.post("/lessons/cautions", operation_id="cautions")
def cautions(
    memory: Held, scope: Named, action: Annotated[str, Body()], context: Annotated[str, Body()]
) -> dict[str, Any]:
    """The lessons that speak of an action in a context."""
    return {"cautions": [_caution(one) for one in memory.lessons(**scope).for_action(action, context)]}


@routes.post("/lessons/{id}/{what}", operation_id="judge_lesson")
def judge_lesson(memory: Held, scope: Named, id: str, what: Literal["confirm", "retract"]) -> dict[str, Any]:
    """Say that a lesson is right, or that it is a false alarm."""
    kept = memory.lessons(**scope)
    return (kept.confirm(id) if what == "confirm" else kept.retract(id)).to_dict()


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
    until: str | None = None


@access.get("", operation_id="list_access")
def listed(memory: Held) -> dict[str, Any]:
    """Everybody who is known, what they may do, and their keys, of which only the end is told."""
    found = memory.access
    keys = found.keys()
    return {
        "principals": [_principal(one) for one in found.principals()],
        "grants": [_grant(one) for one in found.grants()],
        "keys": [
            {
                "id": one.id,
                "principal": one.principal,
                "tail": one.tail,
                "issued": _iso(one.issued),
                "until": _iso(one.until),
            }
            for one in keys
        ],
    }


def _principal(one: Principal) -> dict[str, Any]:
    doors, authors = sorted(one.channels), sorted(one.authors)
    return {"id": one.id, "name": one.name, "channels": doors, "authors": authors, "trust": one.trust}


def _grant(one: Grant) -> dict[str, Any]:
    some = {"rights": sorted(one.rights), "kinds": sorted(one.kinds)}
    return {"id": one.id, "name": one.principal, "place": one.place, **some}


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


@access.post("/principals", operation_id="enrol", status_code=201)
def enrol(memory: Held, new: Enrolled) -> dict[str, Any]:
    """Make somebody known; it may do nothing yet."""
    return _principal(memory.access.enrol(new.name, channels=new.channels, authors=new.authors, trust=new.trust))


@access.post("/grants", operation_id="grant", status_code=201)
def grant(memory: Held, new: Granted) -> dict[str, Any]:
    """Give rights, until a time where one is named."""
    until = None if new.until is None else utc(new.until)
    return _grant(memory.access.grant(new.name, new.place, new.rights, kinds=new.kinds, until=until))


@access.post("/keys", operation_id="issue", status_code=201)
def issue(memory: Held, name: Annotated[str, Body()], until: Annotated[str | None, Body()] = None) -> dict[str, Any]:
    """A new key, told this once."""
    return {"key": memory.access.issue(name, until=None if until is None else utc(until))}


@access.post("/withdraw", operation_id="withdraw")
def withdraw(memory: Held, what: Annotated[str, Body()], reason: Annotated[str, Body()] = "") -> dict[str, Any]:
    """Withdraw a principal with all it has, or one grant or key; it counts with the next call."""
    return {"withdrawn": memory.access.withdraw(what, reason=reason)}
