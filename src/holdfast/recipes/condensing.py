"""Runs cut down to the steps that matter for the task, beside the insights above them (G-Memory, arXiv 2506.07398, §4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.records import TELL, tell
from holdfast.encode.writing import texts, write
from holdfast.errors import InputError
from holdfast.recipes.base import Composition
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.HIERARCHICAL,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.COMPRESS,),
    subject=(Subject.AGENT,),
)


@dataclass(frozen=True, slots=True)
class Condensing:
    """A composer. Of records of ``kinds`` a model tells the steps that matter, in at most ``words`` words each and one call for
    all; others are told as they are, first. Raises InputError."""

    kinds: tuple[str, ...]
    words: int = 80
    model: Chat | None = None

    def __post_init__(self) -> None:
        if not self.kinds or self.words < 1:
            raise InputError("some kinds of records are condensed, each to one word or more")

    def compose(self, task: str, context: str, hits: Sequence[Hit]) -> Composition:  # noqa: ARG002  (the seam has it)
        """Insights, then what was done in each run. Raises InputError without a model, ChatError."""
        runs = [hit.cube for hit in hits if hit.cube.kind in self.kinds]
        lines = [f"- {tell(hit.cube)}" for hit in hits if hit.cube.kind not in self.kinds]
        if runs:
            instruction = f"For each run, tell in at most {self.words} words the steps of it that matter for the task."
            data = {
                "task": task,
                "runs": [{"task": cube.text, "steps": str(cube.data.get(TELL, ""))} for cube in runs],
            }
            found = write(self.model, "steps", instruction, data, {"runs": texts(len(runs), len(runs))})["runs"]
            lines += [f"{cube.text}: {steps}" for cube, steps in zip(runs, found, strict=True)]
        return Composition("\n".join(lines))
