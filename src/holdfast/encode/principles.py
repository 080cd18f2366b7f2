"""Principles: what guides where a run succeeded, and what cautions where it failed (EvolveR, arXiv 2510.16079, its distillation).

A principle is a sentence, its structure as triplets, and a compact trace as an example. One that says what an older one of the same
author says (nearer than ``alike``, and a model confirms it) becomes a case of that one, which keeps one good and one bad example at
most; as EvolveLab has it (arXiv 2512.18746).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.chat import Chat
from holdfast.cube import Cube, Form, Scope, Status
from holdfast.encode.base import Experience
from holdfast.encode.near import Nearest, near
from holdfast.encode.records import CASES, TELL, Unit, derived, listed, revised
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES, Function.CASES),
    formation=(Formation.DISTILL_EXPERIENCE,),
    evolution=(Evolution.CONSOLIDATE_LOCAL, Evolution.UPDATE_EXTERNAL),
    subject=(Subject.AGENT,),
)

_TRIPLETS = {
    "type": "array",
    "items": {"type": "array", "items": TEXT, "minItems": 3, "maxItems": 3},
    "minItems": 1,
    "maxItems": 8,
}


@dataclass(frozen=True, slots=True)
class Principles:
    """An encoder. ``words``: the most that a trace has; ``alike``: the cosine above which two are compared by the model, and
    ``compared`` how many at most. Raises InputError."""

    words: int = 150
    alike: float = 0.8
    compared: int = 3
    model: Chat | None = None
    memory: Nearest | None = None
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if self.words < 1 or self.compared < 1 or not -1.0 <= self.alike <= 1.0:
            raise InputError(
                "a trace has one word or more, one principle or more is compared, and a cosine lies in [-1, 1]"
            )

    def encode(self, experience: Experience) -> list[Operation]:
        """A principle, or an older one with one more case. Raises InputError without a model or outside a memory, ChatError."""
        trajectory, succeeded = experience.trajectory, experience.outcome.succeeded
        if trajectory is None or succeeded is None:
            return []
        sort = "guiding" if succeeded else "cautionary"
        instruction = (
            f"Draw one {sort} principle from this run, which {'succeeded' if succeeded else 'failed'}: one sentence that holds "
            "for other tasks too, its structure as triplets of subject, relation and object, and the run itself in at most "
            f"{self.words} words."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        fields = {"principle": TEXT, "structure": _TRIPLETS, "trace": TEXT}
        found = write(self.model, "principle", instruction, data, fields)
        example = {"good" if succeeded else "bad": found["trace"]}
        same = self._same(experience, found["principle"])
        if same is not None:
            kept = {**example, **{name: same.data[name] for name in ("good", "bad") if name in same.data}}
            tell = _told(same.data["sort"], same.data["structure"], kept)
            cases = [*listed(same, CASES), experience.turns[0].id]
            changed: dict[str, Any] = {**kept, CASES: cases, TELL: tell}
            return [revised(experience, same, "one more case of it", **changed)]
        tell = _told(sort, found["structure"], example)
        body = {"sort": sort, "structure": found["structure"], **example}
        return [derived(experience, "principles", Unit.PRINCIPLE, found["principle"], tell, **body)]

    def _same(self, experience: Experience, text: str) -> Cube | None:
        author = experience.turns[0].origin.author
        instruction = (
            "Do these two principles say the same? They do where whoever follows the one does what the other asks."
        )
        for cube in near(self.memory, self.scope, text, Unit.PRINCIPLE, self.compared, self.alike, author):
            if cube.status is Status.FROZEN:
                continue
            data = {"one": cube.text, "other": text}
            if write(self.model, "equality", instruction, data, {"same": {"type": "boolean"}})["same"]:
                return cube
        return None


def _told(sort: str, structure: list[list[str]], examples: Mapping[str, Any]) -> str:
    ties = "; ".join(" ".join(triplet) for triplet in structure)
    lines = [f"({sort}: {ties})"]
    lines += [f"It went well: {examples['good']}"] if "good" in examples else []
    lines += [f"It went wrong: {examples['bad']}"] if "bad" in examples else []
    return "\n".join(lines)
