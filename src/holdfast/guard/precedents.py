"""Precedents: what was done in a like case and may be done again, and what was caught there (A-MemGuard, arXiv 2510.02373).

The paper's hooks, after retrieval and before action, in one step. Raw records of experience are recalled, widely and with few of
any one source; each is read as a chain; what a quorum of independent sources agrees on is kept; what was caught becomes a
lesson; and the lessons that speak of any of these actions are given beside. Without a quorum nothing is kept. A lesson is for
showing: it warns, and blocks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.cube import Cube, Form, Kind, Scope
from holdfast.errors import HoldfastError, InputError
from holdfast.guard.analogy import applied
from holdfast.guard.base import Dropped, Guard, Lookup, Verdict, sources_in, voter
from holdfast.guard.chains import Ask, Chain, Effect, Extractor, by_model, structured
from holdfast.guard.consensus import ConsensusGuard, spread
from holdfast.guard.judge import JudgeGuard, by_chat
from holdfast.guard.lessons import Caution, LessonStore, render
from holdfast.guard.sql import sql
from holdfast.retrieve.fusion import UNLIKELY
from holdfast.retrieve.hits import Hit, Hits
from holdfast.store.base import Store
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES, Function.STRATEGIES),
    retrieval=(Retrieval.ON_REQUEST, Retrieval.FILTER),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

KINDS = (Kind.EXPERIENCE, Kind.SKILL)
"""What tells how something was done. Facts and messages are no precedents, and lessons come from here alone."""

K = 12
"""So many records are compared."""

ABOUT = 0.3
"""A record that is less than so many times as likely to be about the task as the best ones has no say in it."""

BREADTH = 2
"""So many times as many are recalled, so that one source does not fill what is compared (``consensus.spread``)."""

_PER_SOURCE = 2
_STEPS = ("operation", "steps", "tool_calls")


@dataclass(frozen=True, slots=True)
class Precedents:
    """What some experience says of a task. True where anything may be acted upon.

    Fields
        task: what was asked.
        kept: what may be acted upon, best first; empty where ``abstained``.
        dropped: what was compared and must not be acted upon, each with its reason.
        abstained: nothing here may be acted upon; ``reason`` says why.
        quorum: the share of the votes' weight that agrees with what was kept, between 0 and 1.
        chains: what each record would lead to, by its id, where that can be read.
        cautions: the lessons that speak of what any of these records would do, those with the most evidence first.
        learnt: the ids of the lessons that were drawn, or drawn again, just now.
        degraded: what could not be used, as in ``Hits``.
    """

    task: str
    kept: tuple[Hit, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    abstained: bool = False
    quorum: float = 0.0
    reason: str = ""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()
    learnt: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kept)

    @property
    def warning(self) -> str:
        """The cautions as fenced data for a prompt; "" where there are none."""
        return render(self.cautions)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "task": self.task,
            "abstained": self.abstained,
            "reason": self.reason,
            "quorum": round(self.quorum, 4),
            "kept": [{**hit.to_dict(), "leads_to": _told(self.chains.get(hit.id))} for hit in self.kept],
            "dropped": [
                {**one.hit.to_dict(), "leads_to": _told(self.chains.get(one.hit.id)), "reason": one.reason}
                for one in self.dropped
            ],
            "cautions": [one.to_dict() for one in self.cautions],
            "learnt": list(self.learnt),
            "degraded": list(self.degraded),
        }


def weigh(
    task: str,
    hits: Hits,
    store: Store,
    scope: Scope,
    lessons: LessonStore,
    *,
    guard: Guard | None = None,
    k: int = K,
    extract: Extractor | None = None,
    model: Ask | None = None,
    judge: bool = False,
    min_sources: int = 2,
    learn: bool = True,
) -> Precedents:
    """Compare what some hits would lead to: raw records of ``KINDS``, best first, about ``BREADTH`` times ``k`` of them.

    ``store`` and ``scope`` show what derived records were made from. A ``guard`` of the memory has the first word. Chains are
    read from a record's data (``recorded``), by ``extract``, or by a chat ``model``. ``judge``: the model is asked besides, as
    in the paper, and what it does not find consistent and safe is dropped too. ``min_sources``: how many sources must stand
    behind an effect. ``learn``: draw lessons. Raises InputError for settings that contradict each other.
    """
    if model is None and judge:
        raise InputError("a judge is a chat model: give model=")
    if model is not None and extract is not None:
        raise InputError("chains are read by a model or by an extractor, not by both: give one of model= and extract=")
    first = Verdict(tuple(hits)) if guard is None else guard.check(task, hits)
    unlike = _unlike(hits)
    if unlike or first.abstained:
        why = hits.reason if unlike else first.reason
        dropped = tuple(Dropped(hit, why) for hit in hits[:k])
        return Precedents(task, (), dropped, True, reason=why, degraded=hits.degraded)
    lookup = sources_in(store, scope)
    reads = extract or (recorded() if model is None else by_model(model))
    consensus = ConsensusGuard(reads, min_sources=min_sources, lookup=lookup)
    seen = spread(about(first.kept, min_sources, lookup), k, per_source=_PER_SOURCE, lookup=lookup)
    known = consensus.chains(task, seen)
    verdict = consensus.check(task, seen, known=known)
    learnt = lessons.add_from(verdict, task, known) if learn else ()
    if verdict.abstained:
        verdict = reading(task, seen, consensus, known) or verdict
    chains = {id: chain for id, chain in known.items() if isinstance(chain, Chain)}
    if judge and model is not None:
        verdict = _judged(task, verdict, chains, model)
    does = frozenset[Effect]().union(*(chain.effects for chain in chains.values()))
    return Precedents(
        task,
        verdict.kept,
        (*first.dropped, *verdict.dropped),
        not verdict.kept,
        verdict.quorum if verdict.kept else 0.0,
        verdict.reason,
        chains,
        lessons.for_action(Chain("", effects=does), task),
        tuple(lesson.id for lesson in learnt),
        hits.degraded,
    )


def _unlike(hits: Hits) -> bool:
    """Whether nothing that was found is about the task.

    The chance that a hit is the answer is shared among those that are alike, and precedents are. So by words alone it is low for
    the best of them, and only the meaning tells that none is about it.
    """
    return hits.abstain and (not hits or any("meaning" in hit.channels for hit in hits))


def about(hits: Sequence[Hit], min_sources: int, lookup: Lookup) -> list[Hit]:
    """The hits that are about the task, measured by the best of the source that comes ``min_sources``-th.

    Not by the best of all, nor by what may authorise nothing: records that repeat the task would shut out everybody else.
    """
    best: dict[str, float] = {}
    for hit in hits:
        whose = voter(hit.cube, lookup)
        if whose.authorises:
            best[whose.source] = max(best.get(whose.source, 0.0), hit.relevance)
    bar = ABOUT * min(sorted(best.values(), reverse=True)[:min_sources], default=0.0)
    return [hit for hit in hits if hit.relevance >= bar]


def reading(
    task: str, hits: Sequence[Hit], consensus: ConsensusGuard, known: Mapping[str, Chain | HoldfastError | None]
) -> Verdict | None:
    """What the records that are likely to be about the task agree on, where that only reads; None otherwise.

    Most experiences were made once, and what is found beside the one is about something else and agrees with nobody. It
    may be followed as far as nothing comes of it but an answer: whatever has an effect waits for those beside it.
    """
    likely = [hit for hit in hits if hit.relevance >= UNLIKELY]
    chains = [known.get(hit.id) for hit in likely]
    if not likely or any(isinstance(chain, Chain) and chain.effects for chain in chains):
        return None
    verdict = consensus.check(task, likely, known=known)
    if not verdict.kept:
        return None
    rest = tuple(Dropped(hit, "it is hardly about the task") for hit in hits if hit not in likely)
    return replace(verdict, dropped=(*verdict.dropped, *rest))


def recorded() -> Extractor:
    """What a record's data say was done, told for the query (``guard.analogy``): steps (``chains.structured``), SQL under
    ``sql``, or both, of which neither may hide."""
    steps = structured()

    def extract(query: str, cube: Cube) -> Chain | None:
        cube = applied(query, cube)
        if "sql" not in cube.data:
            return steps(query, cube)
        stated = sql(query, cube)
        if stated is None or not any(key in cube.data for key in _STEPS):
            return stated
        done = steps(query, cube)
        return None if done is None else replace(done, effects=done.effects | stated.effects)

    return extract


def _judged(task: str, verdict: Verdict, chains: Mapping[str, Chain], model: Ask) -> Verdict:
    """What the judge leaves of what was kept: it takes away, and adds nothing."""
    if not verdict.kept:
        return verdict
    said = JudgeGuard(lambda _, cube: chains[cube.id], by_chat(model)).check(task, verdict.kept)
    return replace(said, dropped=(*verdict.dropped, *said.dropped), quorum=verdict.quorum)


def _told(chain: Chain | None) -> dict[str, Any] | None:
    if chain is None:
        return None
    effects = [{"kind": str(effect.kind), "target": effect.target} for effect in sorted(chain.effects)]
    return {"operation": chain.operation, "object": chain.object, "effects": effects}
