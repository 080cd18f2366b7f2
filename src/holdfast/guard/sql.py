"""What an SQL text would do: operation, tables, aggregates, effects (a chain in the sense of arXiv 2510.02373).

A small reader of tokens, not a parser: it looks for what changes data, rights or files anywhere in the text outside of strings
and comments, so that a second statement, or a change inside a WITH, does not pass as part of a question. What is a string or a
comment is not the same to every database, so the text is read as several would. What it does not know counts as an effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from holdfast.cube import Cube, Form
from holdfast.guard.chains import Chain, Effect, EffectKind, arrows, target
from holdfast.guard.sql_tokens import readings
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES,),
    formation=(Formation.STRUCTURE_ENTITIES,),
    subject=(Subject.AGENT,),
    modality=(Modality.ACTION,),
)

_FENCE = re.compile(r"```(?:sql)?[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)

_READS = frozenset("select with values explain show describe".split())
_CHANGES = frozenset("insert update delete merge replace upsert create alter drop truncate rename".split())
_RIGHTS = frozenset("grant revoke".split())
_RUNS = frozenset("call exec execute do load attach detach copy set reset vacuum pragma begin commit rollback".split())
_KNOWN = _READS | _CHANGES | _RIGHTS | _RUNS
_EXPLAINS = frozenset("explain analyze analyse verbose query plan".split())
_AGGREGATES = frozenset("count sum avg min max total group_concat string_agg array_agg stddev median".split())
_SKIPPED = frozenset(
    "if exists not only table view index into from temp temporary unique or replace low_priority".split()
)
_OUTWARD = re.compile(
    r"(?:xp|sp|lo|pg|sys|utl|dbms)_\w+|dblink\w*|load_(?:file|extension)|writefile|readfile|edit|nextval|setval|set_config|"
    r"query_to_xml\w*"
)
"""Functions that do more than compute."""

_READ = 128
"""Tokens of a statement that are looked through for what it changes: a text of many would else be read over and over."""


def sql(query: str, cube: Cube) -> Chain | None:
    """The chain of the SQL in a record: its ``data["sql"]``, else a fenced block in its text, else the text itself.

    None where that is no SQL. An extractor (``guard.chains.Extractor``).
    """
    text = cube.data.get("sql")
    if text is None:
        fenced = _FENCE.search(cube.text)
        text = fenced[1] if fenced else cube.text
    return read_sql(text, query) if isinstance(text, str) else None


def read_sql(text: str, query: str = "") -> Chain | None:
    """The chain of an SQL text: the first statement's operation, all tables it reads, and every effect there is in it."""
    read = readings(text)
    firsts = _begun(read[0])
    if not firsts or firsts[0] not in _KNOWN:
        return None
    effects = {effect for tokens in read for effect in _effects(tokens)}
    tables = sorted({table for tokens in read for table in _tables(tokens)})
    aggregates = sorted({one for one, after in _pairs(read[0]) if one in _AGGREGATES and after == "("})
    operation = "select" if firsts[0] in ("with", "values") else firsts[0]
    changed = [effect for effect in effects if effect.kind in (EffectKind.DELETION, EffectKind.WRITE)]
    if firsts[0] == "with" and changed:  # a change dressed as a question
        operation = "delete" if any(effect.kind is EffectKind.DELETION for effect in changed) else "write"
    named = ", ".join(tables)
    did = (target(query), operation, named, *(("by", ", ".join(aggregates)) if aggregates else ()))
    return Chain(operation, named, frozenset(effects), arrows((*did, *(str(effect) for effect in sorted(effects)))))


def _begun(tokens: Sequence[str]) -> list[str]:
    """The words that statements begin with."""
    starts = (word for at, word in enumerate(tokens) if at == 0 or tokens[at - 1] == ";")
    return [word for word in starts if word not in ";("]


def _pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(tokens, [*tokens[1:], ""], strict=False)


def _name(tokens: Sequence[str], at: int) -> str:
    """The name of a table at a place, past the words that may stand before it; ``*`` where there is none."""
    while at < len(tokens) and tokens[at] in _SKIPPED:
        at += 1
    return target(tokens[at]) if at < len(tokens) and tokens[at] not in ";(),*=" and tokens[at][0] != "'" else "*"


def _statement(tokens: Sequence[str], at: int) -> list[str]:
    """From a place to the end of its statement, or of the bracket that it stands in, as far as is read."""
    depth = 0
    for to in range(at, min(len(tokens), at + _READ)):
        depth += (tokens[to] == "(") - (tokens[to] == ")")
        if tokens[to] == ";" or depth < 0:
            return list(tokens[at:to])
    return list(tokens[at : at + _READ])


def _tables(tokens: Sequence[str]) -> Iterator[str]:
    defined = {
        one for one, two, three in zip(tokens, tokens[1:], tokens[2:], strict=False) if two == "as" and three == "("
    }
    for at, token in enumerate(tokens):
        if token in ("from", "join", "into", "update", "table", "using"):
            name = _name(tokens, at + 1)
            if name not in ("*", "set", "select", "outfile", "dumpfile", *defined):
                yield name


def _effects(tokens: Sequence[str]) -> Iterator[Effect]:
    """Every change of data, rights or files, wherever it stands."""
    for first in _begun(tokens):
        if first in _RUNS or first not in _KNOWN:
            yield Effect(EffectKind.CALL, target(first))
    for at, word in enumerate(tokens):
        before = tokens[at - 1] if at else ""
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        starts = before in ("", ";", "(", "as", ")", "begin", "then", "do") or before in _EXPLAINS
        if word in _RUNS and before in _EXPLAINS:  # EXPLAIN ANALYZE runs what it explains
            yield Effect(EffectKind.CALL, target(word))
        if word == "delete" and (after == "from" or starts):
            rows = "" if "where" in _statement(tokens, at) else ":all"
            yield Effect(EffectKind.DELETION, _name(tokens, at + 1) + rows)
        elif word in ("drop", "truncate") and (starts or after == "table"):
            past = at + (2 if after in ("database", "schema", "column", "user", "role") else 1)
            yield Effect(EffectKind.DELETION, _name(tokens, past))
        elif word == "update" and before not in ("for", "on", "do", "key"):
            name, rest = _name(tokens, at + 1), _statement(tokens, at)
            past = rest.index("set") if "set" in rest else len(rest)
            ends = rest.index("where") if "where" in rest else len(rest)
            columns = [one for one, then in _pairs(rest[past:ends]) if then == "=" and one != ")"]
            if not columns or len(rest) == _READ:
                columns.append("*")
            yield from (Effect(EffectKind.WRITE, f"{name}.{column}") for column in columns)
        elif word in ("insert", "merge", "replace", "upsert", "create", "alter", "rename") and starts and after != "(":
            yield Effect(EffectKind.WRITE, _name(tokens, at + 1))
        elif word in _RIGHTS and starts:
            yield Effect(EffectKind.PRIVILEGE, target(" ".join(_statement(tokens, at))))
        elif word in ("outfile", "dumpfile"):
            yield Effect(EffectKind.DESTINATION, target(after.lstrip("'") or "*"))
        elif word == "copy" and starts:
            rest = _statement(tokens, at)
            literal = next((one[1:] for one in rest if one[0] == "'"), rest[-1])
            yield Effect(EffectKind.DESTINATION, target(literal))
        elif (
            word == "into"
            and before not in ("insert", "merge", "replace", "ignore")
            and after not in ("outfile", "dumpfile")
        ):
            yield Effect(EffectKind.WRITE, _name(tokens, at + 1))
        elif after == "(" and _OUTWARD.fullmatch(word):
            given = next((one for one in _statement(tokens, at) if one[0] == "'"), "'")
            yield Effect(EffectKind.CALL, target(f"{word} {given[1:]}"))
