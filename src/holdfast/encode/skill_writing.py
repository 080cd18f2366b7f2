"""The writer of memories by skills: of each span of a dialogue or a run the fitting skills are chosen, and one model call carries
them out (MemSkill, arXiv 2602.02474 §3).

As an encoder of a memory it reads dialogues, as a part of a recipe it reads runs. What it writes names the span that it is from; it
changes and retracts what it wrote itself, of the same author, on no less trust and no more taint, and nothing else; no other
memory is shown to the model. A span of which something was made already is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from holdfast.chat import Chat
from holdfast.cube import Cube, Form, Scope
from holdfast.encode.base import Embedder, Experience
from holdfast.encode.near import Nearest, near
from holdfast.encode.records import Unit
from holdfast.encode.skill_edits import carry_out, resolve
from holdfast.encode.skill_files import BANK, CONTROLLER, read_bank
from holdfast.encode.skill_selection import Controller, Selector
from holdfast.encode.skill_spans import Span, is_ours, of_dialogue, of_run
from holdfast.encode.skills import Edits, SkillBank, seeds
from holdfast.errors import InputError
from holdfast.store.base import Op, Operation
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject, Trainable

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT, Function.STRATEGIES),
    formation=(Formation.DISTILL_FACTS, Formation.DISTILL_EXPERIENCE),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.AGENT),
    trainable=Trainable.ASSISTED,
)


@dataclass(frozen=True, slots=True)
class SkillWriter:
    """An encoder.

    Fields
        skills: a folder with a bank of skills (``skill_files``) and maybe its controller; "" for the four that one begins with.
        k: how many skills a span is given.
        shown: how many memories the model sees with it.
        turns: of a dialogue in a span.
        embedder: what skills and memories are compared by; without one they are compared by their words.

    Raises InputError.
    """

    skills: str = ""
    k: int = 3
    shown: int = 20
    turns: int = 8
    model: Chat | None = None
    memory: Nearest | None = None
    scope: Scope | None = None
    embedder: Embedder | None = None

    def __post_init__(self) -> None:
        if min(self.k, self.shown, self.turns) < 1:
            raise InputError("a span has one turn or more, and is given one skill and one memory or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The edits that skills call for, span by span. Raises InputError without a model, ChatError."""
        if self.model is None:
            raise InputError("skills are carried out by a language model: give model=, such as agent.chat.Endpoint")
        bank, selector = _opened(self.skills, self.embedder)
        desk = _Desk()
        if experience.trajectory is not None:
            for span in of_run(experience, experience.trajectory):
                found = near(self.memory, self.scope, span.text, Unit.NOTE, self.shown, -1.0, span.author)
                self._write(span, desk, filter(is_ours, found), bank, selector)
            return desk.operations()
        known = [cube for cube in experience.known if is_ours(cube) and cube.valid_to is None]
        done = {ref for cube in known for ref in cube.origin.derived_from}
        for span in of_dialogue(experience, self.turns):
            if done.isdisjoint(turn.ref for turn in span.sources):
                self._write(span, desk, known, bank, selector)
        return desk.operations()

    def _write(self, span: Span, desk: _Desk, known: Iterable[Cube], bank: SkillBank, selector: Selector) -> None:
        """Put the edits that one span calls for on the desk."""
        assert self.model is not None
        held = [cube for cube in desk.current(known) if span.sees(cube)]
        places = selector.nearest(span.text, [cube.text for cube in held], self.shown)
        shown = [held[at] for at in places]
        texts = [cube.text for cube in shown]
        skills = selector.choose(span.text, texts, bank.skills, self.k)
        edits = carry_out(self.model, span.text, texts, skills)
        changes, refused = resolve(edits, shown, {skill.edits for skill in skills})
        reason = f"by the skills {', '.join(skill.name for skill in skills)}"
        for change in changes:
            if change.of is None:
                desk.add(span.made(change.text), reason)
            elif not span.may_change(change.of):
                refused.append("a memory is left as it is: it is more trusted than this span, or this is from outside")
            elif change.kind is Edits.DELETE:
                desk.delete(change.of, reason)
            else:
                desk.update(span.remade(change.of, change.text), reason)
        desk.nothing += [Operation.none(f"{why} ({reason})") for why in refused]


@dataclass(slots=True)
class _Desk:
    """What is going to be done: one operation a memory, however often spans of one experience come back to it."""

    changed: dict[str, Operation] = field(default_factory=dict)
    nothing: list[Operation] = field(default_factory=list)

    def current(self, known: Iterable[Cube]) -> list[Cube]:
        """What is known, as it is going to be, and what is new."""
        cubes = {cube.id: cube for cube in known}
        cubes |= {id: one.cube for id, one in self.changed.items() if one.cube is not None}
        return [cube for id, cube in cubes.items() if id not in self.changed or self.changed[id].op is not Op.DELETE]

    def add(self, cube: Cube, reason: str) -> None:
        self.changed.setdefault(cube.id, Operation.add(cube, reason))

    def update(self, cube: Cube, reason: str) -> None:
        before = self.changed.get(cube.id)
        new = before is not None and before.op is Op.ADD
        self.changed[cube.id] = Operation.add(cube, reason) if new else Operation.update(cube, reason)

    def delete(self, cube: Cube, reason: str) -> None:
        before = self.changed.get(cube.id)
        if before is not None and before.op is Op.ADD:
            del self.changed[cube.id]
        else:
            self.changed[cube.id] = Operation.delete(cube, reason)

    def operations(self) -> list[Operation]:
        return [*self.changed.values(), *self.nothing]


def _opened(folder: str, embedder: Embedder | None) -> tuple[SkillBank, Selector]:
    """The bank and the selector of a folder, read anew when its files change."""
    stamps = [Path(folder).expanduser() / name for name in (BANK, CONTROLLER)] if folder else []
    stamp = tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in stamps)
    bank, controller = _read(folder, stamp)
    key = folder, stamp, None if embedder is None else embedder.model
    if key not in _SELECTORS:
        if len(_SELECTORS) >= _MOST:
            _SELECTORS.clear()
        _SELECTORS[key] = Selector(embedder, controller)
    return bank, _SELECTORS[key]


_MOST = 8
_SELECTORS: dict[tuple[str, tuple[int, ...], str | None], Selector] = {}
"""Kept, because they know the vectors of what they have compared; a model's name always means the same vectors."""


@lru_cache(maxsize=_MOST)
def _read(folder: str, stamp: tuple[int, ...]) -> tuple[SkillBank, Controller | None]:  # noqa: ARG001  (read anew by it)
    if not folder:
        return seeds(), None
    path = Path(folder).expanduser()
    controller = path / CONTROLLER
    return read_bank(path), Controller.load(controller) if controller.is_file() else None
