"""Rewards that come later: a token goes out with what was recalled, and counts once, whenever and wherever it comes back.

The runtime feedback of MemRL (arXiv 2601.03192, §4.3, Q + rate (reward - Q)). A token carries what it is for, sealed with a key
of the store's, so a recall writes nothing and whoever reads the journal cannot make one. The journal has one entry of it, made
with its reward: so it outlives the process that asked, and two that bring it at once are told apart by the write lock.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import struct
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from holdfast.cube import RECALLABLE, Cube, Ref, Scope
from holdfast.errors import InputError, NotFoundError
from holdfast.store.base import Action
from holdfast.store.batch import Batch, newest
from holdfast.store.engine import Database
from holdfast.store.grants import Reach
from holdfast.store.rows import id_bytes, id_text, visible

Credit = Literal["full", "split"]

_CREDITS = get_args(Credit)
_TOKEN = re.compile(r"use-([A-Za-z0-9_-]{100,})")
_HEAD = struct.Struct(
    ">16sQddBI"
)  # a number like no other, the journal's head, rate, start, credit, the first's version
_SEAL = 16
_ID = 16


@dataclass(frozen=True, slots=True)
class Terms:
    """How a reward is to count: fixed when the token goes out, so that whoever brings it back need not know.

    ``rate`` is the step α of the update; ``start`` the utility of a memory of which nothing is known (Q_init); ``credit`` gives
    each memory of a token the "full" reward, as the paper does, or "split"s it among them. Raises InputError.
    """

    rate: float = 0.3
    start: float = 0.0
    credit: Credit = "full"

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0 or not -1.0 <= self.start <= 1.0 or self.credit not in _CREDITS:
            raise InputError(
                f"a rate lies in (0, 1], a start in [-1, 1], and credit is 'full' or 'split', not {self.rate!r}, "
                f"{self.start!r}, {self.credit!r}"
            )


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What came of a token. ``applied`` is false where it had been redeemed before: then nothing changed.

    ``reward`` is the one that counted, the first; ``moved`` are the memories whose utility it moved, and ``unmoved`` says why
    others were left as they are.
    """

    applied: bool
    reward: float
    moved: tuple[str, ...] = ()
    unmoved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Token:
    """What a token says. ``head``: the newest event when it went out; ``version``: of the first memory, as it was told."""

    digest: bytes
    head: int
    terms: Terms
    ids: tuple[str, ...]
    version: int


def bounded(reward: float) -> float:
    """A reward as a number. Raises InputError for what does not lie in [-1, 1]."""
    if not isinstance(reward, int | float) or not -1.0 <= reward <= 1.0:
        raise InputError(f"a reward lies between -1 and 1, not {reward}")
    return float(reward)


def hindrance(cube: Cube, reward: float, start: float = 0.0) -> str:
    """Why a memory gains nothing by a reward; "" where it does, or where it would lose by it.

    Whoever recalls a page also says how well it served: a page must not make itself useful through what it makes an agent say.
    """
    if reward <= cube.use.known(start):
        return ""
    if cube.tainted:
        return "something from outside had a part in it, and such a memory gains nothing"
    return "" if cube.status in RECALLABLE else f"it is {cube.status}, and gains nothing"


def hand_out(connection: Database, key: bytes, cubes: Sequence[Cube], scope: Scope, terms: Terms) -> str:
    """A token for memories of a scope, at least one. It writes nothing."""
    head = newest(connection)[0]
    credit = _CREDITS.index(terms.credit)
    body = _HEAD.pack(secrets.token_bytes(16), head, terms.rate, terms.start, credit, cubes[0].version)
    body += b"".join(dict.fromkeys(id_bytes(cube.id) for cube in cubes))
    return "use-" + b64encode(body + _seal(key, body, scope), b"-_").decode().rstrip("=")


def redeem(
    connection: Database, batch: Batch, key: bytes, token: str, reach: Reach, scope: Scope, reward: float
) -> Rewarded:
    """Let a reward count, once. Raises NotFoundError for a token that is none here, or is for more than may be reached."""
    read = _read(key, token, scope)
    # What lies outside the caller's reach is not the caller's to rate, nor to leave unrated by using the token up.
    home = Reach(Scope(scope.tenant, scope.user))
    rows = [visible(connection, id, home) for id in read.ids] if read is not None else []
    standing = [row for row in rows if row is not None and row.cube.status in RECALLABLE]
    # A token from after the last event is of a store that was put back from a backup since.
    if read is None or read.head > newest(connection)[0] or not all(reach.sees(row.cube) for row in standing):
        raise NotFoundError(f"no recall in {scope.path} has this token")
    first = id_bytes(read.ids[0])
    used = connection.execute(
        "SELECT reason FROM journal WHERE id = ? AND seq > ? AND action = ? AND digest = ?",
        (first, read.head, Action.REWARD, read.digest),
    ).fetchone()
    if used is not None:
        return Rewarded(False, float(used[0]))
    batch.rewarded(scope, Ref(read.ids[0], read.version), reward, read.digest)
    share = reward / len(read.ids) if read.terms.credit == "split" else reward
    moved, unmoved = [], dict.fromkeys(read.ids, "it is no longer recalled")
    for row in standing:
        cube = row.cube
        if hindered := hindrance(cube, share, read.terms.start):
            unmoved[cube.id] = hindered
            continue
        batch.feedback(row, share, read.terms.rate, read.terms.start)
        moved.append(cube.id)
        del unmoved[cube.id]
    return Rewarded(True, reward, tuple(moved), unmoved)


def _read(key: bytes, token: str, scope: Scope) -> _Token | None:
    """What a token says; None where it was not sealed for this scope. Raises InputError for what looks like no token."""
    found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    text = found[1] if found is not None else ""
    if len(text) % 4 == 1 or not text:
        raise InputError(f"this is no token of a recall: {str(token)[:60]!r}")
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    body, seal = raw[:-_SEAL], raw[-_SEAL:]
    if b64encode(raw, b"-_").decode().rstrip("=") != text or not hmac.compare_digest(seal, _seal(key, body, scope)):
        return None
    _, head, rate, start, credit, version = _HEAD.unpack_from(body)
    ids = tuple(id_text(body[at : at + _ID]) for at in range(_HEAD.size, len(body), _ID))
    return _Token(hashlib.sha256(body).digest(), head, Terms(rate, start, _CREDITS[credit]), ids, version)


def _seal(key: bytes, body: bytes, scope: Scope) -> bytes:
    return hmac.digest(key, scope.partition.encode() + b"\0" + body, "sha256")[:_SEAL]
