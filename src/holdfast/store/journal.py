"""The journal: an append-only chain of events, each hashed over the one before it.

Content itself is not in the chain. An event holds a salted digest of the version it made; salt and content lie together
in the version's row. So a purge can erase both, nobody can guess the text from what stays, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

GENESIS = bytes(32)
"""The "previous hash" of the first event."""

ASKED, FOLLOWED = bytes(32), b"\xff" * 32
"""In place of a digest, in the event of an erasure: it was asked for; or it went because what it was made from did."""


def digest(salt: bytes, body: str) -> bytes:
    """The salted content digest of one version (32 bytes)."""
    return hashlib.sha256(salt + body.encode("utf-8", "surrogatepass")).digest()


def link(previous: bytes, fields: tuple[Any, ...]) -> bytes:
    """The hash of an event: over the previous hash and every field, unambiguously encoded (32 bytes).

    ``fields`` is (seq, txn, at in microseconds, actor, action, partition path, id, version, reason, digest in hex).
    """
    return hashlib.sha256(previous + _ENCODER.encode(fields).encode()).digest()


_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that ``verify`` found: where in the journal, and what."""

    seq: int
    what: str
