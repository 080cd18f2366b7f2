"""Taking back, in all three forms: a model learns facts from memory, one source proves false, and it is asked what is left of it.

Everything is made here: a small language model is trained on a world of facts (``bench.fact_world``), facts of two sources are
remembered, read into KV caches and taught to the model's weights; then all that came from one source is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.bench.fact_world import Fact, tokenizer, trained, world
from holdfast.bench.plots import Bars, draw
from holdfast.imprint import Gate
from holdfast.latent.reader import Reader
from holdfast.memory import Memory
from holdfast.teaching import Lesson
from holdfast.torched import torch
from holdfast.weights.base import evaluating
from holdfast.weights.probing import Probe, knows
from holdfast.weights.side_memory import Settings, SideMemory

TRUE, FALSE = "ana", "crm:sync"
"""The two sources: who may stay, and who is taken back."""
USER = "ana"
PEOPLE, STRANGERS, STEPS = 64, 4, 500
LAYER = "model.layers.0.mlp.down_proj"
SETTINGS = Settings(mode="retrieve", shard=1, shards=1, share=0.5, rate=0.03, steps=70, unrelated=16)
"""One fact to a shard, so that one that is forgotten is dropped and nothing else is learnt again."""
GATE = Gate(passing=0.5, drift=0.05)
CONTEXTS = ("today {}", "so then {}", "yesterday people heard that {}")
"""In which the model is asked, and not taught."""

NOISE = 0.1
"""By so much more may be told of what was forgotten: other facts that stay reach a little into prompts that are alike."""

KEPT = 0.98
"""So much of what the model tells of the other source's facts it tells afterwards."""

Progress = Callable[[str, int, int], object]
"""What is being done, and how much of it is."""


@dataclass(frozen=True, slots=True)
class Told:
    """One question, and what was answered before, afterwards, and by a model that never saw the fact; and from which form."""

    prompt: str
    value: str
    source: str
    before: str
    form: str
    after: str
    form_after: str
    never: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What came of it.

    Fields
        recall: share of the world's facts that the model tells, before it is taught anything.
        taught, refused: facts in weights, by source; and why others did not go there.
        states: KV caches on disk, before and afterwards.
        told: questions.
        measured: what the receipt says that the model was asked.
        receipt: as JSON.
        identical: whether the model, with everything taken off it, computes what it did before, to the last bit.
    """

    recall: float
    taught: Mapping[str, int]
    refused: tuple[str, ...]
    states: tuple[int, int]
    told: tuple[Told, ...]
    measured: Mapping[str, float]
    receipt: Mapping[str, Any]
    identical: bool

    @property
    def holds(self) -> bool:
        """Whether what was forgotten is told as if it had never been seen, the rest as before, and the model is untouched."""
        asked = self.measured
        gone = asked.get("more than never", 1.0) <= NOISE
        kept = asked.get("others after", 1.0) >= KEPT * asked.get("others before", 0.0)
        return gone and kept and self.identical

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def take_back(
    folder: Path,
    *,
    seed: int = 0,
    people: int = PEOPLE,
    steps: int = STEPS,
    hidden: int = 1024,
    progress: Progress = lambda *_: None,
) -> TakenBack:
    """Teach, forget and ask, in a store that is made in ``folder``. Raises what the store and the editor raise."""
    drawn, words = world(people, STRANGERS, seed), tokenizer()
    steps_done = iter(range(1, steps + 1))
    model = trained(
        drawn.known, words, steps=steps, hidden=hidden, seed=seed,
        progress=lambda: progress("a small model learns a world of facts", next(steps_done), steps),
    )  # fmt: skip
    facts = _shared_out(drawn.new)
    before = _logits(model, words, drawn.known)
    editor = SideMemory(
        model, words, layer=LAYER, settings=SETTINGS, seed=seed, templates=("{}", "we heard that {}", "people say {}"),
        unrelated=tuple(fact.prompt(at % 4) for at, fact in enumerate(drawn.known[:48])),
    )  # fmt: skip
    lessons = {
        fact.text: Lesson(fact.prompt(), fact.value, fact.rephrased[:1], fact.rephrased[1:]) for fact in drawn.new
    }
    with Memory(folder, user=USER, embedder=None, encoders=(), background=False) as memory:
        reader = Reader(model, words)
        imprint = memory.imprint(editor, gate=GATE, teach=lambda cube: lessons.get(cube.text), contexts=CONTEXTS)
        ids = {fact: memory.add(fact.text, source=source).ids[0] for source, some in facts.items() for fact in some}
        sources = {ids[fact]: source for source, some in facts.items() for fact in some}
        refused: list[str] = []
        for at, id in enumerate(ids.values(), 1):
            refused += memory.promote([id], to="weights", model=imprint).refused.values()
            progress("facts go into its weights", at, len(ids))
        memory.promote(list(ids.values()), to="state", model=reader, exact=False)
        states = len(memory.states(reader).kept)

        def ask(fact: Fact) -> tuple[str, str]:
            reply = memory.chat(fact.prompt(), model=reader, imprint=imprint, length=1, k=1)
            return reply.text, str(reply.form)

        taught = [fact for fact, id in ids.items() if id in imprint.facts]
        shown = [fact for source in facts for fact in [one for one in taught if sources[ids[one]] == source][:3]]
        said = {fact: ask(fact) for fact in shown}
        counts = {source: sum(sources[id] == source for id in imprint.facts) for source in facts}
        receipt = memory.forget(source=FALSE, reason="the account was taken over")
        receipt.verify()
        measured = next((step.measured for step in receipt.forms if step.holder == imprint.name), {})
        now = {fact: ask(fact) for fact in shown}
        left = len(memory.states(reader).kept)
    editor.detach()
    told = tuple(
        Told(fact.prompt(), fact.value, sources[ids[fact]], *said[fact], *now[fact], _answer(model, words, fact))
        for fact in shown
    )
    same = torch.equal(before, _logits(model, words, drawn.known))
    recall = knows(model, words, [Probe(fact.prompt(), fact.value) for fact in drawn.known]).direct
    return TakenBack(
        recall, counts, tuple(refused), (states, left), told, dict(measured), receipt.to_dict(), bool(same)
    )


def plot(found: TakenBack, path: Path) -> None:
    """What the model knows of the facts before they were forgotten, afterwards, and had it never seen them; and of the others."""
    asked = found.measured
    before, after, never = "before", "after forget", "never seen"
    panels = [
        Bars(
            {
                name: asked[f"{kind} {moment}"]
                for name, moment in ((before, "before"), (after, "after"), (never, "never"))
                if f"{kind} {moment}" in asked
            },
            title=title,
            ours=(after,),
            controls=(never,),
            percent=True,
            limits=(0.0, 1.0),
        )
        for kind, title in (
            ("direct", "told in the words it was taught in"),
            ("rephrased", "told in other words"),
            ("sampled", "told in other contexts"),
        )
        if f"{kind} before" in asked
    ]
    if "others before" in asked:
        panels.append(
            Bars(
                {before: asked["others before"], after: asked["others after"]},
                title="facts of the other source",
                ours=(after,),
                percent=True,
                limits=(0.0, 1.0),
            )
        )
    draw(
        path,
        panels,
        title="What the model knows of what was forgotten",
        subtitle="forget(source=…), asked of the model",
    )


def _shared_out(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Every other person's facts are of one source, and the others' of the other."""
    people = list(dict.fromkeys(fact.person for fact in facts))
    found: dict[str, list[Fact]] = {TRUE: [], FALSE: []}
    for fact in facts:
        found[FALSE if people.index(fact.person) % 2 else TRUE].append(fact)
    return found


def _answer(model: Any, words: Any, fact: Fact) -> str:
    with evaluating(model):
        ids = torch.tensor([words(fact.prompt())["input_ids"]])
        return str(words.decode(model(input_ids=ids, use_cache=False).logits[0, -1].argmax()))


def _logits(model: Any, words: Any, facts: Sequence[Fact]) -> Any:
    with evaluating(model):
        rows = [words(fact.prompt())["input_ids"] for fact in facts[:16]]
        return torch.cat([model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1] for row in rows])
