"""Rewards that come later: a token goes out with what was recalled, and counts once, whenever and wherever it comes back.

The runtime feedback of MemRL (arXiv 2601.03192, §4.3, Q + rate (reward - Q)). A token lives in the journal: one event for each
memory that it is for, with the digest of its secret, and one when it has been redeemed. So it outlives the process that asked,
two processes that bring it at once are told apart by the write lock, and whoever reads the journal cannot make one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from holdfast.cube import RECALLABLE, Scope
from holdfast.errors import InputError, NotFoundError
from holdfast.store.base import Action
from holdfast.store.batch import Batch
from holdfast.store.grants import Reach
from holdfast.store.rows import id_bytes, id_text, partition_number, visible
from holdfast.store.schema import PARTITION_BITS

Credit = Literal["full", "split"]

_TOKEN = re.compile(r"use-([0-9a-f]{1,15})-([0-9a-f]{32})")


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
        if not 0.0 < self.rate <= 1.0 or not -1.0 <= self.start <= 1.0 or self.credit not in ("full", "split"):
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


def bounded(reward: float) -> float:
    """A reward as a number. Raises InputError for what does not lie in [-1, 1]."""
    if not isinstance(reward, int | float) or not -1.0 <= reward <= 1.0:
        raise InputError(f"a reward lies between -1 and 1, not {reward}")
    return float(reward)


def hand_out(connection: sqlite3.Connection, batch: Batch, ids: Sequence[str], reach: Reach, terms: Terms) -> str:
    """A token for those memories that are within reach; "" where none is. The batch must be a new one."""
    found = [row for row in (visible(connection, id, reach) for id in dict.fromkeys(ids)) if row is not None]
    if not found:
        return ""
    secret = secrets.token_bytes(16)
    for row in found:
        batch.record(
            Action.RECALL,
            row.cube.scope.partition,
            row.rid >> PARTITION_BITS,
            id_bytes(row.cube.id),
            row.cube.version,
            json.dumps(asdict(terms)),
            hashlib.sha256(secret).digest(),
        )
    return f"use-{batch.txn:x}-{secret.hex()}"


def redeem(
    connection: sqlite3.Connection, batch: Batch, token: str, scope: Scope, reach: Reach, reward: float
) -> Rewarded:
    """Let a reward count, once. Raises NotFoundError for a token that is none here, or is for more than may be reached."""
    read = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if read is None:
        raise InputError(f"this is no token of a recall: {str(token)[:60]!r}")
    txn, digest = int(read[1], 16), hashlib.sha256(bytes.fromhex(read[2])).digest()
    handed = _handed(connection, txn, digest, partition_number(connection, scope.partition))
    # What lies outside the caller's reach is not the caller's to rate, nor to leave unrated by using the token up.
    home = Reach(Scope(scope.tenant, scope.user))
    rows = [visible(connection, id_text(id), home) for id, _, _ in handed]
    standing = [row for row in rows if row is not None and row.cube.status in RECALLABLE]
    if not handed or not all(reach.sees(row.cube) for row in standing):
        raise NotFoundError(f"no recall in {scope.path} has this token")
    first, version, terms = handed[0]
    used = connection.execute(
        "SELECT reason FROM journal WHERE id = ? AND seq > ? AND action = ? AND digest = ?",
        (first, txn, Action.REWARD, digest),
    ).fetchone()
    if used is not None:
        return Rewarded(False, float(used[0]))
    part = partition_number(connection, scope.partition)
    assert part is not None
    batch.record(Action.REWARD, scope.partition, part, first, version, repr(reward), digest)
    share = reward / len(handed) if terms.credit == "split" else reward
    moved, unmoved = [], {id_text(id): "it is no longer recalled" for id, _, _ in handed}
    for row in standing:
        cube = row.cube
        if cube.tainted and share > cube.use.known(terms.start):
            unmoved[cube.id] = "something from outside had a part in it, and such a memory gains nothing"
            continue
        batch.feedback(row, share, terms.rate, terms.start)
        moved.append(cube.id)
        del unmoved[cube.id]
    return Rewarded(True, reward, tuple(moved), unmoved)


def _handed(
    connection: sqlite3.Connection, txn: int, digest: bytes, part: int | None
) -> list[tuple[bytes, int, Terms]]:
    """The memories that a token is for: (id, version, terms). Events of one transaction follow each other."""
    found = []
    for at, of, action, given, id, version, reason in connection.execute(
        "SELECT txn, part, action, digest, id, version, reason FROM journal WHERE seq >= ? ORDER BY seq", (txn,)
    ):
        if at != txn or of != part or action != Action.RECALL or not hmac.compare_digest(given, digest):
            break
        found.append((id, version, Terms(**json.loads(reason))))
    return found
