"""Who may do what: principals, their grants and keys, kept in the store and asked at every access.

Whoever has the files owns the store and may do everything. Whoever comes in through a program with a key (an agent, a
service, a person behind a server) is a *principal*, and gets a ``HeldStore``: the same store behind another ``Gate``. Principals,
grants and keys are cubes in a tenant of their own, so the journal tells who gave whom which right, as it tells everything else.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import unquote

from holdfast.cube import RECALLABLE, Channel, Cube, Origin, Policy, Scope, Use
from holdfast.errors import AccessError, ConflictError, InputError, NotFoundError, ScopeError
from holdfast.store.base import Operation, Where
from holdfast.store.grants import ANY, PLACE, Gate, Grant, Reach, Right
from holdfast.store.sql import SqlStore

PRINCIPAL, GRANT, KEY = "principal", "grant", "key"
"""The kinds of what lies in ``PLACE``."""

OWNER = "owner"
"""How the journal calls whoever has the files, where it speaks of who may do what."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_PREFIX = "hf_"
_OURS = "holdfast:"  # canary questions are found by such a source
_ORDINARY = frozenset(Channel) - {Channel.SYSTEM, Channel.IMPORT}
"""What a principal for whom no channels are named may bring something in by: not in the system's name, nor as an import."""

_STANDING = tuple(sorted(RECALLABLE))


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who is not the owner.

    ``channels`` are the doors that it may bring something in by, and ``authors`` whose words that may be; empty: any. Nothing
    that it brings is trusted more than ``trust``.
    """

    id: str
    name: str
    channels: frozenset[Channel] = frozenset()
    authors: frozenset[str] = frozenset()
    trust: float = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: never the key itself. ``tail``: its last characters."""

    id: str
    principal: str
    tail: str
    issued: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class _Book:
    """What stands in ``PLACE`` as of an event; cubes by their name, and keys by their source."""

    seq: int
    principals: Mapping[str, Cube]
    grants: Mapping[str, tuple[Cube, ...]]
    keys: Mapping[str, Cube]


class Access:
    """The principals, grants and keys of a store; for its owner. Every change takes effect with the next call, anywhere."""

    def __init__(self, store: SqlStore) -> None:
        if isinstance(store, HeldStore):
            raise AccessError(f"{store.holder} may not see or change who may do what; only the store's owner may")
        self._store = store
        self._book = _Book(-1, {}, {}, {})

    @property
    def store(self) -> SqlStore:
        """Whose they are."""
        return self._store

    # --- giving ---

    def enrol(
        self,
        name: str,
        *,
        channels: Iterable[Channel | str] = (),
        authors: Iterable[str] = (),
        trust: float = 1.0,
        actor: str = OWNER,
    ) -> Principal:
        """Make somebody known; it may do nothing yet. Raises ConflictError for a name that is taken."""
        if not _NAME.fullmatch(name):
            raise InputError(f"a principal's name has letters, digits and . _ @ - only, at most 128: not {name!r}")
        if name == OWNER:
            raise InputError(f"{OWNER!r} is how the journal calls whoever has the store's files; choose another name")
        if not 0.0 <= trust <= 1.0:
            raise InputError(f"trust must lie between 0 and 1, not {trust!r}")
        try:
            doors = sorted({Channel(channel) for channel in channels})
        except ValueError as error:
            raise InputError(f"{error}; the channels are {', '.join(Channel)}") from error
        data = {
            "name": name,
            "channels": [str(door) for door in doors],
            "authors": sorted(set(authors)),
            "trust": trust,
        }
        kept = self._keep(PRINCIPAL, f"principal {name}", data, None, actor)
        if kept is None:
            raise ConflictError(f"there is a principal {name} already; withdraw it first to change what it is")
        return _principal(kept)

    def grant(
        self,
        name: str,
        place: str,
        rights: Iterable[Right | str],
        *,
        kinds: Iterable[str] = (),
        until: datetime | None = None,
        actor: str = OWNER,
    ) -> Grant:
        """Give rights on a place: ``tenant/user[/agent[/session]]``, each part a name or ``*``. Raises NotFoundError."""
        self._principal(name)
        try:
            given = sorted({Right(right) for right in rights})
        except ValueError as error:
            raise InputError(f"{error}; the rights are {', '.join(Right)}") from error
        if not given:
            raise InputError(f"a grant needs rights: {', '.join(Right)}")
        tenant, user, agent, session = place_of(place)
        some = sorted({str(kind) for kind in kinds})
        data = {
            "name": name,
            "place": [tenant, user, agent, session],
            "rights": [str(right) for right in given],
            "kinds": some,
        }
        limit = f" ({', '.join(some)})" if some else ""
        text = f"{name} may {', '.join(given)} in {place}{limit}"
        kept = self._keep(GRANT, text, data, until, actor)
        if kept is None:
            raise ConflictError(f"that is granted already: {text}")
        return _grant(kept)

    def issue(self, name: str, *, until: datetime | None = None, actor: str = OWNER) -> str:
        """A new key of a principal. It is told this once: the store keeps its hash. Raises NotFoundError."""
        self._principal(name)
        key = _PREFIX + secrets.token_urlsafe(32)
        text = f"key of {name} that ends in {key[-4:]}, {_digest(key)[:16]}"
        self._keep(KEY, text, {"name": name, "tail": key[-4:]}, until, actor, source=_source(key))
        return key

    # --- taking back ---

    def withdraw(self, what: str, *, reason: str = "", actor: str = OWNER) -> tuple[str, ...]:
        """Withdraw a principal by its name, with all it has, or a grant or key by its id; the ids. Raises NotFoundError."""
        book = self._read()
        given = [*(cube for some in book.grants.values() for cube in some), *book.keys.values()]
        doomed = [cube for cube in (*book.principals.values(), *given) if what == cube.id]
        doomed = doomed or [cube for name, cube in book.principals.items() if what == name]
        if not doomed:
            raise NotFoundError(f"there is no principal, grant or key {what!r}; see: holdfast access list")
        names = {cube.data["name"] for cube in doomed if cube.kind == PRINCIPAL}
        doomed += [cube for cube in given if cube.data["name"] in names]
        self._store.commit([Operation.delete(cube, reason or "withdrawn") for cube in doomed], actor=actor)
        return tuple(cube.id for cube in doomed)

    # --- looking ---

    def principals(self) -> list[Principal]:
        """Everybody who is known."""
        return [_principal(cube) for cube in self._read().principals.values()]

    def grants(self, name: str | None = None) -> list[Grant]:
        """The grants in force, of one principal or of all."""
        given = self._read().grants
        some = given.get(name, ()) if name is not None else (cube for cubes in given.values() for cube in cubes)
        return [_grant(cube) for cube in some if self._lasts(cube)]

    def keys(self, name: str | None = None) -> list[Key]:
        """The keys in force, of one principal or of all."""
        return [
            Key(cube.id, cube.data["name"], cube.data["tail"], cube.recorded_at, cube.policy.expires_at)
            for cube in self._read().keys.values()
            if name in (None, cube.data["name"]) and self._lasts(cube)
        ]

    # --- coming in ---

    def open(self, key: str) -> HeldStore:
        """The store as the holder of a key sees it. Raises AccessError for a key that is not, or no longer, in force."""
        found = self._key(key)
        if found is None:
            raise AccessError("this key opens nothing here: it was never issued, was withdrawn, or has expired")
        return HeldStore(self._store, _Holder(self, found.data["name"], key))

    def held_by(self, name: str) -> HeldStore:
        """The store as a principal sees it, for a program that knows by other means who calls. Raises NotFoundError."""
        self._principal(name)
        return HeldStore(self._store, _Holder(self, name, None))

    # --- inside ---

    def _keep(
        self, kind: str, text: str, data: dict[str, Any], until: datetime | None, actor: str, source: str | None = None
    ) -> Cube | None:
        """The cube as kept; None where the same is kept already."""
        origin = Origin(Channel.SYSTEM, author=actor or None, reference=source)
        cube = Cube(PLACE, text, kind=kind, data=data, origin=origin, policy=Policy(expires_at=until))
        kept = self._store.commit([Operation.add(cube)], actor=actor).cubes
        return kept[0] if kept else None

    def _read(self) -> _Book:
        """The book, opened anew where the journal says that it has changed."""
        seq = self._store.newest(PLACE)
        if seq == self._book.seq:
            return self._book
        grants: dict[str, list[Cube]] = {}
        principals, keys = {}, {}
        for cube in self._store.select(PLACE, Where(kinds=(PRINCIPAL, GRANT, KEY), statuses=_STANDING)):
            if cube.kind == PRINCIPAL:
                principals[cube.data["name"]] = cube
            elif cube.kind == GRANT:
                grants.setdefault(cube.data["name"], []).append(cube)
            else:
                keys[str(cube.origin.reference)] = cube
        self._book = _Book(seq, principals, {name: tuple(some) for name, some in grants.items()}, keys)
        return self._book

    def _lasts(self, cube: Cube) -> bool:
        return cube.policy.expires_at is None or self._store.now() < cube.policy.expires_at

    def _key(self, key: str) -> Cube | None:
        found = self._read().keys.get(_source(key))
        return found if found is not None and self._lasts(found) else None

    def _principal(self, name: str) -> Principal:
        found = self._read().principals.get(name)
        if found is None:
            raise NotFoundError(f"there is no principal {name!r}; make it known with: holdfast access add {name}")
        return _principal(found)

    def standing(self, name: str, key: str | None) -> tuple[Principal, list[Grant]]:
        """A principal and its grants as they are now. Raises AccessError where it, or the key it came with, was withdrawn."""
        found = self._read().principals.get(name)
        if found is None or (key is not None and self._key(key) is None):
            raise AccessError(f"{name} was withdrawn, or its key was or has expired; ask the store's owner")
        return _principal(found), self.grants(name)


class _Holder(Gate):
    """What a principal may do, asked anew whenever the journal of ``PLACE`` has moved."""

    def __init__(self, access: Access, name: str, key: str | None) -> None:
        self.name = name
        self._access = access
        self._key = key

    def reach(self, scope: Scope, right: Right = Right.READ) -> Reach:
        grants = tuple(grant for grant in self._access.standing(self.name, self._key)[1] if grant.meets(scope))
        having = [grant for grant in grants if right in grant.rights]
        if not having:
            raise AccessError(
                f"{self.name} may not {right} in {scope.path}; the store's owner can allow it with: "
                f"holdfast access grant {self.name} {scope.partition} --right {right}"
            )
        agent, session = scope.agent, scope.session
        if agent is None and len({grant.agent for grant in having}) == 1:
            agent = having[0].agent
        if session is None and len({grant.session for grant in having}) == 1:
            session = having[0].session
        return Reach(Scope(scope.tenant, scope.user, agent, session), right, grants, self.name)

    def incoming(self, cube: Cube) -> Cube:
        principal, _ = self._access.standing(self.name, self._key)
        if not self.reach(cube.scope, Right.WRITE).allows(cube):
            raise AccessError(f"{self.name} may not write a memory of kind {cube.kind} in {cube.scope.path}")
        origin = cube.origin
        doors = principal.channels or _ORDINARY
        if origin.channel not in doors:
            named = ", ".join(sorted(doors))
            raise AccessError(f"{self.name} may not bring anything in as {origin.channel}, only as: {named}")
        if (origin.reference or "").startswith(_OURS):
            raise AccessError(f"{self.name} may not name a source of Holdfast's own ({_OURS}...)")
        if principal.authors and origin.author not in principal.authors:
            whose = ", ".join(sorted(principal.authors))
            raise AccessError(f"{self.name} may not write in the name of {origin.author}, only of: {whose}")
        # When it was learnt and how it served is for the store to say, not for whoever comes in by a key.
        return replace(
            cube, recorded_at=None, use=Use(), origin=replace(origin, trust=min(origin.trust, principal.trust))
        )


class HeldStore(SqlStore):
    """A store as a principal sees it. It shares everything with the owner's, and is closed with it."""

    def __init__(self, owner: SqlStore, gate: Gate) -> None:
        self.__dict__.update(owner.__dict__)
        self._gate = gate
        self._owner = owner

    @property
    def holder(self) -> str:
        """The principal's name."""
        return self._gate.name

    @property
    def owner(self) -> SqlStore:
        """The same store as its owner sees it."""
        return self._owner

    def head(self) -> tuple[int, str]:
        """As the owner's store says it: how a store with many journals is hashed is its own affair."""
        return self._owner.head()

    def close(self) -> None:
        """Nothing: the owner's store is closed by whoever opened it."""


OWNERS = (
    "activate add_model bodies changes compact counts fold fold_log fold_rows headers leftovers meta partitions rebuild "
    "scrub serve set_meta tainted traces verify"
).split()
"""What touches the memories of everybody, or the store as a whole: a principal is refused each of these."""


def _refused(name: str) -> Callable[..., NoReturn]:
    def refuse(self: HeldStore, *_: Any, **__: Any) -> NoReturn:
        raise AccessError(
            f"{self.holder} may not do this ({name}): it concerns the whole store, and only its owner may"
        )

    refuse.__doc__ = "Refused: only the owner of a store may."
    return refuse


for _name in OWNERS:
    setattr(HeldStore, _name, _refused(_name))


# --- as cubes ---


def _digest(key: str) -> str:
    """Of 256 random bits a plain hash is enough: nobody can try them all, so there is nothing to slow down."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _source(key: str) -> str:
    return f"key:{_digest(key)}"


def place_of(place: str) -> tuple[str, str, str | None, str | None]:
    """Tenant, user, agent and session of a place as it is written: parts are escaped as in a scope's path. Raises InputError.

    A bare ``-``, which in a scope's path stands for no agent or session in particular, is any; an agent that is called so is %2D.
    """
    written = place.split("/")
    named = [None if part in (ANY, "-") else unquote(part) for part in written]
    whole = [*named, None, None][:4]
    try:  # the names are held to what those of a scope are
        Scope(*("any" if part is None else part for part in whole))
    except ScopeError as error:
        raise InputError(f"{place!r} is no place: {error}") from error
    if not 2 <= len(written) <= 4 or "-" in written[:2] or ANY in named:
        raise InputError(f"{place!r} is no place; write tenant/user[/agent[/session]], * for any")
    if named[0] == PLACE.tenant:
        raise InputError(f"nobody but the owner has a part in {PLACE.tenant}")
    tenant, user, agent, session = whole
    return tenant or ANY, user or ANY, agent, session


def _principal(cube: Cube) -> Principal:
    data = cube.data
    return Principal(
        cube.id,
        data["name"],
        frozenset(map(Channel, data["channels"])),
        frozenset(data["authors"]),
        data["trust"],
    )


def _grant(cube: Cube) -> Grant:
    data = cube.data
    tenant, user, agent, session = data["place"]
    rights, kinds = frozenset(map(Right, data["rights"])), frozenset(data["kinds"])
    return Grant(cube.id, data["name"], tenant, user, agent, session, rights, kinds)
