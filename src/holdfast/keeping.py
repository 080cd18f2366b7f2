"""What a model has in mind, kept as a cube: any file of tensors, derived from the memories that went into it.

The state of a session's memory layers, a bank of documents, a cache: whatever ``latent`` packs. It is a cube of the form ``state``,
so that who may read it is who may read all of its sources, a new version of a source makes it stale, and ``forget`` takes it along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.cube import RECALLABLE, Channel, Cube, Form, Origin, Policy, Ref, Scope
from holdfast.errors import InputError, NotFoundError, StaleError
from holdfast.store.base import Operation, Where
from holdfast.store.sql import SqlStore

Apply = Callable[[Sequence[Operation]], tuple[Cube, ...]]


def keep(store: SqlStore, apply: Apply, scope: Scope, data: bytes, sources: Iterable[str], kind: str) -> Cube:
    """A cube for a file, in the narrowest scope that holds its sources; without sources in ``scope``.

    Raises InputError for what is no safetensors file, NotFoundError for a source that is not to be recalled.
    """
    cube = made(store, [recallable(store, scope, id) for id in sources], scope, data, kind, {})
    stored = apply([Operation.add(cube)])
    if not stored:  # the same was kept before
        stored = tuple(one for one in store.select(cube.scope, Where(kinds=(kind,))) if one.blob == cube.blob)
    return stored[0]


def made(
    store: SqlStore,
    sources: Sequence[Cube],
    scope: Scope,
    data: bytes,
    kind: str,
    told: Mapping[str, Any],
    form: Form = Form.STATE,
) -> Cube:
    """A cube for a file, which is put into the store; the cube is to be added. ``told``: what stands beside it. Raises InputError.

    It lies in the narrowest scope that holds its sources, or in ``scope``, and expires with the first of them.
    """
    home = common([cube.scope for cube in sources]) if sources else scope
    ends = [cube.policy.expires_at for cube in sources if cube.policy.expires_at is not None]
    return Cube(
        home,
        kind=kind,
        form=form,
        blob=store.blobs.put(data, home),
        data={**told, "bytes": len(data)},
        origin=Origin(Channel.DERIVED, reference="holdfast:keep", derived_from=tuple(cube.ref for cube in sources)),
        policy=Policy(expires_at=min(ends, default=None)),
    )


def kept(store: SqlStore, scope: Scope, id: str) -> bytes:
    """The file of such a cube. Raises NotFoundError, StaleError where a source of it no longer holds, IntegrityError."""
    cube = store.get(id, scope)
    if cube.form is not Form.STATE:
        raise InputError(f"{id} is no state but a {cube.form}: read it with get")
    if any(one.stale for one in store.owner.blobs.held({id}) if one.ref == cube.ref):
        raise StaleError(f"what went into {id} has changed, or is not to be recalled any more: make it anew")
    return store.blobs.read(cube)


def recallable(store: SqlStore, scope: Scope, id: str) -> Cube:
    """A memory that may be read now. Raises NotFoundError for one that is archived, quarantined, expired or another's."""
    cube = store.get(id, scope)
    ends = cube.policy.expires_at
    if cube.status not in RECALLABLE or (ends is not None and ends <= store.now()):
        raise NotFoundError(f"no memory {id} is to be recalled in {scope.path}")
    return cube


def standing(store: SqlStore, scope: Scope, ref: Ref) -> Cube | None:
    """A memory where it may be read now in this very version; None elsewhere."""
    try:
        cube = recallable(store, scope, ref.id)
    except NotFoundError:
        return None
    return cube if cube.ref == ref else None


def common(scopes: Sequence[Scope]) -> Scope:
    """The narrowest scope that holds some of one user."""
    first = scopes[0]
    agent = first.agent if all(scope.agent == first.agent for scope in scopes) else None
    session = (
        first.session if agent == first.agent and all(scope.session == first.session for scope in scopes) else None
    )
    return Scope(first.tenant, first.user, agent, session)
