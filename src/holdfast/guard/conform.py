"""Holding a worker's answer to what was declared (AgentSys, arXiv 2602.07398): every leaf is checked for what it means.

The paper's boundary only parses; a legal string field may then hold the whole injection. Here an answer that is not exactly what
was declared is refused whole, and what may not be read is sealed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as calendar_date
from datetime import datetime
from typing import Any

from holdfast.errors import AnswerRefusedError, InputError
from holdfast.guard.schema import Known, OpaqueRef, Schema, Type, leaves
from holdfast.guard.strict_json import Refusal, first_object

PROFILE = ()  # a part of the boundary, and no memory

LONGEST_ID = 64
MOST_ID_WORDS = 6

Seal = Callable[[str], OpaqueRef]
"""Keeps a text where the parent cannot read it, and hands out its handle."""


def parse(answer: str, schema: Schema, *, known: Known | None = None, seal: Seal | None = None) -> Any:
    """The value that a worker's answer holds: plain Python, with an ``OpaqueRef`` for what was sealed.

    Reads the first balanced object of the answer. Raises AnswerRefusedError (a reason of ``Refusal``, and where, in the declared
    names) for anything that is not exactly what was declared, and InputError where a schema seals and ``seal`` is missing.
    """
    return conform(first_object(answer), schema, known=known, seal=seal)


def conform(value: Any, schema: Schema, *, known: Known | None = None, seal: Seal | None = None) -> Any:
    """A decoded value as the schema declares it. Raises as ``parse`` does."""
    # Sealing comes last: an answer that is refused leaves nothing behind.
    return _sealed(_conform(value, schema, known or Known(), ""), seal)


def ground(data: Any, schema: Schema, record: Any) -> None:
    """Names and ids must be what the result holds as a whole: a leaf or a key of a record; a line, a part or a word of a text.

    So a worker that obeys cannot hand over an instruction cut into names. Raises AnswerRefusedError.
    """
    found = [
        leaf for leaf, kind in leaves(data, schema) if kind.type in (Type.SHORT_TEXT, Type.ID) and isinstance(leaf, str)
    ]
    if found and not set(found) <= _wholes(record):
        raise AnswerRefusedError(Refusal.UNGROUNDED)


def _wholes(record: Any) -> set[str]:
    if isinstance(record, str):
        lines = [line.strip() for line in record.splitlines()]
        parts = [part.strip() for line in lines for part in re.split(r"[,;]|: ", line)]
        return {*lines, *parts, *(word.strip(".,;:!?()'\"") for word in record.split())}
    return set(_strings(record))


def _strings(record: Any) -> list[str]:
    if isinstance(record, Mapping):
        return [text for key, item in record.items() for text in (str(key), *_strings(item))]
    if isinstance(record, list | tuple):
        return [text for item in record for text in _strings(item)]
    return [str(record)]


@dataclass(frozen=True, slots=True)
class _Sealed:
    text: str


def _sealed(value: Any, seal: Seal | None) -> Any:
    if isinstance(value, dict):
        return {name: _sealed(item, seal) for name, item in value.items()}
    if isinstance(value, list):
        return [_sealed(item, seal) for item in value]
    if isinstance(value, _Sealed):
        if seal is None:
            raise InputError("this schema seals text, so it needs somewhere to seal it: give seal=")
        return seal(value.text)
    return value


def _conform(value: Any, schema: Schema, known: Known, where: str) -> Any:
    if value is None and schema.nullable:
        return None
    if schema.type is Type.OBJECT:
        return _object(value, schema, known, where)
    if schema.type is Type.LIST:
        return _list(value, schema, known, where)
    try:
        return _LEAF[schema.type](value, schema, known)
    except _UnfitError as unfit:
        if schema.or_ref and isinstance(value, str):
            return _Sealed(value)
        raise AnswerRefusedError(unfit.refusal, where) from None


def _object(value: Any, schema: Schema, known: Known, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AnswerRefusedError(Refusal.WRONG_TYPE, where)
    if not value.keys() <= schema.fields.keys():
        raise AnswerRefusedError(Refusal.EXTRA_KEY, where)
    found: dict[str, Any] = {}
    for name, child in schema.fields.items():
        place = f"{where}.{name}" if where else name
        if name not in value and not child.nullable:
            raise AnswerRefusedError(Refusal.MISSING_KEY, place)
        found[name] = _conform(value.get(name), child, known, place)
    return found


def _list(value: Any, schema: Schema, known: Known, where: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise AnswerRefusedError(Refusal.WRONG_TYPE, where)
    if len(value) > schema.most or schema.item is None:
        raise AnswerRefusedError(Refusal.TOO_LARGE, where)
    return [_conform(item, schema.item, known, f"{where}[]") for item in value]


class _UnfitError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


def _line(value: Any, longest: int) -> str:
    """One line of printable text in its usual composition; nothing invisible, no half of a pair."""
    if not isinstance(value, str):
        raise _UnfitError(Refusal.WRONG_TYPE)
    if not 0 < len(value) <= longest or not value.isprintable() or unicodedata.normalize("NFKC", value) != value:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return value


def _words(text: str) -> int:
    """How many words a text has, however they are joined: by spaces, marks, or a capital within."""
    parted = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", text.replace("'", ""))
    return len(re.findall(r"[^\W\d_]+|\d+", parted))


def _id(value: Any, schema: Schema, _: Known) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _line(value, LONGEST_ID)
    if not text.isascii() or not re.fullmatch(schema.pattern, text) or _separate(text) > MOST_ID_WORDS:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return text


def _separate(text: str) -> int:
    return len(re.findall(r"[A-Za-z]{2,}", text))


def _enum(value: Any, schema: Schema, _: Known) -> str:
    if not isinstance(value, str):
        raise _UnfitError(Refusal.WRONG_TYPE)
    if value not in schema.values:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return value


def _boolean(value: Any, _: Schema, __: Known) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError(Refusal.WRONG_TYPE)
    return value


def _number(value: Any, schema: Schema, _: Known) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError(Refusal.WRONG_TYPE)
    if schema.integer and not isinstance(value, int):
        raise _UnfitError(Refusal.WRONG_TYPE)
    if not math.isfinite(value) or not schema.low <= value <= schema.high:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return value


_MARKS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_AMOUNT = re.compile(r"([$€£¥]|[A-Z]{3})? ?(\d{1,3}(?:,\d{3})+|\d{1,12})(\.\d{1,2})? ?([$€£¥]|[A-Z]{3})?")


def _money(value: Any, schema: Schema, known: Known) -> int | float:
    if isinstance(value, str):
        found = _AMOUNT.fullmatch(value)
        if found is None:
            raise _UnfitError(Refusal.WRONG_TYPE)
        marks = {_MARKS.get(mark, mark) for mark in (found[1], found[4]) if mark}
        # An amount in another currency is another amount; a mark where none was declared says nothing that is dropped.
        if marks - {schema.currency}:
            raise _UnfitError(Refusal.NOT_ALLOWED)
        value = float(found[2].replace(",", "") + (found[3] or ""))
    amount = _number(value, schema, known)
    if round(amount, 2) != amount:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return amount


_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?")


def _date(value: Any, _: Schema, __: Known) -> str:
    text = _line(value, 40)
    if not text.isascii() or not _DATE.fullmatch(text):
        raise _UnfitError(Refusal.WRONG_TYPE)
    try:
        if len(text) == 10:
            calendar_date.fromisoformat(text)
        else:
            datetime.fromisoformat(text)
    except ValueError:
        raise _UnfitError(Refusal.NOT_ALLOWED) from None
    return text


def _email(value: Any, _: Schema, known: Known) -> str:
    text = _line(value, 254)
    if text.lower() not in known.contacts:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return text


_PATH = re.compile(r"[A-Za-z0-9._~-]{1,40}")


def _url(value: Any, _: Schema, known: Known) -> str:
    text = _line(value, 200)
    address = re.sub(r"^https?://", "", text).removesuffix("/")
    if not text.isascii() or "/.." in address:
        raise _UnfitError(Refusal.NOT_ALLOWED)
    if address not in known.urls:
        base, _slash, last = address.rpartition("/")
        if f"{base}/*" not in known.urls or not _PATH.fullmatch(last) or _separate(last) > MOST_ID_WORDS:
            raise _UnfitError(Refusal.NOT_ALLOWED)
    return text


def _short(value: Any, schema: Schema, _: Known) -> str:
    text = _line(value, schema.longest)
    if _words(text) > schema.words or not all(mark.isalnum() or mark in " '&.,:-/()+#%" for mark in text):
        raise _UnfitError(Refusal.NOT_ALLOWED)
    return text


def _opaque(value: Any, _: Schema, __: Known) -> _Sealed:
    if not isinstance(value, str):
        raise _UnfitError(Refusal.WRONG_TYPE)
    return _Sealed(value)


_LEAF: Mapping[Type, Callable[[Any, Schema, Known], Any]] = {
    Type.ID: _id,
    Type.ENUM: _enum,
    Type.BOOLEAN: _boolean,
    Type.NUMBER: _number,
    Type.MONEY: _money,
    Type.DATE: _date,
    Type.EMAIL: _email,
    Type.URL: _url,
    Type.SHORT_TEXT: _short,
    Type.OPAQUE_REF: _opaque,
}
