"""What each of AgentDojo's 74 tools may hand to the parent, written from what the tools give and not from what the tasks need.

One declaration a tool (``SCHEMAS``), a mechanical reading of its result into the declared names (``read``), what kind of tool it
is (``COMMANDS``), and which sources may fill which argument of those that act (``FLOWS``). Bodies, subjects, descriptions, places
and reviews cross as handles; names of hotels and channels cross as names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.guard.flow import Flows
from holdfast.guard.isolation import ToolClass
from holdfast.guard.schema import (
    Schema,
    boolean,
    date,
    email,
    enum,
    identifier,
    list_of,
    money,
    number,
    opaque_ref,
    record,
    short_text,
    url,
)

VERSION = "v1.2.2"
"""The version of the benchmark that the tools and the counts are of."""

Reader = Callable[[Any], Any]

NAME = short_text(32, 5)
ADDRESS = email().sealing()
ACCOUNT = identifier(r"me|[A-Z]{2}\d{2}[A-Z0-9]{8,30}").sealing()
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_MAILS = record(
    mails=list_of(
        record(
            id=identifier(),
            sender=ADDRESS,
            time=date(),
            subject=opaque_ref(),
            body=opaque_ref(),
            files=list_of(identifier()),
            dates=list_of(date(), most=4),
            addresses=list_of(ADDRESS, most=4),
        )
    )
)
_EVENTS = record(
    events=list_of(
        record(
            id=identifier(),
            title=NAME.sealing(),
            start=date(),
            end=date(),
            location=opaque_ref().optional(),
            description=opaque_ref(),
            participants=list_of(ADDRESS),
        )
    )
)
_FILES = record(
    files=list_of(
        record(
            id=identifier(),
            name=identifier().sealing(),
            size=number(0, integer=True),
            shared=list_of(ADDRESS),
            content=opaque_ref(),
            dates=list_of(date(), most=4),
            addresses=list_of(ADDRESS, most=4),
        )
    )
)
_TRANSACTIONS = record(
    transactions=list_of(
        record(
            id=number(0, integer=True),
            sender=ACCOUNT,
            recipient=ACCOUNT,
            amount=money(),
            date=date(),
            recurring=boolean(),
            subject=opaque_ref(),
        )
    )
)
_MESSAGES = record(
    messages=list_of(
        record(sender=NAME, body=opaque_ref(), links=list_of(url().sealing(), 4), addresses=list_of(ADDRESS, 4))
    )
)
_NAMES = record(names=list_of(NAME))
_TEXTS = record(of=list_of(record(name=NAME, text=opaque_ref())))
_NUMBERS = record(of=list_of(record(name=NAME, value=number(0))))
_RATINGS = record(of=list_of(record(name=NAME, rating=number(0, 5).optional(), reviews=opaque_ref())))
_WORDS = record(of=list_of(record(name=NAME, words=list_of(short_text(16, 2), 8))))
_MADE = record(id=identifier())
_DONE = record()

SCHEMAS: Mapping[str, Schema] = {
    # mail
    **dict.fromkeys(
        ("get_unread_emails", "get_sent_emails", "get_received_emails", "get_draft_emails", "search_emails"), _MAILS
    ),
    **dict.fromkeys(
        ("search_contacts_by_name", "search_contacts_by_email"),
        record(contacts=list_of(record(name=NAME.sealing(), email=ADDRESS))),
    ),
    "send_email": _MADE,
    "delete_email": _DONE,
    # calendar
    "get_current_day": record(day=date()),
    "search_calendar_events": _EVENTS,
    "get_day_calendar_events": _EVENTS,
    "create_calendar_event": _MADE,
    "cancel_calendar_event": _DONE,
    "reschedule_calendar_event": _MADE,
    "add_calendar_event_participants": _MADE,
    # files
    **dict.fromkeys(("search_files_by_filename", "search_files", "list_files", "get_file_by_id"), _FILES),
    **dict.fromkeys(("append_to_file", "create_file", "delete_file", "share_file"), _MADE),
    # bank
    "get_iban": record(account=ACCOUNT),
    "get_balance": record(balance=number()),
    "get_most_recent_transactions": _TRANSACTIONS,
    "get_scheduled_transactions": _TRANSACTIONS,
    "read_file": record(
        amounts=list_of(money(), 8),
        accounts=list_of(ACCOUNT, 4),
        street=short_text(32, 4).optional(),
        city=short_text(24, 3).optional(),
        text=opaque_ref(),
    ),
    "get_user_info": record(first_name=NAME, last_name=NAME, street=NAME.sealing(), city=NAME.sealing()),
    **dict.fromkeys(
        ("send_money", "schedule_transaction", "update_scheduled_transaction", "update_password", "update_user_info"),
        _DONE,
    ),
    # chat and web
    "get_channels": record(channels=list_of(identifier().sealing())),
    "get_users_in_channel": record(users=list_of(NAME)),
    "read_channel_messages": _MESSAGES,
    "read_inbox": _MESSAGES,
    "get_webpage": record(text=opaque_ref(), links=list_of(url().sealing(), 8), addresses=list_of(ADDRESS, 8)),
    **dict.fromkeys(
        (
            "add_user_to_channel",
            "send_direct_message",
            "send_channel_message",
            "invite_user_to_slack",
            "remove_user_from_slack",
            "post_webpage",
        ),
        _DONE,
    ),
    # travel
    "get_user_information": record(of=list_of(record(name=NAME, text=opaque_ref()))),
    "get_all_hotels_in_city": _NAMES,
    "get_all_restaurants_in_city": _NAMES,
    "get_all_car_rental_companies_in_city": _NAMES,
    "get_hotels_prices": record(of=list_of(record(name=NAME, low=number(0).optional(), high=number(0).optional()))),
    "get_rating_reviews_for_hotels": _RATINGS,
    "get_rating_reviews_for_restaurants": _RATINGS,
    "get_rating_reviews_for_car_rental": _RATINGS,
    "get_hotels_address": _TEXTS,
    "get_restaurants_address": _TEXTS,
    "get_car_rental_address": _TEXTS,
    "get_contact_information_for_restaurants": _TEXTS,
    "get_cuisine_type_for_restaurants": record(of=list_of(record(name=NAME, cuisine=short_text(16, 2)))),
    "get_dietary_restrictions_for_all_restaurants": record(
        of=list_of(record(name=NAME, offers=list_of(enum("Vegetarian", "Vegan", "Gluten-free"), 3)))
    ),
    "get_price_for_restaurants": _NUMBERS,
    "get_car_price_per_day": _NUMBERS,
    "check_restaurant_opening_hours": record(
        of=list_of(record(name=NAME, hours=opaque_ref(), days=list_of(enum(*DAYS), 7)))
    ),
    "get_car_types_available": _WORDS,
    "get_car_fuel_options": _WORDS,
    "get_flight_information": record(
        flights=list_of(
            record(airline=NAME, number=identifier(r"[A-Z]{2}\d{1,4}"), departs=date(), arrives=date(), price=money())
        )
    ),
    **dict.fromkeys(("reserve_hotel", "reserve_restaurant", "reserve_car_rental"), _DONE),
}
"""Tool to what may cross. Two suites share four of the tools, with the same declaration."""

COMMANDS = frozenset(
    "send_email delete_email create_calendar_event cancel_calendar_event reschedule_calendar_event "
    "add_calendar_event_participants append_to_file create_file delete_file share_file send_money schedule_transaction "
    "update_scheduled_transaction update_password update_user_info add_user_to_channel send_direct_message "
    "send_channel_message invite_user_to_slack remove_user_from_slack post_webpage reserve_hotel reserve_restaurant "
    "reserve_car_rental get_webpage".split()
)
"""What acts. Reading a web page is one of them: its address tells something to whoever runs the server."""
CLASSES: Mapping[str, ToolClass] = {
    tool: ToolClass.COMMAND if tool in COMMANDS else ToolClass.QUERY for tool in SCHEMAS
}

_ANY = ("tool:*",)
_PEOPLE = ("tool:*emails", "tool:search_contacts_*", "tool:*_calendar_events", "tool:get_current_day")
_DRIVE = (
    "tool:search_files*",
    "tool:list_files",
    "tool:get_file_by_id",
    "tool:create_file",
    "tool:append_to_file",
    *_PEOPLE,
)
_BANK = ("tool:read_file", "tool:get_most_recent_transactions", "tool:get_scheduled_transactions")
_CHAT = ("tool:get_channels", "tool:get_users_in_channel", "tool:read_*", "tool:get_webpage")

FLOWS: Flows = {
    "send_email": {
        "recipients": (*_PEOPLE, "tool:search_files*", "tool:list_files"),
        "subject": _ANY,
        "body": _ANY,
        "attachments": _DRIVE,
    },
    "delete_email": {"email_id": ("tool:*emails", "tool:get_current_day")},
    "create_calendar_event": {
        "title": _ANY,
        "description": _ANY,
        "location": _ANY,
        "start_time": _PEOPLE,
        "end_time": _PEOPLE,
        "participants": _PEOPLE,
    },
    "cancel_calendar_event": {"event_id": _PEOPLE},
    "reschedule_calendar_event": {"event_id": _PEOPLE, "new_start_time": _PEOPLE, "new_end_time": _PEOPLE},
    "add_calendar_event_participants": {"event_id": _PEOPLE, "participants": _PEOPLE},
    "append_to_file": {"file_id": _DRIVE, "content": _ANY},
    "create_file": {"filename": _DRIVE, "content": _ANY},
    "delete_file": {"file_id": _DRIVE},
    "share_file": {"file_id": _DRIVE, "email": _PEOPLE},
    "send_money": {"recipient": _BANK, "amount": _BANK, "subject": _ANY, "date": _BANK},
    "schedule_transaction": {"recipient": _BANK, "amount": _BANK, "subject": _ANY, "date": _BANK},
    "update_scheduled_transaction": {"id": _BANK, "recipient": _BANK, "amount": _BANK, "subject": _ANY, "date": _BANK},
    "update_user_info": {"street": ("tool:read_file",), "city": ("tool:read_file",)},
    "update_password": {},
    "add_user_to_channel": {"user": _CHAT, "channel": _CHAT},
    "send_direct_message": {"recipient": _CHAT, "body": _ANY},
    "send_channel_message": {"channel": _CHAT, "body": _ANY},
    "invite_user_to_slack": {"user": _CHAT, "user_email": _CHAT},
    "remove_user_from_slack": {},
    "post_webpage": {"content": _ANY},
    "get_webpage": {"url": _CHAT},
    "reserve_hotel": {"hotel": _ANY, "start_day": _PEOPLE, "end_day": _PEOPLE},
    "reserve_restaurant": {"restaurant": _ANY, "start_time": _PEOPLE},
    "reserve_car_rental": {"company": _ANY, "start_time": _PEOPLE, "end_time": _PEOPLE},
}
"""Who may fill what: content may come from anywhere; who is paid, written to or shared with may not, and a password never."""


# --- reading results mechanically ---

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
    (_MAILS, _mails),
    (_EVENTS, _events),
    (_FILES, _files),
    (_MESSAGES, _messages),
    (_NAMES, _listing),
    (_TEXTS, _by_name("text")),
    (_NUMBERS, _by_name("value")),
    (_RATINGS, _ratings),
    (_WORDS, _by_name("words")),
    (_MADE, _made),
    (_DONE, lambda _: {}),
)
