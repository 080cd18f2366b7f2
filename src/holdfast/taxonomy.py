"""What kind of memory each component is, in the words of the field (arXiv 2512.13564: forms, functions, dynamics).

Every mechanism declares ``PROFILE = MemoryProfile(...)`` at the top level of its module, or a tuple of profiles where it
has memory in more than one form: an empty one where it is no memory at all. The declarations are read from the source, so
that a table of the whole house costs no import and needs no extra. ``matrix()`` says what is covered, and by what; ``GAPS``
says what is left out, and why.

The form is decided by where the unit of memory lives when it is read, not by how it was learnt.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError


class Subform(StrEnum):
    """How a form is organised: three shapes of text, three of state inside a model, two of parameters."""

    FLAT = "flat"
    PLANAR = "planar"
    HIERARCHICAL = "hierarchical"
    GENERATED = "generated"
    REUSED = "reused"
    TRANSFORMED = "transformed"
    INTERNAL = "internal"
    EXTERNAL = "external"

    @property
    def form(self) -> Form:
        """The form that this is a sub-type of."""
        return _FORM_OF[self]


_FORM_OF: Mapping[Subform, Form] = {
    Subform.FLAT: Form.TEXT,
    Subform.PLANAR: Form.TEXT,
    Subform.HIERARCHICAL: Form.TEXT,
    Subform.GENERATED: Form.STATE,
    Subform.REUSED: Form.STATE,
    Subform.TRANSFORMED: Form.STATE,
    Subform.INTERNAL: Form.WEIGHTS,
    Subform.EXTERNAL: Form.WEIGHTS,
}


class Function(StrEnum):
    """What a memory is for: facts, experience, or the work at hand."""

    FACTS_USER = "facts about the user"
    FACTS_ENVIRONMENT = "facts about the environment"
    CASES = "experience as cases"
    STRATEGIES = "experience as strategies"
    SKILLS = "experience as skills"
    WORK_SINGLE = "working memory, one turn"
    WORK_MULTI = "working memory, many turns"


class Formation(StrEnum):
    """How memory is made of what happened."""

    SUMMARY_INCREMENTAL = "summary, incremental"
    SUMMARY_PARTITIONED = "summary, partitioned"
    DISTILL_FACTS = "distillation of facts"
    DISTILL_EXPERIENCE = "distillation of experience"
    STRUCTURE_ENTITIES = "structure by entity"
    STRUCTURE_CHUNKS = "structure by chunk"
    LATENT = "latent representation"
    INTERNALISE = "internalisation in parameters"


class Evolution(StrEnum):
    """How memory changes once made."""

    CONSOLIDATE_LOCAL = "consolidation, local"
    CONSOLIDATE_CLUSTER = "consolidation, by cluster"
    CONSOLIDATE_GLOBAL = "consolidation, global"
    UPDATE_EXTERNAL = "updating outside the model"
    UPDATE_INTERNAL = "updating inside the model"
    FORGET_BY_TIME = "forgetting by time"
    FORGET_BY_FREQUENCY = "forgetting by frequency"
    FORGET_BY_IMPORTANCE = "forgetting by importance"


class Retrieval(StrEnum):
    """How memory is found: when, with what query, by what likeness, and what is done to the result."""

    AUTOMATIC = "timing: automatic"
    ON_REQUEST = "timing: on request"
    DECOMPOSE = "query: decomposed"
    REWRITE = "query: rewritten"
    LEXICAL = "strategy: lexical"
    SEMANTIC = "strategy: semantic"
    GRAPH = "strategy: graph"
    GENERATIVE = "strategy: generative"
    HYBRID = "strategy: hybrid"
    RERANK = "after: reranked"
    FILTER = "after: filtered"
    AGGREGATE = "after: aggregated"
    COMPRESS = "after: compressed"


class Subject(StrEnum):
    """Whom or what the memory is about."""

    USER = "user"
    AGENT = "agent"
    TEAM = "team"
    WORLD = "world"


class Modality(StrEnum):
    """What the payload is."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    ACTION = "action"
    VECTOR = "vector"


class Trainable(StrEnum):
    """Whether what it does is learnt: not at all, with a trained part, or from end to end."""

    NO = "no"
    ASSISTED = "assisted"
    FULL = "full"


class Paradigm(StrEnum):
    """The three paradigms of arXiv 2601.09113, after the brain systems that they are likened to there."""

    IMPLICIT = "implicit"
    EXPLICIT = "explicit"
    AGENTIC = "agentic"


Dynamic = Formation | Evolution | Retrieval


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """What one mechanism is, along every axis. Raises InputError where the sub-type is not one of the form."""

    form: Form
    subform: Subform
    function: tuple[Function, ...]
    formation: tuple[Formation, ...] = ()
    evolution: tuple[Evolution, ...] = ()
    retrieval: tuple[Retrieval, ...] = ()
    subject: tuple[Subject, ...] = (Subject.USER,)
    modality: tuple[Modality, ...] = (Modality.TEXT,)
    trainable: Trainable = Trainable.NO

    def __post_init__(self) -> None:
        if self.subform.form is not self.form:
            raise InputError(f"{self.subform} is a sub-type of {self.subform.form}, not of {self.form}")
        if not self.function:
            raise InputError("a memory serves at least one function")

    @property
    def paradigm(self) -> Paradigm:
        """Weights are implicit memory; what serves facts is explicit; what serves acting alone is agentic."""
        if self.form is Form.WEIGHTS:
            return Paradigm.IMPLICIT
        facts = {Function.FACTS_USER, Function.FACTS_ENVIRONMENT}
        return Paradigm.EXPLICIT if facts & set(self.function) else Paradigm.AGENTIC

    @property
    def dynamics(self) -> tuple[Dynamic, ...]:
        """Formation, evolution and retrieval in one."""
        return (*self.formation, *self.evolution, *self.retrieval)


ROOMS = ("encode", "retrieve", "manage", "guard", "recipes", "agent", "latent", "weights")
"""The rooms whose modules must say what memory they are."""

_SEAMS = frozenset({"encode", "manage", "rank", "search", "admit", "check"})

_NOT_YET = "planned for the room {}"

GAPS: Mapping[tuple[Form, Function] | Subform | Dynamic, str] = {
    **{
        (Form.STATE, function): _NOT_YET.format("latent")
        for function in (Function.CASES, Function.STRATEGIES, Function.SKILLS)
    },
    (Form.WEIGHTS, Function.CASES): _NOT_YET.format("weights"),
    (Form.WEIGHTS, Function.STRATEGIES): _NOT_YET.format("weights"),
    (Form.WEIGHTS, Function.WORK_SINGLE): "not planned: parameters are too slow to write for the work of one turn",
    (Form.WEIGHTS, Function.WORK_MULTI): "not planned: fast weights are state in this product (room latent)",
    Subform.GENERATED: _NOT_YET.format("latent"),
    Retrieval.GENERATIVE: "not planned: recall must show its sources, and generated memory has none",
}
"""Cells and sub-types that nothing covers, on purpose, and why. What is covered must not stand here."""


def profiles(package: Path | None = None) -> dict[str, tuple[MemoryProfile, ...]]:
    """Every declared profile, by dotted module name, read from the source. Raises InputError for one that cannot be read.

    ``package`` is the folder of the package (default: the one this module is in).
    """
    found = {}
    for module, tree in _modules(package):
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and target.id == "PROFILE":
                declared = _value(node.value, module)
                found[module] = declared if isinstance(declared, tuple) else (declared,)
    return found


def mechanisms(package: Path | None = None) -> tuple[str, ...]:
    """The modules that must declare a profile.

    These are the files directly in one of ``ROOMS``, other than ``__init__`` and ``base``, that cite a paper by its arXiv
    id in the first paragraph of their docstring, or define a public class that fits a seam (a method ``encode``,
    ``manage``, ``rank``, ``search``, ``admit`` or ``check``, or a name ending in ``Index``), or declare a profile anyway.
    One that declares that it is no memory (``PROFILE = ()``) is none.
    """
    declared = profiles(package)
    return tuple(
        module
        for module, tree in _modules(package)
        if (bool(declared[module]) if module in declared else _is_mechanism(tree))
    )


def undeclared(package: Path | None = None) -> tuple[str, ...]:
    """Mechanisms without a profile; none, in a release."""
    declared = profiles(package)
    return tuple(module for module in mechanisms(package) if module not in declared)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Who covers what: modules by cell of forms × functions, and by every sub-type of form and of dynamics."""

    cells: Mapping[tuple[Form, Function], tuple[str, ...]]
    subtypes: Mapping[Subform | Dynamic, tuple[str, ...]]

    @property
    def gaps(self) -> dict[str, str]:
        """What nothing covers, with the reason; an empty reason where nobody has given one."""
        return {_title(place): GAPS.get(place, "") for place, modules in self._places() if not modules}

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Gaps without a reason; none, in a release."""
        return tuple(place for place, reason in self.gaps.items() if not reason)

    @property
    def outdated(self) -> tuple[str, ...]:
        """What is covered although ``GAPS`` still says that it is not."""
        return tuple(_title(place) for place, modules in self._places() if modules and place in GAPS)

    def to_dict(self) -> dict[str, dict[str, list[str]]]:
        """The matrix in JSON-ready form: cell or sub-type to modules."""
        return {
            "cells": {_title(cell): list(modules) for cell, modules in self.cells.items()},
            "subtypes": {_title(subtype): list(modules) for subtype, modules in self.subtypes.items()},
        }

    def _places(self) -> list[tuple[tuple[Form, Function] | Subform | Dynamic, tuple[str, ...]]]:
        return [*self.cells.items(), *self.subtypes.items()]


def matrix(package: Path | None = None) -> Matrix:
    """Coverage by what is declared."""
    return _matrix([(module, profile) for module, many in profiles(package).items() for profile in many])


def _matrix(declared: Sequence[tuple[str, MemoryProfile]]) -> Matrix:
    kinds: tuple[type[StrEnum], ...] = (Subform, Formation, Evolution, Retrieval)
    return Matrix(
        cells={
            (form, function): _unique(m for m, p in declared if p.form is form and function in p.function)
            for form in Form
            for function in Function
        },
        subtypes={
            subtype: _unique(m for m, p in declared if subtype is p.subform or subtype in p.dynamics)
            for kind in kinds
            for subtype in kind
            if isinstance(subtype, Subform | Formation | Evolution | Retrieval)
        },
    )


def gaps(package: Path | None = None) -> dict[str, str]:
    """What nothing covers, and why: see ``Matrix.gaps``."""
    return matrix(package).gaps


def coverage(package: Path | None = None) -> dict[str, list[Any]]:
    """The matrix as a table for people, with what is missing.

    ``headers``, and ``rows`` with functions and sub-types down, forms across: how many mechanisms, "–" for none; the
    last column names them without the package. ``gaps`` has one line a reason, with all that it explains.
    """
    many = [(module.split(".", 1)[1], profile) for module, some in profiles(package).items() for profile in some]
    found = _matrix(many)
    axes: dict[str, tuple[type[StrEnum], Callable[[MemoryProfile], tuple[StrEnum, ...]]]] = {
        "FUNCTION": (Function, lambda profile: profile.function),
        "SUB-TYPE": (Subform, lambda profile: (profile.subform,)),
        "FORMATION": (Formation, lambda profile: profile.formation),
        "EVOLUTION": (Evolution, lambda profile: profile.evolution),
        "RETRIEVAL": (Retrieval, lambda profile: profile.retrieval),
    }
    rows: list[list[str]] = []
    for axis, (kind, of) in axes.items():
        rows.append([axis, *("" for _ in Form), ""])
        for value in kind:
            by_form = {form: _unique(m for m, p in many if p.form is form and value in of(p)) for form in Form}
            names = _unique(module for modules in by_form.values() for module in modules)
            possible = [value.form] if isinstance(value, Subform) else [*Form]
            counts = (str(len(by_form[form]) or "–") if form in possible else "" for form in Form)
            rows.append([str(value), *counts, ", ".join(names)])
    reasons: dict[str, list[str]] = {}
    for gap, reason in found.gaps.items():
        reasons.setdefault(reason or "no reason is given", []).append(gap)
    return {
        "headers": ["", *map(str, Form), "mechanisms"],
        "rows": rows,
        "gaps": [f"{'; '.join(places)} → {reason}" for reason, places in reasons.items()],
    }


def _unique(modules: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(modules))


def _title(place: tuple[Form, Function] | Subform | Dynamic) -> str:
    return f"{place[0]}: {place[1]}" if isinstance(place, tuple) else str(place)


def _modules(package: Path | None) -> list[tuple[str, ast.Module]]:
    root = package or Path(__file__).parent
    return [
        (f"{root.name}.{room}.{path.stem}", ast.parse(path.read_text(encoding="utf-8")))
        for room in ROOMS
        for path in sorted((root / room).glob("*.py"))
        if path.stem != "base" and not path.stem.startswith("_")
    ]


def _is_mechanism(tree: ast.Module) -> bool:
    if "arXiv" in (ast.get_docstring(tree) or "").split("\n\n")[0]:
        return True
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return any(
        one.name.endswith("Index") or any(isinstance(m, ast.FunctionDef) and m.name in _SEAMS for m in one.body)
        for one in classes
    )


_NAMES: Mapping[str, type[StrEnum]] = {
    kind.__name__: kind
    for kind in (Form, Subform, Function, Formation, Evolution, Retrieval, Subject, Modality, Trainable)
}


def _value(node: ast.expr | None, module: str) -> Any:
    """The value of a declaration made of ``MemoryProfile(...)``, enum members and tuples; nothing is executed."""
    match node:
        case ast.Call(func=ast.Name(id="MemoryProfile"), args=args, keywords=keywords):
            named = {str(keyword.arg): _value(keyword.value, module) for keyword in keywords}
            return MemoryProfile(*(_value(arg, module) for arg in args), **named)
        case ast.Tuple(elts=elements):
            return tuple(_value(element, module) for element in elements)
        case ast.Attribute(value=ast.Name(id=kind), attr=member) if kind in _NAMES:
            if member in _NAMES[kind].__members__:
                return _NAMES[kind][member]
    written = "nothing" if node is None else ast.unparse(node)
    raise InputError(f"{module}: PROFILE must be MemoryProfile(...) of enum members and tuples, not {written}")
