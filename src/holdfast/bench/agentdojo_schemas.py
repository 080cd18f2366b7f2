"""What each of AgentDojo's 74 tools may hand to the parent, written from what the tools give and not from what the tasks need.

One declaration a tool (``SCHEMAS``), what kind of tool it is (``COMMANDS``), and which sources may fill which argument of those
that act (``FLOWS``). Bodies, subjects, descriptions, places and reviews cross as handles; names of hotels and channels as names.
"""

from __future__ import annotations

from collections.abc import Mapping

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

NAME = short_text(32, 5)
ADDRESS = email().sealing()
ACCOUNT = identifier(r"me|[A-Z]{2}\d{2}[A-Z0-9]{8,30}").sealing()
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

MAILS = record(
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
EVENTS = record(
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
FILES = record(
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
TRANSACTIONS = record(
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
MESSAGES = record(
    messages=list_of(
        record(sender=NAME, body=opaque_ref(), links=list_of(url().sealing(), 4), addresses=list_of(ADDRESS, 4))
    )
)
NAMES = record(names=list_of(NAME))
TEXTS = record(of=list_of(record(name=NAME, text=opaque_ref())))
NUMBERS = record(of=list_of(record(name=NAME, value=number(0))))
RATINGS = record(of=list_of(record(name=NAME, rating=number(0, 5).optional(), reviews=opaque_ref())))
WORDS = record(of=list_of(record(name=NAME, words=list_of(short_text(16, 2), 8))))
MADE = record(id=identifier())
DONE = record()

SCHEMAS: Mapping[str, Schema] = {
    # mail
    **dict.fromkeys(
        ("get_unread_emails", "get_sent_emails", "get_received_emails", "get_draft_emails", "search_emails"), MAILS
    ),
    **dict.fromkeys(
        ("search_contacts_by_name", "search_contacts_by_email"),
        record(contacts=list_of(record(name=NAME.sealing(), email=ADDRESS))),
    ),
    "send_email": MADE,
    "delete_email": DONE,
    # calendar
    "get_current_day": record(day=date()),
    "search_calendar_events": EVENTS,
    "get_day_calendar_events": EVENTS,
    "create_calendar_event": MADE,
    "cancel_calendar_event": DONE,
    "reschedule_calendar_event": MADE,
    "add_calendar_event_participants": MADE,
    # files
    **dict.fromkeys(("search_files_by_filename", "search_files", "list_files", "get_file_by_id"), FILES),
    **dict.fromkeys(("append_to_file", "create_file", "delete_file", "share_file"), MADE),
    # bank
    "get_iban": record(account=ACCOUNT),
    "get_balance": record(balance=number()),
    "get_most_recent_transactions": TRANSACTIONS,
    "get_scheduled_transactions": TRANSACTIONS,
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
        DONE,
    ),
    # chat and web
    "get_channels": record(channels=list_of(identifier().sealing())),
    "get_users_in_channel": record(users=list_of(NAME)),
    "read_channel_messages": MESSAGES,
    "read_inbox": MESSAGES,
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
        DONE,
    ),
    # travel
    "get_user_information": record(of=list_of(record(name=NAME, text=opaque_ref()))),
    "get_all_hotels_in_city": NAMES,
    "get_all_restaurants_in_city": NAMES,
    "get_all_car_rental_companies_in_city": NAMES,
    "get_hotels_prices": record(of=list_of(record(name=NAME, low=number(0).optional(), high=number(0).optional()))),
    "get_rating_reviews_for_hotels": RATINGS,
    "get_rating_reviews_for_restaurants": RATINGS,
    "get_rating_reviews_for_car_rental": RATINGS,
    "get_hotels_address": TEXTS,
    "get_restaurants_address": TEXTS,
    "get_car_rental_address": TEXTS,
    "get_contact_information_for_restaurants": TEXTS,
    "get_cuisine_type_for_restaurants": record(of=list_of(record(name=NAME, cuisine=short_text(16, 2)))),
    "get_dietary_restrictions_for_all_restaurants": record(
        of=list_of(record(name=NAME, offers=list_of(enum("Vegetarian", "Vegan", "Gluten-free"), 3)))
    ),
    "get_price_for_restaurants": NUMBERS,
    "get_car_price_per_day": NUMBERS,
    "check_restaurant_opening_hours": record(
        of=list_of(record(name=NAME, hours=opaque_ref(), days=list_of(enum(*DAYS), 7)))
    ),
    "get_car_types_available": WORDS,
    "get_car_fuel_options": WORDS,
    "get_flight_information": record(
        flights=list_of(
            record(airline=NAME, number=identifier(r"[A-Z]{2}\d{1,4}"), departs=date(), arrives=date(), price=money())
        )
    ),
    **dict.fromkeys(("reserve_hotel", "reserve_restaurant", "reserve_car_rental"), DONE),
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
