"""Memories as facts in a model's weights: what is trusted, stable and often used, said without being read.

The third form (MemOS, arXiv 2507.03724 §5.5, parametric memory), by an editor of ``weights``: a side memory (WISE, arXiv
2405.14768), or adapters that the model distils from the text. A fact is promoted only where the model then tells it in contexts
that it was not taught in, and still says of other texts what it said; the text stays, as lineage and to fall back on. What an
editor has learnt of a fact is kept as a cube of the form ``weights``, derived from the fact, so that whoever may read the fact may
have it and nobody else, and another program need not teach it again.

Forgotten, a fact goes out of the model with all that was made of it, and the model is asked: in the very words, in other words,
after words of its own, and whether what it says of the fact still tells it from one that it never saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from holdfast.cube import EXTERNAL, Channel, Cube, Form, Ref, Scope
from holdfast.errors import InputError, IntegrityError, StaleError
from holdfast.keeping import Apply, made, recallable, standing
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation, Where
from holdfast.store.forms import Kept
from holdfast.store.sql import SqlStore
from holdfast.teaching import Lesson, Teach, edit_of, lesson_of, reading
from holdfast.weights.base import Teachable, evaluating
from holdfast.weights.membership import membership
from holdfast.weights.probing import Knows, Probe, answers_of, knows
from holdfast.weights.prompts import BARE, padded, split, templates_of, tokens

KIND = "edit"
"""The kind of the cubes that hold what an editor learnt of a fact."""

_HELD_OUT = (7, 13)  # words of the contexts in which a fact is asked for; it is taught in shorter and longer ones


@dataclass(frozen=True, slots=True)
class Gate:
    """What a memory must be to go into weights, and what the model must be afterwards.

    Fields
        trust: of the memory, at least.
        age: since it was recorded in this version: what still changes is better left as text. ``ripe`` asks for it.
        visits: how often feedback came in on it. ``ripe`` asks for it.
        idle: of what no feedback came in on for so long, since it was recorded at least, the text alone is left. ``tick`` asks
            for it; None: it does not.
        passing: share of the held-out prompts that must tell it.
        of_read: of what is taught together, the share of all held-out prompts that tell it, as a share of those that do where the
            model reads the memory first; 0: not asked. Where it is too little, those that fall short of it go.
        drift: how far, in nats a token, the model may say something else of texts that have nothing to do with it.
    """

    trust: float = 0.8
    age: timedelta = timedelta(days=1)
    visits: int = 2
    idle: timedelta | None = None
    passing: float = 0.5
    drift: float = 0.01
    of_read: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= one <= 1 for one in (self.trust, self.passing, self.of_read)) or self.drift < 0:
            raise InputError("trust and the shares that pass lie between 0 and 1, and drift is no less than 0")


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came of promoting: the cubes of the form ``weights``, and of each memory that was not promoted the reason.

    ``demoted``: the ids of what was let go of, of which the text alone is left.
    """

    cubes: tuple[Cube, ...]
    refused: Mapping[str, str]
    demoted: tuple[str, ...] = ()


class Imprint:
    """The facts of one scope in one model; a holder of the store's ``Forms``. ``Memory.imprint`` makes it.

    Args:
        store, scope: where the memories are, and whose; nobody else's are ever taught.
        editor: of the model.
        apply: commits what is kept.
        gate, teach: see there.
        controls: texts of which the model must go on saying what it says; its own words, where none are given.
        contexts: with ``{}`` where a prompt stands: a fact is asked for in them too, and never taught in them. The model makes its
            own, where none are given.
    """

    def __init__(
        self,
        store: SqlStore,
        scope: Scope,
        editor: Teachable,
        apply: Apply,
        *,
        gate: Gate | None = None,
        teach: Teach | None = None,
        controls: Sequence[str] = (),
        contexts: Sequence[str] = (),
        name: str = "weights",
    ) -> None:
        if editor.edits:
            raise InputError("this editor holds edits already, which nobody knows the source of: give an empty one")
        self._store, self._scope, self._apply, self._name = store, scope, apply, name
        self.editor, self.gate = editor, gate or Gate()
        self._teach = reading(teach or lesson_of)
        self._contexts = tuple(contexts) or templates_of(editor.model, editor.tokenizer, _HELD_OUT)
        self._controls = [tokens(editor.tokenizer, text) for text in controls] or editor.unrelated
        self._refs: dict[str, Ref] = {}
        self._lessons: dict[str, Lesson] = {}
        self._asked: dict[str, float] = {}
        self._in_vain: dict[str, Ref] = {}  # what did not pass
        self.problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """See ``Holder``."""
        return self._name

    @property
    def scope(self) -> Scope:
        """Whose facts these are."""
        return self._scope

    @property
    def facts(self) -> tuple[str, ...]:
        """The ids of the memories that the model tells, oldest first."""
        return tuple(self._refs)

    def ripe(self) -> list[Cube]:
        """Memories of this scope that could be promoted, by the gate: trusted, unchanged for long enough and used often enough.

        What the model did not learn in this version is not tried again, but by ``promote`` itself.
        """
        now = self._store.now()
        return [
            cube
            for cube in self._store.select(self._scope)
            if cube.form is Form.TEXT
            and cube.id not in self._refs
            and not self._unfit(cube)
            and cube.use.visits >= self.gate.visits
            and cube.recorded_at is not None
            and now - cube.recorded_at >= self.gate.age
            and not self._cold(cube)
            and self._in_vain.get(cube.id) != cube.ref
        ]

    def tick(self) -> Promotion:
        """Promote what is ripe, and demote what has gone cold; to be called now and then. Raises what a commit raises."""
        self.load()
        cold = [id for id in self._refs if self._cold(recallable(self._store, self._scope, id))]
        self.demote(cold)
        return replace(self.promote(self.ripe()), demoted=tuple(cold))

    def demote(self, ids: Iterable[str]) -> None:
        """Take facts out of the model, and let go of what was kept of them, so that no program takes them up; the texts stay."""
        gone = {id for id in ids if id in self._refs}
        if gone:
            self._let_go(list(gone))
            rows = [cube for cube in self._kept() if any(ref.id in gone for ref in cube.origin.derived_from)]
            self._purge(rows, "demoted")

    def promote(self, cubes: Iterable[Cube | Hit | str]) -> Promotion:
        """Teach the model some memories; each stays only if it passes the gate.

        They are taught one after another, or together by an editor that learns them in one piece. What cannot be promoted is told
        with its reason, and nothing of it stays. Raises NotFoundError for a memory that is not to be recalled in this scope
        (quarantined, archived, expired, another's), InputError for what is no text, and what a commit raises.
        """
        self.load()
        refused: dict[str, str] = {}
        ready: dict[str, tuple[Cube, Lesson]] = {}
        wanted = [recallable(self._store, self._scope, one if isinstance(one, str) else one.id) for one in cubes]
        for cube in wanted:
            if cube.form is not Form.TEXT:
                raise InputError(f"{cube.id} is no text but a {cube.form}: only text is taught")
            if self._refs.get(cube.id) == cube.ref:
                continue
            lesson = self._teach(cube)
            reason = self._unfit(cube) or self._unsaid(lesson)
            if reason:
                refused[cube.id] = reason
            elif lesson is not None:
                ready[cube.id] = cube, lesson
        for ids in [list(ready)] if self.editor.together else [[id] for id in ready]:
            refused |= self._taught({id: ready[id] for id in ids})
        for id in ready:  # what was taught later may have worn it down, and what was forgotten meanwhile is not to stay
            if id not in self._refs:
                continue
            if not self._holds(self._refs[id]):
                refused[id] = "it was changed or taken back while it was taught"
            elif reason := self._untold(self._lessons[id]):
                refused[id] = f"{reason}, once the others were taught"
            else:
                continue
            self._unlearn([id])
        self._in_vain |= {cube.id: cube.ref for cube in wanted if cube.id in refused}
        kept = self._save()
        return Promotion(tuple(kept[id] for id in (cube.id for cube in wanted) if id in kept), refused)

    def load(self) -> tuple[str, ...]:
        """Follow the store: take up what another program kept, and let go of what no longer holds. The ids that are new.

        ``problems`` says of what was kept for this model and could not be taken up why; the text is still there.
        """
        self._store.owner.forms.follow()
        self._let_go([id for id, ref in self._refs.items() if not self._holds(ref)])  # what has expired makes no event
        new: list[str] = []
        problems: list[str] = []
        # Of a shard that grew, the file with more in it first: the others are passed over.
        for cube in sorted(self._kept(), key=lambda one: -len(one.origin.derived_from)):
            sources = {ref.id: ref for ref in cube.origin.derived_from}
            if sources.keys() & self._refs.keys() or not all(map(self._holds, sources.values())):
                continue
            texts = {id: recallable(self._store, self._scope, id) for id in sources}
            lessons = {id: lesson for id, text in texts.items() if (lesson := self._teach(text)) is not None}
            if lessons.keys() != sources.keys() or any(map(self._unfit, texts.values())):
                continue  # they would not be taught any more
            try:
                ids = self.editor.join(self._store.blobs.read(cube))
            except (InputError, IntegrityError, StaleError) as error:
                problems.append(f"{cube.id}: {error}")
                continue
            if set(ids) != sources.keys():
                self.editor.forget(ids)
                problems.append(f"{cube.id}: its file holds other edits than those of the memories that it was made of")
                continue
            self._refs.update(sources)
            self._lessons.update(lessons)
            new += ids
        self.problems = tuple(problems)
        return tuple(new)

    def probe(self, ids: Iterable[str] = ()) -> Knows | None:
        """What the model knows of these facts as it is now, of all where none are given; None where there is nothing to ask."""
        some = [self._lessons[id] for id in (tuple(ids) or self.facts) if id in self._lessons]
        return self._knows(some)

    # --- a holder ---

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """See ``Holder``."""
        return [Kept(ref, f"an edit for {id}") for id, ref in self._refs.items() if ids is None or id in ids]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """See ``Holder``: out of the model, which is asked before and afterwards; see ``measured``."""
        gone = [one.ref.id for one in kept if self._refs.get(one.ref.id) == one.ref]
        self._asked = {}
        if gone:
            lessons = [self._lessons[id] for id in gone]
            others = [lesson for id, lesson in self._lessons.items() if id not in gone]
            before, near = self._knows(lessons), self._knows(others)
            self._unlearn(gone)
            self._asked = self._compared(lessons, before, others, near)
            self._save()
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        """See ``Holder``: what no longer holds is not told any more."""
        self._let_go([one.ref.id for one in kept if self._refs.get(one.ref.id) == one.ref])

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """See ``Holder``."""
        there = {edit.id for edit in self.editor.edits}
        return [f"an edit for {one.ref.id} is still in the model" for one in kept if one.ref.id in there]

    def measured(self) -> Mapping[str, float]:
        """See ``Probing``: what the model said when it was last made to forget."""
        return dict(self._asked)

    # --- inside ---

    def _unfit(self, cube: Cube) -> str:
        """Why a memory is not to be taught; empty where it may be."""
        if cube.origin.trust < self.gate.trust:
            return f"its trust is {cube.origin.trust:g}, and {self.gate.trust:g} is asked for"
        if cube.origin.taint or cube.origin.channel in EXTERNAL:
            return "it comes from outside, or was made of what does: anybody may have written it"
        if cube.origin.channel is Channel.ASSISTANT:
            return "a model said it itself"
        return ""

    def _cold(self, cube: Cube) -> bool:
        """Whether no feedback came in on a memory for as long as the gate says."""
        since = cube.use.last_use or cube.recorded_at
        return self.gate.idle is not None and since is not None and self._store.now() - since >= self.gate.idle

    def _unsaid(self, lesson: Lesson | None) -> str:
        """Why nothing can be taught of a memory; empty where something can."""
        if lesson is None:
            return "there is no prompt in it that it would be the answer of"
        try:
            split(self.editor.tokenizer, lesson.prompt, lesson.target)
        except InputError as error:
            return str(error)
        return ""

    def _taught(self, some: Mapping[str, tuple[Cube, Lesson]]) -> dict[str, str]:
        """Teach some memories in one call; of each that did not stay, why."""
        if not some:
            return {}
        self._unlearn([id for id in some if id in self._refs])  # older versions
        try:
            self.editor.edit([edit_of(cube, lesson) for cube, lesson in some.values()])
        except InputError as error:
            return dict.fromkeys(some, str(error))
        for id, (cube, lesson) in some.items():
            self._refs[id], self._lessons[id] = cube.ref, lesson
        refused: dict[str, str] = {}
        while staying := [id for id in some if id not in refused]:
            failing = {id: reason for id in staying if (reason := self._untold(self._lessons[id]))}
            failing = failing or self._unread(staying)
            if not failing and (reason := self._drifted()):
                failing = dict.fromkeys(staying, reason)
            if not failing:
                break
            self._unlearn(list(failing))
            refused |= failing  # what is left was learnt again without them, and is asked again
        return refused

    def _untold(self, lesson: Lesson) -> str:
        """Why a lesson does not pass, or nothing."""
        asked = self._knows([lesson])
        if asked is None or asked.direct < 1:
            return "the model does not tell it"
        held_out = [share for share in (asked.rephrased, asked.sampled) if share is not None]
        if not held_out:
            return ""
        if min(held_out) < self.gate.passing:
            return f"asked otherwise, the model tells it {min(held_out):.0%} of the time, and {self.gate.passing:.0%} is asked for"
        return ""

    def _unread(self, ids: Sequence[str]) -> dict[str, str]:
        """Where too little is told of what the model tells when it reads these memories: by which of them, and why."""
        if not self.gate.of_read:
            return {}
        lessons = [self._lessons[id] for id in ids]
        told, read = self._held_out(lessons), self._held_out(lessons, read=True)
        if sum(told) >= self.gate.of_read * sum(read):
            return {}
        return {
            id: f"asked otherwise, the model tells it {ours:.0%} of the time, and {theirs:.0%} when it reads it"
            for id, ours, theirs in zip(ids, told, read, strict=True)
            if ours < self.gate.of_read * theirs
        }

    def _held_out(self, lessons: Sequence[Lesson], *, read: bool = False) -> list[float]:
        """Of each lesson the share of prompts that it was not taught after, and that it is told after.

        ``read``: by the model as it was, with the memory's words before each.
        """
        rows = []
        for one in lessons:
            contexts = (context.replace(BARE, one.prompt) for context in self._contexts if context != BARE)
            before = one.context if read else ""
            rows.append([(before + prompt, one.target) for prompt in (*one.rephrased, *contexts)])
        with self.editor.apart() if read else self.editor.on():
            found = iter(answers_of(self.editor.model, self.editor.tokenizer, [row for some in rows for row in some]))
        return [sum(next(found).told for _ in some) / max(1, len(some)) for some in rows]

    def _drifted(self) -> str:
        drift = self.drift()
        if drift > self.gate.drift:
            return f"the model says something else of other texts: {drift:.3f} nats a token, and {self.gate.drift:g} is allowed"
        return ""

    def drift(self) -> float:
        """How far the model, with all that it was taught, says something else of the controls: mean divergence, nats a token."""
        model, total, count = self.editor.model, 0.0, 0
        for start in range(0, len(self._controls), 32):
            ids, mask = padded(self._controls[start : start + 32], next(model.parameters()).device)
            with evaluating(model):
                given = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
                with self.editor.apart():
                    before = model(**given).logits.float().log_softmax(dim=-1)
                with self.editor.on():
                    now = model(**given).logits.float().log_softmax(dim=-1)
                total += float(((before.exp() * (before - now)).sum(dim=-1) * mask).sum())
                count += int(mask.sum())
        return total / count if count else 0.0

    def _knows(self, lessons: Sequence[Lesson], *, taught: bool = True) -> Knows | None:
        """What the model tells of some lessons, or would, had it been taught nothing; None where there are none."""
        if not lessons:
            return None
        probes = [Probe(one.prompt, one.target, one.rephrased) for one in lessons]
        with self.editor.on() if taught else self.editor.apart():
            return knows(self.editor.model, self.editor.tokenizer, probes, self._contexts)

    def _unlearn(self, ids: Sequence[str]) -> None:
        if ids:
            self.editor.forget(ids)
            for id in ids:
                del self._refs[id], self._lessons[id]

    def _compared(
        self, lessons: Sequence[Lesson], before: Knows | None, others: Sequence[Lesson], near: Knows | None
    ) -> dict[str, float]:
        """What the model says of what it was to forget, beside what it says that was taught nothing; and of what it was to keep."""
        moments = {"before": before, "after": self._knows(lessons), "never": self._knows(lessons, taught=False)}
        asked = {moment: one.to_dict() for moment, one in moments.items() if one is not None}
        found = {f"{kind} {moment}": value for moment, some in asked.items() for kind, value in some.items()}
        # What is left of a difference is how far the other facts reach.
        found["more than never"] = max(value - asked["never"][kind] for kind, value in asked["after"].items())
        now = self._knows(others)
        if near is not None and now is not None:
            found |= {"others before": near.direct, "others after": now.direct}
        for moment, taught in (("after", True), ("never", False)):
            auc = self._member(lessons, taught=taught)
            found |= {f"membership {moment}": auc} if auc is not None else {}
        return found

    def _member(self, lessons: Sequence[Lesson], *, taught: bool) -> float | None:
        """How well the forgotten facts are told from the same prompts with another's answer: 0.5 is not at all; None: too few.

        With few facts a model that never saw them may be far from 0.5 too, so that one is asked beside.
        """
        targets = [one.target for one in lessons]
        swapped = [*targets[1:], targets[0]]
        if len(set(targets)) < 2:
            return None
        rows = [(one.prompt, target) for some in (targets, swapped) for one, target in zip(lessons, some, strict=True)]
        with self.editor.on() if taught else self.editor.apart():
            scores = [one.likelihood for one in answers_of(self.editor.model, self.editor.tokenizer, rows)]
        return membership(scores[: len(lessons)], scores[len(lessons) :], draws=0).auc

    def _let_go(self, ids: Sequence[str]) -> None:
        """Out of the model, which goes on telling what else was learnt with it; and that is kept again."""
        if ids:
            self._unlearn(ids)
            self._save()

    def _holds(self, ref: Ref) -> bool:
        return standing(self._store, self._scope, ref) is not None

    def _kept(self) -> list[Cube]:
        """What is kept for this model and this editor."""
        return list(self._store.select(self._scope, Where(kinds=(KIND,), data={"editor": self.editor.identity})))

    def _save(self) -> dict[str, Cube]:
        """Keep every shard that is not kept as it is, and let go of what was kept of it before; the cube in which each fact is."""
        rows = {one.origin.derived_from: one for one in self._kept()}
        found: dict[str, Cube] = {}
        for number, ids in self.editor.shards.items():
            sources = tuple(self._refs[id] for id in ids if id in self._refs)
            if len(sources) < len(ids) or not all(map(self._holds, sources)):  # it goes when it is looked at next
                continue
            row = rows.pop(sources, None)
            if row is None:
                texts = [recallable(self._store, self._scope, id) for id in ids]
                told = {"editor": self.editor.identity}
                row = made(self._store, texts, self._scope, self.editor.state([number]), KIND, told, form=Form.WEIGHTS)
                self._apply([Operation.add(row)])
            found |= dict.fromkeys(ids, row)
        old = [
            one for sources, one in rows.items() if any(ref.id in self._refs or not self._holds(ref) for ref in sources)
        ]
        self._purge(old, "superseded")
        return found

    def _purge(self, rows: Sequence[Cube], reason: str) -> None:
        """Let go of what was kept; whoever comes first does it."""
        if rows:
            owner = self._store.owner
            purged = owner.purge([one.id for one in rows], self._scope, actor=self._scope.path, reason=reason)
            owner.forms.drop([cube.id for cube in purged.versions])
