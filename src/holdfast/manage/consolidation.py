"""Consolidation: near-duplicate derived memories become one, as a proposal with a diff (MemOS, arXiv 2507.03724 §5).

Only what was derived is ever merged; verbatim turns, documents and records of experience are the evidence and stay as they
are: before acting, a guard compares who did what, and a merge of two people's records is one voice. A merge must not lose
content, change who may read a memory or how long it lives, or mix levels of trust: two cubes are duplicates only within one
scope, kind, policy, channel and trust, and only where they state the same claim or the one that is kept says every word of
the other, in the same order.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.cube import Cube, Form, Kind, Ref, Scope, Status, Use
from holdfast.errors import InputError
from holdfast.manage.statements import learnt_at, statement_of
from holdfast.store.base import Op, Operation, Store, Where
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.CONSOLIDATE_LOCAL,),
    subject=(Subject.USER, Subject.WORLD),
)

_VERBATIM = frozenset({Kind.MESSAGE, Kind.DOCUMENT, Kind.EXPERIENCE, Kind.SKILL})
# Signs, currencies and question marks can change what is said, so only neutral punctuation is dropped.
_TOKEN = re.compile(r"[-+−]?\d+(?:[.,:/]\d+)*|\w+(?:['’]\w+)*|[^\w\s.,;:!\"'()\[\]{}…“”‘’—–]")
_ARTICLES = frozenset(("a", "an", "the"))
_REVERSALS = frozenset(
    (
        "no",
        "not",
        "never",
        "none",
        "nor",
        "cannot",
        "without",
        "unless",
        "except",
        "until",
        "if",
        "maybe",
        "might",
        "could",
        "would",
        "former",
        "formerly",
        "once",
        "used",
        "denied",
        "denies",
        "false",
        "wrong",
        "?",
        "-",
    )
)
_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Candidate:
    cube: Cube
    words: tuple[str, ...]
    claim: tuple[object, ...] | None
    learnt: datetime
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Consolidation:
    """Proposes to merge near-duplicates: the keeper takes over lineage and use, the others become ``merged``.

    Fields
        jaccard: the least share of words in common (token sets) for texts that state no common claim.
        cosine: the least cosine between their vectors, where ``vectors`` (cube id to vector) holds both.

    Raises InputError for a threshold outside (0, 1].
    """

    jaccard: float = 0.9
    cosine: float = 0.95
    vectors: Mapping[str, npt.NDArray[np.floating[Any]]] | None = None

    def __post_init__(self) -> None:
        if not (0.0 < self.jaccard <= 1.0 and 0.0 < self.cosine <= 1.0):
            raise InputError("the thresholds jaccard and cosine lie in (0, 1]")

    def manage(self, store: Store, scope: Scope, now: datetime) -> list[Operation]:
        """For each set of duplicates one update of the keeper and one of each cube merged into it."""
        groups: dict[tuple[object, ...], list[_Candidate]] = defaultdict(list)
        for cube in store.select(scope, Where(statuses=(Status.GENERATED, Status.ACTIVATED))):
            if cube.kind not in _VERBATIM and cube.form is Form.TEXT:
                groups[cube.scope, cube.kind, cube.policy, cube.origin.channel, cube.origin.trust].append(
                    _candidate(cube, now)
                )
        return [operation for group in groups.values() for operation in self._merge(group)]

    def _merge(self, group: list[_Candidate]) -> Iterator[Operation]:
        frequency = Counter(word for candidate in group for word in set(candidate.words))
        by_word: dict[str, list[int]] = defaultdict(list)
        by_claim: dict[tuple[object, ...], list[int]] = defaultdict(list)
        clusters: list[list[_Candidate]] = []
        # The fullest text is kept; of equals the oldest, whose id others are likeliest to know.
        for candidate in sorted(group, key=lambda c: (-len(c.words), c.learnt, c.cube.id)):
            # A keeper has every word of its duplicates, so it is listed under their rarest.
            rarest = min(candidate.words, key=lambda word: (frequency[word], word), default="")
            near = by_word[rarest] + (by_claim[candidate.claim] if candidate.claim else [])
            home = next((i for i in near if self._duplicates(clusters[i][0], candidate)), None)
            if home is not None:
                clusters[home].append(candidate)
                continue
            for word in set(candidate.words):
                by_word[word].append(len(clusters))
            if candidate.claim:
                by_claim[candidate.claim].append(len(clusters))
            clusters.append([candidate])
        for keeper, *others in clusters:
            if others:
                yield _keep(keeper, others)
                for other in others:
                    yield Operation.update(
                        other.cube.with_(status=Status.MERGED),
                        f"merged into {keeper.cube.id}: {self._why(keeper, other)}",
                    )

    def _duplicates(self, keeper: _Candidate, other: _Candidate) -> bool:
        # What was ended is not what still stands; and what was true twice, with something between, is two facts.
        if keeper.end != other.end or max(keeper.start, other.start) > keeper.end:
            return False
        if keeper.claim and other.claim:
            return keeper.claim == other.claim
        return (
            all(name in keeper.cube.data and keeper.cube.data[name] == value for name, value in other.cube.data.items())
            and _jaccard(keeper, other) >= self.jaccard
            and _says_all(keeper.words, other.words)
            and ((cosine := self._cosine(keeper, other)) is None or cosine >= self.cosine)
        )

    def _cosine(self, a: _Candidate, b: _Candidate) -> float | None:
        if self.vectors is None or a.cube.id not in self.vectors or b.cube.id not in self.vectors:
            return None
        left, right = self.vectors[a.cube.id], self.vectors[b.cube.id]
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        return float(left @ right) / norms if norms else -1.0

    def _why(self, keeper: _Candidate, other: _Candidate) -> str:
        if keeper.claim and other.claim:
            return "both state the same claim"
        cosine = self._cosine(keeper, other)
        measured = "" if cosine is None else f", cosine {cosine:.3f}"
        return f"the same words (Jaccard {_jaccard(keeper, other):.3f}{measured})"


def _candidate(cube: Cube, now: datetime) -> _Candidate:
    words = tuple(word for word in _TOKEN.findall(cube.text.casefold()) if word not in _ARTICLES)
    statement = statement_of(cube, now)
    learnt = learnt_at(cube, now)
    start, end = cube.valid_from or learnt, cube.valid_to or _END
    return _Candidate(cube, words, statement.content if statement else None, learnt, start, end)


def _jaccard(a: _Candidate, b: _Candidate) -> float:
    left, right = set(a.words), set(b.words)
    return len(left & right) / len(left | right) if left or right else 0.0


def _says_all(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    """Whether the shorter text is the longer one with words left out, none of which could reverse its meaning."""
    extra = []
    rest = iter(longer)
    for word in shorter:
        for other in rest:
            if other == word:
                break
            extra.append(other)
        else:
            return False
    extra += rest
    return not any(word in _REVERSALS or word.endswith(("n't", "n’t")) for word in extra)


def _keep(keeper: _Candidate, others: Sequence[_Candidate]) -> Operation:
    cube, cubes = keeper.cube, [other.cube for other in others]
    lineage: dict[Ref, None] = dict.fromkeys(cube.origin.derived_from)
    for other in cubes:
        lineage.update(dict.fromkeys((*other.origin.derived_from, other.ref)))
    start = min(candidate.start for candidate in (keeper, *others))
    merged = cube.with_(
        origin=replace(cube.origin, derived_from=tuple(ref for ref in lineage if ref.id != cube.id)),
        use=_joint_use([cube, *cubes]),
        valid_from=cube.valid_from if start == keeper.start else start,
    )
    return Operation.update(merged, f"takes over {', '.join(other.id for other in cubes)}")


def _joint_use(cubes: Sequence[Cube]) -> Use:
    visits = sum(cube.use.visits for cube in cubes)
    utility = sum(cube.use.utility * cube.use.visits for cube in cubes) / visits if visits else cubes[0].use.utility
    return Use(
        visits,
        max((cube.use.last_use for cube in cubes if cube.use.last_use), default=None),
        utility,
        min(cube.use.uncertainty for cube in cubes),
    )


# --- showing a proposal ---


def diff(operations: Sequence[Operation], store: Store, scope: Scope) -> str:
    """A proposal for people: under each operation and its reason, the lines that go (−) and those that come (+).

    Reads the present versions from the store; raises NotFoundError where an operation names a cube outside the scope.
    """
    lines: list[str] = []
    for operation in operations:
        cube = operation.cube
        if cube is None:
            lines.append(f"{operation.op}: {operation.reason}")
            continue
        lines.append(f"{operation.op} {cube.kind} {cube.id}: {operation.reason}")
        before = {} if operation.op is Op.ADD else _flat(store.get(cube.id, scope).to_dict())
        after = {} if operation.op is Op.DELETE else _flat(cube.to_dict())
        for name in {**before, **after}:
            old, new = before.get(name), after.get(name)
            if old != new:
                lines += [f"  - {name}: {old}"] if old is not None else []
                lines += [f"  + {name}: {new}"] if new is not None else []
    return "\n".join(lines)


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names to JSON values, without what is empty and what the header line already says."""
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        elif value not in (None, "", [], ()) and name not in ("id", "version"):
            flat[prefix + name] = json.dumps(value, ensure_ascii=False, default=str)
    return flat
