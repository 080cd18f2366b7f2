"""What was done in another case, told for the case at hand: its identifiers are put in place of those of the record.

Records of experience name the case that they were made in: ``cancel the appointment of P-7``. Taken word for word no two of them
agree, and a vote among them finds nothing; taken for the case at hand they do. And a record that is about the very case which is
asked about, but acts on another one, is a substitution: that is what an injection by queries alone leaves behind once nothing
else is left of it (MINJA, arXiv 2503.03704).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.cube import Cube, Form
from holdfast.errors import ExtractionError
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES,),
    formation=(Formation.STRUCTURE_ENTITIES,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

ACTS = ("operation", "object", "target", "steps", "tool_calls", "effects", "sql")
"""The fields of a record's data that say what was done (``guard.chains.structured``, ``guard.sql``)."""

_IDENTIFIER = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?:[^\W\d_][\w-]*|\d[\w-]*[^\W\d_][\w-]*|\d{4,})(?![\w-])")
"""A word with letters and digits, or a number of four digits or more: ``P-3489``, ``4711``. Smaller numbers are amounts."""

_DIGITS = 4_000  # Python makes no number of very many more


def applied(query: str, cube: Cube) -> Cube:
    """The record with what it did told for the query.

    Of each kind of identifier (those that differ in their digits alone): where the query, the record's words and what it did
    name one each, the query's stands in place of the record's. Where it is not clear which stands for which, nothing is put in
    its place. Raises ExtractionError where the record is about what the query names and acts on something else of its kind.
    """
    done = {key: cube.data[key] for key in ACTS if key in cube.data}
    asked = _kinds(query)
    if not done or not asked:
        return cube
    acts, about = _kinds(*_strings(done)), _kinds(cube.text)
    places: dict[str, str] = {}
    for kind, names in asked.items():
        acted, said = acts.get(kind, {}), about.get(kind, {})
        if not acted or names.keys() & acted.keys():
            continue
        if both := names.keys() & said.keys():
            one, other = names[min(both)], next(iter(acted.values()))
            raise ExtractionError(f"it is about {one} and acts on {other}")
        if len(names) == 1 and acted.keys() == said.keys() and len(said) == 1:
            places[next(iter(acted))] = next(iter(names.values()))
    if not places:
        return cube
    return cube.with_(data={**cube.data, **{key: _put(value, places) for key, value in done.items()}})


def _kinds(*texts: str) -> dict[str, dict[str, str]]:
    """The identifiers of some texts, in one case and as written, by their kind."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        for name in _IDENTIFIER.findall(text):
            folded = name.casefold()
            found.setdefault(re.sub(r"\d+", "0", folded), {}).setdefault(folded, name)
    return found


def _strings(value: Any) -> list[str]:
    """Every string and number in a record's data, however deep."""
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _strings(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _strings(one)]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []


def _put(value: Any, places: Mapping[str, str]) -> Any:
    """The same data with identifiers in place of others; a number stays a number, where the other one can be one."""
    if isinstance(value, Mapping):
        return {key: _put(one, places) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_put(one, places) for one in value]
    if isinstance(value, str):
        return _IDENTIFIER.sub(lambda found: places.get(found[0].casefold(), found[0]), value)
    if isinstance(value, int) and not isinstance(value, bool) and (put := places.get(str(value))) is not None:
        return int(put) if put.isdecimal() and len(put) <= _DIGITS else put
    return value
