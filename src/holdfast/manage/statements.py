"""What facts state, in a form that can be compared: a slot (entity, attribute), a value, when it holds, who stands behind it.

An encoder's claim (``encode.slots.Claim``) is what a turn says and where it says it; it is kept as a fact. A statement is read
back from the fact, whoever made it; relations between slots and aliases are statements too.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.cube import Cube, Ref, from_micros, utc
from holdfast.encode.slots import plain
from holdfast.errors import InputError

SAME_AS = "same as"
"""The attribute of an alias: ``Statement("Bob", SAME_AS, "Robert")``."""

BEGINNING = datetime.min.replace(tzinfo=UTC)
"""From when a statement holds, and when it was learnt, where nothing says."""
_END = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that can be true or false, and who stands behind it.

    Fields
        entity, attribute: the slot; case, spacing, outer punctuation and leading articles do not matter.
        value, unit: what is asserted. A number, or a text that is one ("30", "180 cm"), is a quantity; other texts are
            values. With ``other`` it is the offset of a relation, and None means "the same".
        valid_from, valid_to: when it holds (the end is exclusive). Without a start it holds from when it was recorded.
        polarity: False for a denial ("does not live in Paris"). Relations and aliases cannot be denied.
        trust, recorded_at: what decides between statements that cannot both be true.
        functional: whether the slot has one value at a time. Left None, quantities do and texts do not ("likes" may have
            many values; two of them are no contradiction).
        other, scale: a relation: entity's attribute = scale · other's attribute + value.

    Raises InputError for empty names, values that are not finite, and relations that cannot be expressed.
    """

    entity: str
    attribute: str
    value: str | float | None = None
    unit: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    polarity: bool = True
    trust: float = 1.0
    ref: Ref | None = None
    recorded_at: datetime | None = None
    functional: bool | None = None
    other: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not plain(self.entity) or not plain(self.attribute):
            raise InputError("a statement needs an entity and an attribute")
        linked = self.other is not None or plain(self.attribute) == SAME_AS
        if linked and not self.polarity:
            raise InputError("a relation or an alias cannot be denied; state the values that differ instead")
        if self.other is None:
            if self.value is None or (isinstance(self.value, str) and not plain(self.value)):
                raise InputError("a statement needs a value, or other= for a relation")
            if plain(self.attribute) == SAME_AS and not isinstance(self.value, str):
                raise InputError("an alias needs the other entity's name as its value")
        elif not plain(self.other) or isinstance(self.value, str):
            raise InputError("a relation needs the other entity's name and a number (or None) as its value")
        numbers = [self.scale] + ([] if self.value is None or isinstance(self.value, str) else [self.value])
        if not all(map(_is_finite, numbers)) or self.scale == 0:
            raise InputError("a statement's numbers must be finite, and its scale must not be zero")
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise InputError(f"a statement cannot end ({self.valid_to}) before it begins ({self.valid_from})")

    @property
    def start(self) -> datetime:
        """From when it holds: its own start, else when it was recorded, else always."""
        return self.valid_from or self.recorded_at or BEGINNING

    @property
    def end(self) -> datetime:
        """Until when it holds, exclusive."""
        return self.valid_to or _END

    @property
    def content(self) -> tuple[object, ...]:
        """What is said, whoever says it and whenever: equal for statements that differ only in spelling or unit."""
        reading = Reading.of(self)
        number = None if reading.number is None else float(f"{reading.number * reading.factor:.12g}")
        said = reading.text if number is None else number
        return reading.entity, reading.attribute, reading.other, said, reading.dimension, reading.scale, self.polarity


# --- how it is compared ---


@dataclass(frozen=True, slots=True)
class Reading:
    """A statement with its names folded, its value parsed, its unit resolved. ``number`` and ``text`` exclude each other."""

    entity: str
    attribute: str
    other: str | None
    text: str | None
    number: float | None
    dimension: str | None
    factor: float
    functional: bool
    polarity: bool
    scale: float

    @classmethod
    def of(cls, statement: Statement) -> Reading:
        """Never fails: a text that is no quantity is a value, and an unknown unit is a dimension of its own."""
        attribute, value, unit = plain(statement.attribute), statement.value, statement.unit
        other = None if statement.other is None else plain(statement.other)
        text: str | None = None
        number: float | None = None
        if attribute == SAME_AS:
            other = plain(statement.other or str(value))
        elif isinstance(value, str):
            match = _NUMBER.fullmatch(value.strip())
            # "180 cm" is a quantity, "12 angry men" is not; a unit given twice is left as it stands.
            if match and not (match[2] and unit) and _is_finite(float(match[1].replace(",", ""))):
                number, unit = float(match[1].replace(",", "")), match[2] or unit
            else:
                text = plain(value)
        elif value is not None or statement.scale != 1.0:
            number = float(value or 0.0)
        dimension, factor = _unit(unit)
        functional = statement.functional if statement.functional is not None else number is not None
        return cls(
            plain(statement.entity),
            attribute,
            other,
            text,
            number,
            dimension,
            factor,
            functional,
            statement.polarity,
            statement.scale,
        )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float can hold
        return False


def _unit(unit: str | None) -> tuple[str | None, float]:
    if unit is None or not plain(unit):
        return None, 1.0
    name = plain(unit)
    singular = name[:-1] if len(name) > 2 and name.endswith("s") else name
    return _UNITS.get(name) or _UNITS.get(singular) or (singular, 1.0)


_NUMBER = re.compile(r"([-+]?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?)\s*([^\W\d]+)?")
_SCALES: Mapping[str, Mapping[float, str]] = {
    "length": {
        0.001: "mm millimetre millimeter",
        0.01: "cm centimetre centimeter",
        1.0: "m metre meter",
        1000.0: "km kilometre kilometer",
        0.0254: "inch inche",
        0.3048: "ft foot feet",
        1609.344: "mile",
    },
    "mass": {0.001: "g gram gramme", 1.0: "kg kilo kilogram kilogramme", 0.45359237: "lb", 1000.0: "tonne"},
    "time": {
        1.0: "s sec second",
        60.0: "min minute",
        3600.0: "h hr hour",
        86_400.0: "day",
        604_800.0: "week",
        2_629_746.0: "month",
        31_556_952.0: "yr year",
    },
}
_UNITS = {
    name: (dimension, factor)
    for dimension, scale in _SCALES.items()
    for factor, names in scale.items()
    for name in names.split()
}


# --- from a cube ---


def statement_of(cube: Cube, now: datetime) -> Statement | None:
    """What a cube's data states, or None where it states nothing that can be compared.

    Reads ``subject``, ``attribute``, ``value`` (or ``canonical``, the value as it is compared) and, where present,
    ``unit``, ``polarity`` (False or "negative" for a denial) and ``functional``.
    """
    data = cube.data
    entity, attribute, unit = (data.get(name) for name in ("subject", "attribute", "unit"))
    value = data.get("canonical", data.get("value"))
    if isinstance(value, bool):
        value = str(value)
    if not (isinstance(entity, str) and isinstance(attribute, str) and isinstance(value, str | int | float)):
        return None
    functional = data.get("functional")
    try:
        return Statement(
            entity,
            attribute,
            value,
            unit if isinstance(unit, str) else None,
            cube.valid_from,
            cube.valid_to,
            data.get("polarity", True) not in (False, "negative"),
            cube.origin.trust,
            cube.ref,
            learnt_at(cube, now),
            functional if isinstance(functional, bool) else None,
        )
    except InputError:
        # Data is whatever an encoder or a user put there; what is no statement cannot contradict one.
        return None


def learnt_at(cube: Cube, now: datetime) -> datetime:
    """When a memory was first learnt: ``said_at`` in its data, else when its first version was recorded, else ``now``.

    ``recorded_at`` is that of the version, and an old fact is not newer for having been touched; so later versions go back
    to the time in the id where it is a UUIDv7.
    """
    with suppress(KeyError, InputError):  # data is whatever an encoder or a user put there, so it may not say
        return utc(cube.data["said_at"])
    recorded = cube.recorded_at or now
    id = uuid.UUID(cube.id)
    return recorded if cube.version == 1 or id.version != 7 else min(recorded, from_micros((id.int >> 80) * 1000))
