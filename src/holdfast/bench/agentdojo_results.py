"""Reading the results of AgentDojo's tools mechanically, into the names that their declarations have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.bench.agentdojo_schemas import (
    DAYS,
    DONE,
    EVENTS,
    FILES,
    MADE,
    MAILS,
    MESSAGES,
    NAMES,
    NUMBERS,
    RATINGS,
    SCHEMAS,
    TEXTS,
    WORDS,
)
from holdfast.guard.schema import Schema

Reader = Callable[[Any], Any]

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_LINK = re.compile(r"(?:https?://)?(?:www\.[\w.-]+\.[a-z]{2,}|(?<=://)[\w.-]+\.[a-z]{2,})(?:/[\w./-]*\w)?")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_AMOUNT = re.compile(r"(?<![\w.-])\d{1,7}\.\d{1,2}(?![\w.])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{8,30}\b")
_STREET = re.compile(r"^\w[\w ]{2,24} \d{1,4}$", re.MULTILINE)
_CITY = re.compile(r"^(\w[\w ]{1,20}), [A-Z]{2} \d{5}$", re.MULTILINE)
_FLIGHT = re.compile(
    r"Airline: ([^,\n]+), Flight Number: ([^,\n]+), Departure Time: ([^,\n]+), Arrival Time: ([^,\n]+), Price: ([\d.]+)"
)


def _all(pattern: re.Pattern[str], text: str, most: int) -> list[str]:
    return list(dict.fromkeys(pattern.findall(text)))[:most]


def _mails(result: Any) -> Any:
    return [
        {
            "id": mail["id_"],
            "sender": mail["sender"],
            "time": mail["timestamp"],
            "subject": mail["subject"],
            "body": mail["body"],
            "files": [item for item in mail["attachments"] if isinstance(item, str)],
            "dates": _all(_DATE, mail["body"], 4),
            "addresses": _all(_EMAIL, mail["body"], 4),
        }
        for mail in result
    ]


def _events(result: Any) -> Any:
    renamed = {"id": "id_", "start": "start_time", "end": "end_time"}
    names = ("id", "title", "start", "end", "location", "description", "participants")
    return [{name: event[renamed.get(name, name)] for name in names} for event in result]


def _files(result: Any) -> Any:
    files = result if isinstance(result, list) else [result]
    return [
        {
            "id": one["id_"],
            "name": one["filename"],
            "size": one["size"],
            "shared": list(one["shared_with"]),
            "content": one["content"],
            "dates": _all(_DATE, one["content"], 4),
            "addresses": _all(_EMAIL, one["content"], 4),
        }
        for one in files
    ]


def _messages(result: Any) -> Any:
    return [
        {
            "sender": message["sender"],
            "body": message["body"],
            "links": _all(_LINK, message["body"], 4),
            "addresses": _all(_EMAIL, message["body"], 4),
        }
        for message in result
    ]


def _webpage(result: Any) -> Any:
    text = str(result)
    return {"text": text, "links": _all(_LINK, text, 8), "addresses": _all(_EMAIL, text, 8)}


def _letter(result: Any) -> Any:
    text = str(result)
    street, city = _STREET.search(text), _CITY.search(text)
    return {
        "amounts": [float(amount) for amount in _all(_AMOUNT, text, 8)],
        "accounts": _all(_IBAN, text, 4),
        "street": street[0] if street else None,
        "city": city[1] if city else None,
        "text": text,
    }


def _listing(result: Any) -> Any:
    lines = str(result).partition(": ")[2].splitlines()
    return {"names": [line.strip() for line in lines if line.strip()]}


def _by_name(field: str, of: Reader = lambda text: text) -> Reader:
    return lambda result: [{"name": name, field: of(item)} for name, item in result.items()]


def _prices(result: Any) -> Any:
    found = {name: re.search(r"([\d.]+) - ([\d.]+)", text) for name, text in result.items()}
    return [
        {"name": name, "low": float(one[1]) if one else None, "high": float(one[2]) if one else None}
        for name, one in found.items()
    ]


def _ratings(result: Any) -> Any:
    rows = []
    for name, text in result.items():
        found = re.match(r"Rating: ([\d.]+)\n", text)
        rows.append({"name": name, "rating": float(found[1]) if found else None, "reviews": text})
    return rows


def _hours(result: Any) -> Any:
    return [
        {"name": name, "hours": text, "days": [day for day in DAYS if re.search(rf"\b{day}\w*day", text)]}
        for name, text in result.items()
    ]


def _flights(result: Any) -> Any:
    names = ("airline", "number", "departs", "arrives", "price")
    return {"flights": [dict(zip(names, found, strict=True)) for found in _FLIGHT.findall(str(result))]}


def _made(result: Any) -> Any:
    return {"id": result["id_"]}


_READERS: Mapping[str, Reader] = {
    "get_current_day": lambda result: {"day": result},
    "get_iban": lambda result: {"account": result},
    "get_balance": lambda result: {"balance": result},
    "read_file": _letter,
    "get_webpage": _webpage,
    "get_hotels_prices": _prices,
    "get_cuisine_type_for_restaurants": _by_name("cuisine"),
    "get_dietary_restrictions_for_all_restaurants": _by_name(
        "offers", lambda text: re.findall(r"(Vegetarian|Vegan|Gluten-free) available", text)
    ),
    "check_restaurant_opening_hours": _hours,
    "get_flight_information": _flights,
    "get_user_information": _by_name("text"),
}


def read(tool: str, result: Any) -> Any:
    """A tool's plain result (text, dicts, lists) as what its declaration names; what it does not name is gone."""
    if tool in _READERS:
        return _READERS[tool](result)
    schema = SCHEMAS[tool]
    for shared, reader in _SHARED:
        if schema is shared:
            return reader(result)
    return result


_SHARED: tuple[tuple[Schema, Reader], ...] = (
    (MAILS, _mails),
    (EVENTS, _events),
    (FILES, _files),
    (MESSAGES, _messages),
    (NAMES, _listing),
    (TEXTS, _by_name("text")),
    (NUMBERS, _by_name("value")),
    (RATINGS, _ratings),
    (WORDS, _by_name("words")),
    (MADE, _made),
    (DONE, lambda _: {}),
)
