"""Concepts as a model reads and writes them (ArcMemo, arXiv 2509.04439, the PS format).

They are shown by sections: structures, types, grid manipulations, and other routines by subtype. They are written as a list of
records in JSON; a record that is none is left out, with the reason, and the others stand. Every text is one line: a concept cannot
pass for the heading of a section, or for another concept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from holdfast.cube import Form
from holdfast.encode.concepts import GRID, INTERMEDIATE, Concept, Parameter, Sort, custom_types, named_types
from holdfast.letters import legible
from holdfast.store.rows import forgotten_with
from holdfast.taxonomy import Function, MemoryProfile, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.STRATEGIES,),
    retrieval=(Retrieval.COMPRESS,),
    subject=(Subject.AGENT,),
)

THRESHOLD = 2
"""In a view of the whole memory, what was used in fewer runs is shown by name alone."""

EMPTY = "(no concepts yet)"
LONGEST = 600  # characters of one text in a concept
MOST = 24  # entries of one list in a concept, as it is written; those of a merged one may be more
SHOWN = 40

_SORTS = frozenset(Sort)
_WORDS: Mapping[str, Any] = {"type": "string"}
_LIST: Mapping[str, Any] = {"type": "array", "items": _WORDS}
RECORD: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": _WORDS,
        "kind": {"type": "string", "enum": [str(Sort.ROUTINE), str(Sort.STRUCTURE)]},
        "routine_subtype": _WORDS,
        "output_typing": _WORDS,
        "parameters": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": _WORDS, "typing": _WORDS, "description": _WORDS},
                "required": ["name", "typing", "description"],
                "additionalProperties": False,
            },
        },
        "description": _WORDS,
        "cues": _LIST,
        "implementation": _LIST,
    },
    "required": [
        *("name", "kind", "routine_subtype", "output_typing", "parameters", "description", "cues", "implementation")
    ],
    "additionalProperties": False,
}
"""The schema of a concept as it is asked for; what ``read`` takes may lack anything but a name."""


def read(records: object) -> tuple[list[Concept], list[str]]:
    """The concepts in what was written, and why others were left out. Whatever stands there may have been written by anybody."""
    if not isinstance(records, Sequence) or isinstance(records, str):
        return [], ["what was written is no list of concepts"]
    found: list[Concept] = []
    faults: list[str] = []
    for place, record in enumerate(records, 1):
        if isinstance(one := _read(record), Concept):
            found.append(one)
        else:
            faults.append(f"concept {place} was left out: {one}")
    return found, faults


def _read(record: object) -> Concept | str:
    if not isinstance(record, Mapping):
        return "it is no record"
    texts = {}
    for field in ("name", "kind", "routine_subtype", "output_typing", "description"):
        held = record.get(field)
        if not isinstance(held, str | None):
            return f"its {field} is no text"
        texts[field] = line(held or "")
    if not texts["name"]:
        return "it has no name"
    if (sort := texts["kind"] or Sort.ROUTINE) not in _SORTS:
        return f"it is neither {' nor '.join(Sort)}"
    parameters: dict[str, Parameter] = {}
    for held in _listed(record.get("parameters")):
        one = held if isinstance(held, Mapping) else {"name": held}
        said = [one.get(field) for field in ("name", "typing", "description")]
        if not all(isinstance(text, str | None) for text in said) or not (name := line(said[0] or "")):
            return "one of its parameters has no name, or says what is no text"
        parameters[name] = Parameter(name, line(said[1] or ""), line(said[2] or ""))
    lists = {}
    for field in ("cues", "implementation"):
        held = _listed(record.get(field))
        if not all(isinstance(text, str) for text in held):
            return f"its {field} are not all texts"
        lists[field] = tuple(dict.fromkeys(filter(None, map(line, held))))[:MOST]
    return Concept(
        texts["name"],
        Sort(sort),
        texts["routine_subtype"] if sort == Sort.ROUTINE else "",
        texts["output_typing"],
        tuple(parameters.values())[:MOST],
        texts["description"],
        lists["cues"],
        lists["implementation"],
    )


def _listed(held: object) -> Sequence[Any]:
    """A list as it is; one thing as a list of one, and nothing as none."""
    if held is None or held == "":
        return ()
    return held if isinstance(held, list | tuple) else (held,)


def line(text: str) -> str:
    """A text as one line that a reader sees all of."""
    if len(text) <= LONGEST and text.isascii() and text.isprintable() and text == text.strip() and "  " not in text:
        return text  # mostly it was one when it was written
    return " ".join(legible(text[: 2 * LONGEST]).split())[:LONGEST].strip()


def record_of(concept: Concept) -> dict[str, Any]:
    """What ``read`` reads back to the same concept, but for the runs that it was used in."""
    return {
        "name": concept.name,
        "kind": str(concept.sort),
        "routine_subtype": concept.subtype,
        "output_typing": concept.output,
        "parameters": [
            {"name": one.name, "typing": one.typing, "description": one.description} for one in concept.parameters
        ],
        "description": concept.description,
        "cues": list(concept.cues),
        "implementation": list(concept.implementation),
    }


# --- what a model is shown ---


def view(concepts: Iterable[Concept], *, threshold: int = THRESHOLD) -> str:
    """The whole memory by sections. What was used in fewer runs than ``threshold`` is shown by name alone."""
    concepts = list(concepts)
    if not concepts:
        return EMPTY
    sections = {}
    for heading, some in _sections(concepts).items():
        lines = [_shown(one) for one in some if len(one.used_in) >= threshold]
        names = "; ".join(one.name for one in some if len(one.used_in) < threshold)
        sections[heading] = [*lines, *([f"- by name: {names}"] if names else [])]
    return _with_types(sections, concepts)


@lru_cache(maxsize=4_096)
def _shown(concept: Concept) -> str:
    """A concept in a view: the same ones are shown for each task."""
    return "\n".join(told(concept, notes=False))


forgotten_with(_shown.cache_clear)


def hint(concepts: Iterable[Concept], chosen: Sequence[str]) -> str:
    """What a solver is told: the chosen ones in full and in their order, the others by name. "" where there are none."""
    concepts = list(concepts)
    by_name = {one.name: one for one in concepts}
    full = [by_name[name] for name in dict.fromkeys(chosen) if name in by_name]
    sections = {heading: [said for one in some for said in told(one)] for heading, some in _sections(full).items()}
    if names := "; ".join(one.name for one in concepts if one.name not in chosen):
        sections["Other concepts"] = [f"- by name: {names}"]
    return _with_types(sections, full)


def told(concept: Concept, *, notes: bool = True) -> list[str]:
    """One concept, as lines; the first is its signature. Of many cues or notes the newest ``SHOWN``."""
    typed = [f"{one.name}: {named_types(one.typing)}" if one.typing else one.name for one in concept.parameters]
    signature = f"- {concept.name}"
    if typed or concept.sort is Sort.ROUTINE:
        signature += f"({', '.join(typed)})"
    if concept.output:
        signature += f" -> {named_types(concept.output)}"
    lines = [signature]
    if concept.description:
        lines.append(f"  {concept.description}")
    lines += [f"  {one.name}: {one.description}" for one in concept.parameters if one.description]
    lines += [f"  cue: {cue}" for cue in concept.cues[-SHOWN:]]
    if notes:
        lines += [f"  note: {note}" for note in concept.implementation[-SHOWN:]]
    return lines


def _sections(concepts: Sequence[Concept]) -> dict[str, list[Concept]]:
    """By heading, in the order of the sections; none that is empty."""
    found: dict[str, list[Concept]] = {_STRUCTURES: [], _GRID: []}
    for one in concepts:
        found.setdefault(_heading(one), []).append(one)
    return {heading: some for heading, some in found.items() if some}


_STRUCTURES, _GRID = "Structures", "Grid manipulation routines"
_TITLES = {GRID: _GRID, INTERMEDIATE: "Intermediate routines", "": "Routines"}


def _heading(concept: Concept) -> str:
    if concept.sort is Sort.STRUCTURE:
        return _STRUCTURES
    return _TITLES.get(concept.subtype) or f"Routines: {concept.subtype}"


def _with_types(sections: Mapping[str, Sequence[str]], concepts: Iterable[Concept]) -> str:
    """The sections written out, the types that the concepts define after the structures."""
    types = [f"- {name} := {definition}" for name, definition in custom_types(concepts).items()]
    order = {heading: sections[heading] for heading in (_STRUCTURES,) if heading in sections}
    order |= {"Types": types} if types else {}
    order |= {heading: lines for heading, lines in sections.items() if heading not in order}
    return "\n".join(line for heading, lines in order.items() for line in (f"## {heading}", *lines))
