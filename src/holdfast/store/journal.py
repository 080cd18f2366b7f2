"""The journal: an append-only chain of events, each hashed over the one before it.

Content itself is not in the chain. An event holds a salted digest of the version it made; salt and content lie together
in the version's row. So a purge can erase both, nobody can guess the text from what stays, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.store.base import Event

GENESIS = bytes(32)
"""The "previous hash" of the first event."""


def digest(salt: bytes, body: str) -> bytes:
    """The salted content digest of one version (32 bytes)."""
    return hashlib.sha256(salt + body.encode("utf-8", "surrogatepass")).digest()


def link(previous: bytes, fields: tuple[Any, ...]) -> bytes:
    """The hash of an event: over the previous hash and every field, unambiguously encoded (32 bytes).

    ``fields`` is (seq, txn, at in microseconds, actor, action, partition path, id, version, reason, digest in hex).
    """
    encoded = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()
    return hashlib.sha256(previous + encoded).digest()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that ``verify`` found: where in the journal, and what."""

    seq: int
    what: str


def check_chain(events: Iterator[tuple[Event, int]]) -> Iterator[Problem]:
    """Walk (event, its time in microseconds) from the first on; yield every gap, reordering and changed event."""
    previous, expected, last_at = GENESIS, 1, 0
    for event, at in events:
        if event.seq != expected:
            yield Problem(event.seq, f"event {expected} is missing")
        if at < last_at:
            yield Problem(event.seq, "its time lies before the event before it")
        if event.hash != link(previous, chained(event, at)):
            yield Problem(event.seq, "its hash does not fit: this event or the one before it was changed")
        previous, expected, last_at = event.hash, event.seq + 1, at


def chained(event: Event, at: int) -> tuple[Any, ...]:
    """The fields of an event that its hash covers."""
    return (
        event.seq,
        event.txn,
        at,
        event.actor,
        str(event.action),
        event.partition,
        event.id,
        event.version,
        event.reason,
        event.digest.hex(),
    )
