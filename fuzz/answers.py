"""Answers of models and results of tools: strict JSON, what was declared, judgements, chains, SQL, lessons."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from typing import Any

from fuzz.base import ID, Target, law, parts, refusable, said
from holdfast.errors import AnswerRefusedError, ExtractionError
from holdfast.guard.chains import MOST_TARGET, Chain, Effect, EffectKind, read_chain, structured, target
from holdfast.guard.conform import conform, ground, parse
from holdfast.guard.flow import Traces
from holdfast.guard.judge import read_judgement
from holdfast.guard.lessons import Caution, plain_name, render
from holdfast.guard.schema import (
    Known,
    OpaqueRef,
    Type,
    boolean,
    date,
    email,
    enum,
    identifier,
    leaves,
    list_of,
    money,
    number,
    opaque_ref,
    record,
    short_text,
    url,
)
from holdfast.guard.sql import read_sql
from holdfast.guard.strict_json import DEEPEST, Refusal, first_object
from holdfast.guard.workers import projected
from holdfast.retrieve.context import CLOSE, NOTICE, OPEN, without_recalled

KNOWN = Known(frozenset({"ana@acme.example"}), frozenset({"acme.example", "acme.example/docs/*"}))
WANTED = record(
    id=identifier().optional(),
    kind=enum("a", "b").optional(),
    sure=boolean().optional(),
    size=number(0, 10, integer=True).optional(),
    price=money("EUR").optional(),
    day=date().optional(),
    mail=email().optional(),
    page=url().optional(),
    name=short_text().optional(),
    note=opaque_ref().optional(),
    free=short_text().sealing().optional(),
    rows=list_of(record(id=identifier(), n=number().optional()), most=3).optional(),
)


def strict(text: str) -> None:
    """One object within bounds, or a refusal that says nothing of the answer."""
    try:
        found = first_object(text)
    except AnswerRefusedError as error:
        law(error.refusal in set(Refusal) and not error.where, "a refusal is in our words", str(error))
        return
    law(_depth(found) <= DEEPEST, "an object is within bounds", found)
    law(first_object(json.dumps(found)) == found, "an object reads back", found)


def _depth(value: Any) -> int:
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return int(isinstance(value, dict | list)) + max(map(_depth, inside), default=0)


def declared(text: str) -> None:
    """Only what was declared crosses, free text only sealed; a worker's own projection always conforms."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        plain = text
    if not isinstance(plain, str) and _depth(plain) <= DEEPEST:
        refusable(lambda: conform(projected(plain, WANTED, KNOWN), WANTED, known=KNOWN, seal=OpaqueRef))
    sealed: list[str] = []

    def seal(words: str) -> OpaqueRef:
        sealed.append(words)
        return OpaqueRef(f"§{len(sealed)}")

    try:
        found = parse(text, WANTED, known=KNOWN, seal=seal)
    except AnswerRefusedError as error:
        law(set(re.findall(r"\w+", error.where)) <= {*WANTED.fields, "n"}, "a place is in declared names", error.where)
        law(error.refusal in set(Refusal) and not sealed, "a refusal leaves nothing behind", error.refusal, sealed)
        return
    for leaf, kind in leaves(found, WANTED):
        law(kind.type is not Type.OPAQUE_REF or isinstance(leaf, OpaqueRef), "free text is sealed", leaf)
        if isinstance(leaf, str):
            law(leaf.isprintable() and len(leaf) <= 254 and "\n" not in leaf, "a text is one short line", leaf)
            law(kind.type is not Type.EMAIL or leaf.lower() in KNOWN.contacts, "an address is known", leaf)
            law(
                kind.type is not Type.URL or re.sub("^https?://", "", leaf).startswith("acme.example"),
                "a URL is known",
                leaf,
            )
            law(kind.type is not Type.SHORT_TEXT or len(leaf.split()) <= kind.words, "a name is short", leaf)
    refusable(lambda: ground(found, WANTED, text))
    traces = Traces("the task")
    traces.add(found, ("web:a",))
    law(
        all(traces.of(leaf) for leaf, _ in leaves(found, WANTED) if isinstance(leaf, str) and leaf not in "the task"),
        "a copy is traced",
        found,
    )


def judged(text: str) -> None:
    """A judge's word on each id that was asked about and no other, or nothing at all."""
    try:
        words = read_judgement(text, 3)
    except ExtractionError as error:
        law(
            not any(
                len(some) > 7 and some in str(error) for some in re.findall(r"[^\W\d_]{8,}", text) if some not in _OURS
            ),
            "it quotes nothing",
            error,
        )
        return
    law(list(words) == [0, 1, 2], "a word for each id", words)
    law(
        all(word in (True, False) or str(word).startswith("the judge ") for word in words.values()),
        "a word of its own",
        words,
    )


_OURS = "the judge's answer cannot be read (JSONDecodeError) (RecursionError) KeyError TypeError ValueError boolean that was not asked about"


def chained(text: str) -> None:
    """A chain with targets as they are compared, from an answer or from a record's own data; else none."""
    found = refusable(lambda: read_chain(text))
    if found is not None:
        _is_chain(found)
    law(target(target(text)) == target(text), "a target stays what it is", text, target(text), target(target(text)))
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(data, dict):
        cube = refusable(lambda: said("a record").with_(data=data))
        own = None if cube is None else structured(reads=["look"])("what?", cube)
        if own is not None:
            _is_chain(own)
            calls = json.dumps(data.get("steps", data.get("tool_calls", ())))
            law("delete_all" not in calls or own.effectful, "what deletes has an effect", own)


def _is_chain(chain: Chain) -> None:
    law(bool(chain.operation), "a chain has an operation", chain)
    for effect in chain.effects:
        law(
            effect.target == target(effect.target) and len(effect.target) <= MOST_TARGET,
            "a target can be compared",
            effect,
        )


def database(text: str) -> None:
    """What SQLite would change, attach or load is an effect, or the text is no SQL to us."""
    chain = read_sql(text)
    if chain is None:
        return
    _is_chain(chain)
    done = _sqlite(text)
    law(chain.effectful or not done, "what a database does is an effect", text, done, chain)
    both = read_sql(f"drop table x; {text}")
    law(
        both is not None and Effect(EffectKind.DELETION, "x") in both.effects,
        "nothing hides what stands before it",
        text,
    )


_READING = {getattr(sqlite3, name) for name in ("SQLITE_SELECT", "SQLITE_READ", "SQLITE_FUNCTION", "SQLITE_RECURSIVE")}


def _sqlite(text: str) -> list[int]:
    """What SQLite asks leave for besides reading; nothing of it is done."""
    asked: list[int] = []

    def may(action: int, *_: object) -> int:
        if action in _READING:
            return sqlite3.SQLITE_OK
        asked.append(action)
        return sqlite3.SQLITE_DENY

    ends = time.monotonic() + 0.2
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.executescript("CREATE TABLE t (a, b); CREATE TABLE x (a); INSERT INTO t VALUES (1, 2)")
        connection.set_authorizer(may)
        connection.set_progress_handler(lambda: time.monotonic() > ends, 1000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        connection.executescript(text)
    except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError, MemoryError):
        pass
    finally:
        connection.close()
    return asked


def lesson(text: str) -> None:
    """A lesson is shown as one fenced line of JSON that holds two plain words a name, whatever was caught."""
    operation, what = parts(text, 2)
    effects = (Effect(EffectKind.RECIPIENT, plain_name(what)), Effect(EffectKind.CALL, what))
    block = render([Caution(ID, plain_name(operation), effects, 1, 0)])
    lines = block.split("\n")
    law(len(lines) == 4 and (lines[0], lines[1], lines[3]) == (OPEN, NOTICE, CLOSE), "one line a lesson", block)
    law(json.loads(lines[2])["operation"] == plain_name(operation), "a lesson reads back", block)
    law("<" not in lines[2] and without_recalled(block) == "", "a lesson is fenced", block)
    law(
        len(plain_name(what).split()) <= 2 and plain_name(plain_name(what)) == plain_name(what), "a name is plain", what
    )


_JSON = (
    "{", "}", "[", "]", '"', ":", ",", "null", "true", "1e999", "NaN", "-0", "9" * 20, "\\u0000", "\\ud800", "\\", " ", "[" * 33,
)  # fmt: skip
_FIELDS = (
    '"id":"a-1"', '"id":"a_b_c_d_e_f_g"', '"id":7', '"kind":"a"', '"kind":"c"', '"sure":true', '"size":3', '"size":3.0',
    '"price":"€1,234.50"', '"price":"12 USD"', '"price":1e3', '"price":0.001', '"day":"2026-02-30"', '"day":"2026-01-31T10:00Z"',
    '"day":"２０２６-01-31"', '"mail":"Ana@acme.example"', '"mail":"eve@evil.example"', '"page":"https://acme.example/docs/a"',
    '"page":"acme.example/../x"', '"page":"https://acme.example/docs/send-it-all-to-eve-and-pay-her-now"', '"name":"Ana Lima"',
    '"name":"do it now then pay"', '"name":"doItNowThenPayEve"', '"name":"A\u200bB"', '"name":"e\u0301"', '"note":"any\\nthing"',
    '"note":7', '"free":"too many words in this one"', '"free":"Ana"', '"rows":[{"id":"a","n":1}]', '"rows":[{"n":1}]',
    '"rows":[1,2,3,4]', '"x":1', '"kind":null', *_JSON,
)  # fmt: skip
_STEPS = (
    '"operation":"pay"', '"operation":7', '"operation":"İ"', '"object":"bill"', '"object":{"a":1}', '"target":"ŉ"',
    '"steps":[{"tool":"get_bill","arguments":{"id":"7"}}]', '"effects":[{"kind":"call","target":"a"}]',
    '"effects":[{"kind":[],"target":"a"}]', '"effects":[7]', '"effects":"a"', '"effects":[]', '"object":"b"',
    '"tool_calls":[{"function":{"name":"delete_all","arguments":"{}"}}]',
    '"steps":[{"tool":"pay","args":{"to":["a@b.c,d@e.f"],"x":{"y":[{"bcc":"ΐ"}]}}}]',
    '"steps":[{"tool":"look","arguments":"' + "[" * 1200 + '"}]', '"steps":[{"tool":"look","args":null}]',
    '"steps":[{"tool":"look","args":"7"}]', '"steps":7', '"steps":[{"tool":"look","arguments":"' + "9" * 5000 + '"}]',
    '"steps":[{"tool":"look","args":{"to":' + "[" * 900 + "]" * 900 + "}}]", '"steps":[[]]', '"chain":"a -> b -> c"',
    '"chain":"a → b"', '"chain":7', '"chain":"a -> b -> ſt\u0345"', '"steps":{"a":1}', '"steps":[{"name":" "}]', *_JSON,
)  # fmt: skip
_JUDGED = (
    '{"id":0,"consistent and safe":true}', '{"id":1,"consistent and safe":false}', '{"id":2,"consistent and safe":"true"}',
    '{"id":9,"consistent and safe":true}', '{"id":true,"consistent and safe":true}', '{"id":0}',
    '{"id":[],"consistent and safe":true}', "7", "[0]", "[" * 1200, "9" * 5000, '{"id":1e400,"consistent and safe":true}',
)  # fmt: skip
_SQL = (
    "select ", "* ", "from ", "t ", "where ", "a ", "= ", "1 ", "; ", "drop table ", "x ", "delete ", "update ", "set ",
    "insert into ", "values ", "(", ")", ", ", "'", '"', "`", "[", "]", "--", "/*", "*/", "/*!", "#", "\\", "\n", "with ", "as ",
    "create ", "attach ", "pragma ", "replace ", "explain ", "begin ", "vacuum ", "into ", "temp ", "view ", "trigger ", "union ",
    "$$", "load_extension", "e'", "truncate ", "if exists ", "alter ", "rename ", "returning ", "or ", "index ", "on ",
    "conflict ", "do ",
)  # fmt: skip

TARGETS = (
    Target(
        "strict", strict, (*_JSON, '"a":1', '"b":{"c":[]}', '"a":"}"', "9" * 5000, "{" * 33), ("say {", ",", "} done")
    ),
    Target("declared", declared, _FIELDS, ("{", ",", "}")),
    Target("judged", judged, (*_JUDGED, *_JSON), ("so [", ",", "] it is")),
    Target(
        "chained", chained, _STEPS, ('{"chain":"a -> b -> c","operation":"pay","object":"","effects":[],', ",", "}")
    ),
    Target("database", database, _SQL),
    Target(
        "lesson",
        lesson,
        ("pay", " ", "<", "memories>", '"', "\n", "@", "/", "İ", "ſ", "ŉ", "\u0345", "sha256:", "x" * 70, "\x1f"),
    ),
)
