"""The loop of memory-augmented generation (MemOS, arXiv 2505.22101): read, inject, generate, write back.

Every version that a prompt held is named in the trace, and the answer is stored as derived from exactly those versions. So
an answer can be explained by what it was made from, and goes with its sources when they are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.chat import count_tokens
from holdfast.cube import Channel, Cube, Form, Origin, Ref
from holdfast.memory import Memory
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.AGENT),
)

Generate = Callable[[str, str], str]
"""(recalled context, query) -> answer. The context is fenced data, or "" where nothing is worth telling."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What one step did: the versions used in the order of the prompt, what they cost, and what was written back."""

    query: str
    answer: str
    used: tuple[Cube, ...]
    tokens: int
    written: tuple[str, ...]

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The exact versions that the answer was made from."""
        return tuple(cube.ref for cube in self.used)

    def explain(self) -> str:
        """One line a memory: its id and version, its form, what it costs in tokens, and its words."""
        lines = [f"{len(self.used)} memories, {self.tokens} tokens"]
        lines += [f"{c.id} v{c.version} {c.form} {count_tokens(c.text)} tokens: {c.text[:80]}" for c in self.used]
        return "\n".join(lines)


class MAGLoop:
    """Answers queries with memory and remembers what was said.

    Args:
        memory: where to read and write.
        generate: the model, or anything that answers from a context.
        budget: tokens of context a step may use.
        write_back: keep the query and the answer as turns.
    """

    def __init__(self, memory: Memory, generate: Generate, *, budget: int = 800, write_back: bool = True) -> None:
        self._memory = memory
        self._generate = generate
        self._budget = budget
        self._write_back = write_back

    def step(
        self, query: str, *, user: str | None = None, agent: str | None = None, session: str | None = None
    ) -> tuple[str, Trace]:
        """One turn: the answer, and the trace of what it was made from; both turns are kept under ``session``.

        Raises what ``Memory.search`` and the model raise.
        """
        packed = self._memory.pack(query, budget=self._budget, user=user, agent=agent)
        answer = self._generate(packed.text, query)
        written: tuple[str, ...] = ()
        if self._write_back and answer.strip():
            here = self._memory.scope(user=user, agent=agent, session=session)
            origin = Origin(Channel.ASSISTANT, "assistant", trust=0.8, derived_from=tuple(c.ref for c in packed.cubes))
            turns = [
                Cube(here, query, data={"role": "user"}, origin=Origin(Channel.USER, "user")),
                Cube(here, answer, data={"role": "assistant"}, origin=origin),
            ]
            written = self._memory.add(turns, user=user, agent=agent, session=session).ids
        return answer, Trace(query, answer, packed.cubes, packed.tokens, written)
