"""What memory skills are applied to: a stretch of a dialogue or of a run, and what it may do to memory (for MemSkill, arXiv
2602.02474)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from holdfast.cube import EXTERNAL, RECALLABLE, Channel, Cube, Kind, Origin, Status
from holdfast.encode.base import Experience, Trajectory
from holdfast.encode.junk import why_nothing
from holdfast.encode.records import CASES, MAKER, RUN, Unit, derived, listed
from holdfast.encode.slots import derived_id, is_heard, said_at, speaker

PROFILE = ()  # stretches of what is remembered elsewhere

WRITER = "skill_writing"
"""Who made it, in the data of what is written by skills."""

CHUNK = 8_000
"""Characters of a run that are one span, and of a turn that are read."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of what was said or done.

    ``sources``: the raw records that it is from, in order. ``author``: whose word it is; None where several people talk.
    """

    text: str
    sources: tuple[Cube, ...]
    author: str | None
    experience: Experience

    @property
    def trust(self) -> float:
        """That of its least trusted source; what an assistant says between people is no testimony, and lowers nothing."""
        said = [cube for cube in self.sources if not _is_assistant(cube)] or self.sources
        return min(cube.origin.trust for cube in said)

    @property
    def taint(self) -> set[str]:
        """What from outside had a part in it."""
        return {one for source in self.sources for one in source.origin.taint}

    def sees(self, cube: Cube) -> bool:
        """Whether a memory is shown beside this: nothing that is another's, from outside or for other readers could then come back
        in words that pass for this span's own."""
        origin, first = cube.origin, self.sources[0]
        whose = origin.author == self.author and cube.scope.agent == first.scope.agent and cube.policy == first.policy
        return whose and set(origin.taint) <= self.taint

    def may_change(self, cube: Cube) -> bool:
        """Whether a memory that is shown is no more trusted than this, and holds all from outside that this does."""
        return self.sees(cube) and self.trust >= cube.origin.trust and self.taint <= set(cube.origin.taint)

    def made(self, text: str) -> Cube:
        """A new memory: a fact of a dialogue, a note on a run. The same words from the same span are the same memory."""
        if self.experience.trajectory is not None:
            note = derived(self.experience, WRITER, Unit.NOTE, text).cube
            assert note is not None
            return note
        last = self.sources[-1]
        refs = tuple(turn.ref for turn in self.sources)
        return Cube(
            last.scope,
            text,
            Kind.FACT,
            data={MAKER: WRITER, RUN: f"{self.sources[0].id}-{last.id}"},
            valid_from=said_at(last, self.experience.now),
            origin=Origin(Channel.DERIVED, self.author, last.origin.reference, self.trust, refs),
            policy=last.policy,
            id=derived_id(last.id, f"{WRITER} {text}"),
        )

    def remade(self, cube: Cube, text: str) -> Cube:
        """A memory in other words, of which this is a source from then on."""
        refs = tuple(dict.fromkeys((*cube.origin.derived_from, *(source.ref for source in self.sources))))
        data = dict(cube.data)
        if self.experience.trajectory is not None:  # by which a run that is taken in again is known
            data[CASES] = list(dict.fromkeys((*listed(cube, CASES), self.sources[0].id)))
        return cube.with_(text=text, data=data, origin=replace(cube.origin, derived_from=refs))


def is_ours(cube: Cube) -> bool:
    """Whether skills wrote a memory, and may change it."""
    ours = cube.data.get(MAKER) == WRITER and cube.origin.channel is Channel.DERIVED
    return ours and cube.status in RECALLABLE and cube.status is not Status.FROZEN


def of_run(experience: Experience, trajectory: Trajectory) -> Iterator[Span]:
    """A run in as few stretches as may be; each begins with the task."""
    head = f"Task: {trajectory.task}"
    lines = [f"{step.action} -> {step.observation}" if step.observation else step.action for step in trajectory.steps]
    lines += [f"Answer: {trajectory.answer}"] if trajectory.answer else []
    chunks = [[head]]
    for line in lines:
        if len(chunks[-1]) > 1 and sum(map(len, chunks[-1])) + len(line) > CHUNK:
            chunks.append([head])
        chunks[-1].append(line[:CHUNK])
    case = experience.turns[0]
    for chunk in chunks:
        yield Span("\n".join(chunk), (case,), case.origin.author, experience)


def of_dialogue(experience: Experience, most: int) -> Iterator[Span]:
    """Turns of one scope and policy, so many at most. What is from outside stands apart; assistants alone make no span."""
    heard = [turn for turn in experience.turns if is_heard(turn) and why_nothing(turn.text) is None]
    for _, group in groupby(heard, key=_apart):
        some = tuple(group)
        for start in range(0, len(some), most):
            turns = some[start : start + most]
            speakers = {speaker(turn) for turn in turns if not _is_assistant(turn)}
            if speakers:
                author = speakers.pop() if len(speakers) == 1 else None
                yield Span("\n".join(_line(turn, experience) for turn in turns), turns, author, experience)


def _apart(turn: Cube) -> tuple[object, ...]:
    """Turns that differ in this are of different spans."""
    outside = turn.origin.channel in EXTERNAL or bool(turn.origin.taint)
    return turn.scope, turn.policy, turn.id if outside else ""


def _line(turn: Cube, experience: Experience) -> str:
    who = "assistant" if _is_assistant(turn) else speaker(turn)
    return f"[{said_at(turn, experience.now):%Y-%m-%d %H:%M}] {who}: {turn.text[:CHUNK]}"


def _is_assistant(turn: Cube) -> bool:
    return turn.origin.channel is Channel.ASSISTANT or turn.data.get("role") == "assistant"
