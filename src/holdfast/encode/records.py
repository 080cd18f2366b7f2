"""The records of experience: the raw one of a trajectory, and those that are derived from it.

Of a record ``text`` is what it is found by, and ``data["tell"]`` what is told beside it. The raw one is kept before anything is
made of it, so that guards see what was done, and whatever is made of it carries its source, and its taint, in its lineage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from holdfast.cube import Channel, Cube, Kind, Origin, Ref, Scope, Status, taints
from holdfast.encode.base import Experience, Outcome, Trajectory
from holdfast.store.base import Operation

TELL = "tell"
"""In a record's ``data``: what is told of it, beside what it is found by."""

RUN = "turn"
"""In a record's ``data``: what tells it from others of the same words (the store compares a turn's place)."""

MAKER = "maker"
"""In a derived record's ``data``: the part of a recipe that made it."""


CASES = "cases"
"""In a derived record's ``data``: the ids of further raw records that went into it after it was made."""

LINKS = "links"
"""In a derived record's ``data``: the ids of records that it is tied to, each with the weight of the tie."""


class Unit(StrEnum):
    """The kinds of what is made of experience, beside ``Kind.SKILL`` and ``Kind.CONCEPT``. Each tells an agent how to act."""

    DIGEST = "digest"  # what happened, in few words
    INSIGHT = "insight"  # a general lesson
    WORKFLOW = "workflow"  # steps with variables in place of values
    TIP = "tip"
    SHORTCUT = "shortcut"  # a named sequence of actions, and when it may be used
    PRINCIPLE = "principle"  # what guides, or what cautions
    SCRIPT = "script"  # a procedure beside the case that it is from
    PLAN = "plan"  # how to go about it, and what was learnt meanwhile
    SHEET = "sheet"  # one document that is written anew
    NOTE = "note"  # what a run has shown to be so


def raw(trajectory: Trajectory, outcome: Outcome, scope: Scope, author: str | None) -> Cube:
    """The record of a trajectory, found by its task: ``steps`` are its calls, as ``guard.chains`` reads them, ``story`` is all."""
    calls = [{"tool": step.tool, "arguments": dict(step.arguments)} for step in trajectory.steps if step.tool]
    data: dict[str, Any] = {
        "operation": calls[0]["tool"] if calls else "answer",
        "steps": calls,
        "story": [[step.action, step.observation] for step in trajectory.steps],
        "answer": trajectory.answer,
        **trajectory.data,
    }
    if outcome.reward is not None:
        data["reward"] = outcome.reward
    if outcome.feedback:
        data["feedback"] = outcome.feedback
    # The same task twice is two experiences, and one run that is brought twice is one.
    data[RUN] = trajectory.id or _short(json.dumps(data, sort_keys=True, default=str))
    origin = Origin(Channel.ASSISTANT, author, trust=0.8, taint=taints(trajectory.taint))
    return Cube(scope, trajectory.task, Kind.EXPERIENCE, data=data, origin=origin)


def derived(
    experience: Experience, by: str, kind: str, text: str, tell: str = "", also: tuple[Ref, ...] = (), **data: Any
) -> Operation:
    """To add what was made of an experience by a part of a recipe. ``also``: what else it was made from, besides the raw record."""
    case = experience.turns[0]
    origin = Origin(Channel.DERIVED, case.origin.author, trust=case.origin.trust, derived_from=(case.ref, *also))
    body = {MAKER: by, RUN: f"{case.id}-{_short(tell)}", **({TELL: tell} if tell else {}), **data}
    return Operation.add(Cube(case.scope, text, kind, data=body, origin=origin))


def revised(experience: Experience, cube: Cube, reason: str, *, text: str | None = None, **data: Any) -> Operation:
    """To change a record by what was just done, which is among its sources from then on."""
    case = experience.turns[0].ref
    sources = tuple(ref for ref in cube.origin.derived_from if ref.id != case.id)
    return Operation.update(
        cube.with_(
            text=cube.text if text is None else text,
            data={**cube.data, **data},
            origin=replace(cube.origin, derived_from=(*sources, case)),
        ),
        reason,
    )


def own(experience: Experience) -> tuple[Cube, ...]:
    """Of what a run was served, the derived records that are its own author's: nobody's runs change what is another's, or
    frozen."""
    author = experience.turns[0].origin.author
    return tuple(
        cube
        for cube in experience.known
        if cube.origin.author == author and MAKER in cube.data and cube.status is not Status.FROZEN
    )


def made_of(cube: Cube, case: Cube) -> bool:
    """Whether a record was made of a raw one, or took it in as one more case; changed by it is not yet made of it."""
    return str(cube.data.get(RUN, "")).startswith(case.id) or case.id in listed(cube, CASES)


def listed(cube: Cube, field: str) -> list[str]:
    """The ids in a field of a record's data; none where something else stands there, which anybody may have written."""
    held = cube.data.get(field)
    return [str(id) for id in held] if isinstance(held, list | tuple) else []


def linked(cube: Cube) -> dict[str, float]:
    """The ties of a record, by id; only what is a weight between 0 and 1."""
    held = cube.data.get(LINKS)
    ties = held.items() if isinstance(held, Mapping) else ()
    return {str(id): float(tie) for id, tie in ties if isinstance(tie, _NUMBERS) and 0 < tie <= 1}


_NUMBERS = int, float


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def tell(cube: Cube) -> str:
    """What is told of a record."""
    if TELL in cube.data:
        return f"{cube.text}\n{cube.data[TELL]}"
    if cube.kind == Kind.EXPERIENCE and "story" in cube.data:
        steps = [f"{action} -> {seen}" if seen else str(action) for action, seen in cube.data["story"]]
        return "\n".join([cube.text, *steps, *([f"Answer: {cube.data['answer']}"] if cube.data.get("answer") else [])])
    return cube.text
