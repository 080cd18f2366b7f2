"""Bringing in what other systems remember: ``bring`` reads an archive of theirs into a memory, and says what stayed out and why.

Everything keeps where it is from, who said it and when that was known there. What a person said is told apart from what a model
said or wrote down. Nothing in an archive is run, followed or unpacked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import cast

from holdfast.cube import Cube, Scope, Status
from holdfast.errors import ConflictError, InputError, NotFoundError
from holdfast.importers.archive import Archive
from holdfast.importers.base import Format, Found, Left, Maker
from holdfast.memory import Memory
from holdfast.store.base import Operation
from holdfast.store.transfer import bring_in

__all__ = ["EVERYBODY", "FORMATS", "Archive", "Brought", "Progress", "Survey", "bring", "guess", "keep", "survey"]

FORMATS = ("chatgpt", "claude", "letta", "mem0", "langgraph", "mcp", "zep")
"""The names of the formats, in the order in which they are guessed."""

EVERYBODY = "*"
_BATCH = 256
_TOLD = 200  # remarks that are kept in full
_OWNERS = 1_000


@dataclass(frozen=True, slots=True)
class Survey:
    """What an archive holds. ``format``: its name, ``guessed`` where nobody named it.

    ``memories``: how many would come, and by kind in ``kinds``; ``owners``: whose they are there, where it says so.
    ``left_out``: what stays out, by reason, with how many there are and the first of them; ``remarks``: what would come,
    and not as it was.
    """

    format: str
    title: str
    guessed: bool
    memories: int
    kinds: Mapping[str, int]
    owners: Mapping[str, int]
    left_out: Mapping[str, tuple[int, str]]
    remarks: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Brought:
    """What came in: how many are new (of them in quarantine), were there already, have other words now; a note for a surprise."""

    survey: Survey
    added: int = 0
    duplicates: int = 0
    changed: int = 0
    quarantined: int = 0
    notes: tuple[str, ...] = ()


Progress = Callable[[str, int, int | None], None]
"""Told what is being done ("reading", "importing"), how many more are done, and of how many, where that is known."""


def bring(
    memory: Memory,
    path: str | Path,
    *,
    format: str | None = None,
    whose: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    **scope: str | None,
) -> Brought:
    """Read an archive of another system into a memory; what is there already is left as it is, so that it can be run again.

    ``format``: one of FORMATS, guessed where it is left out. ``whose``: of an archive with the memories of several, whose to
    take ("*": everybody's, which become this user's). ``dry_run``: count, and keep nothing. Raises InputError where the archive
    cannot be read, is of no known format, holds nothing that can be kept, or holds the memories of several and nobody is named;
    nothing is kept then.
    """
    here = memory.scope(**scope)
    with_tick = progress or _silent
    archive = Archive(path)
    try:
        found = survey(archive, here, format=format, whose=whose, progress=with_tick)
        if dry_run or not found.memories:
            return Brought(found)
        return keep(memory, archive, here, found, whose=whose, progress=with_tick)
    finally:
        archive.close()


def guess(archive: Archive) -> str | None:
    """The name of the format that an archive looks like; None where it looks like none. Raises InputError."""
    return next((name for name in FORMATS if _reader(name).fits(archive)), None)


def survey(
    archive: Archive,
    scope: Scope,
    *,
    format: str | None = None,
    whose: str | None = None,
    progress: Progress | None = None,
) -> Survey:
    """What an archive holds, read to its end; nothing is kept. Raises InputError as ``bring`` does."""
    name = format or guess(archive)
    if name is None:
        raise InputError(f"{archive.name} looks like no archive that is known; say which it is: {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    kinds: dict[str, int] = {}
    owners: dict[str, int] = {}
    left: dict[str, tuple[int, str]] = {}
    remarks: dict[str, tuple[int, str]] = {}
    understood = False
    for item, why in archive.left_out:
        _count(left, why, item)
    for one in _reader(name).read(archive, _maker(archive, name, scope)):
        if progress is not None:
            progress("reading", 1, None)
        if isinstance(one, Left):
            _count(remarks if one.kept else left, one.why, one.item)
            understood = understood or not one.unread
            continue
        owner = one.owner or ""
        if owner in owners or len(owners) < _OWNERS:
            owners[owner] = owners.get(owner, 0) + 1
        if _is_for(one, whose):
            kinds[str(one.cube.kind)] = kinds.get(str(one.cube.kind), 0) + 1
        else:
            _count(left, "it is somebody else's", one.cube.data["item"])
    named = {owner: count for owner, count in owners.items() if owner}
    if whose is None and len(named) > 1:
        some = ", ".join(islice(named, 8)) + (", ..." if len(named) > 8 else "")
        raise InputError(
            f"{archive.name} holds the memories of {len(named)} users or places ({some}); name whose to take, "
            f"or {EVERYBODY!r} to make all of them {scope.user}'s"
        )
    if whose not in (None, EVERYBODY) and not kinds:
        raise InputError(
            f"{archive.name} holds nothing of {whose!r}, only of: {', '.join(islice(named, 8)) or 'nobody named'}"
        )
    count = sum(kinds.values())
    if not count and not understood:
        why = next((f"{item}: {why}" for why, (_, item) in left.items()), "it is empty")
        raise InputError(f"{archive.name} holds nothing that can be kept as {_reader(name).TITLE}: {why}")
    frozen = MappingProxyType
    return Survey(
        name, _reader(name).TITLE, format is None, count, frozen(kinds), frozen(named), frozen(left), frozen(remarks)
    )


@dataclass(slots=True)
class _Tally:
    added: int = 0
    duplicates: int = 0
    changed: int = 0
    quarantined: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, *notes: str) -> None:
        """Keep the first ones: an archive may surprise a million times."""
        for one in notes:
            if len(self.notes) < _TOLD:
                self.notes.append(one)
            elif len(self.notes) == _TOLD:
                self.notes.append("and more of the like")


def keep(
    memory: Memory,
    archive: Archive,
    scope: Scope,
    found: Survey,
    *,
    whose: str | None = None,
    progress: Progress | None = None,
) -> Brought:
    """Keep what a survey found in an archive, which is read once more for it."""
    progress = progress or _silent
    tally, home = _Tally(), Scope(scope.tenant, scope.user)
    actor = f"import:{scope.path}"
    founds = _founds(archive, found.format, scope, whose)
    while some := list(islice(founds, _BATCH)):
        # Of several versions the first may be held no more as the archive has it; what is held goes on from where it stands.
        begun = {one.cube.id for one in some if one.then and _held(memory, one.cube) is not None}
        fresh = [one.cube for one in some if one.cube.id not in begun]
        done = bring_in(memory.door, fresh, actor=actor, batch=_BATCH)
        tally.added += len(done.ids)
        tally.duplicates += done.duplicates + len(begun)
        tally.changed += len(done.edited)
        tally.note(*done.notes)
        for id in done.ids:
            tally.quarantined += memory.store.get(id, home).status is Status.QUARANTINED
        for one in some:
            if one.then:
                _follow(memory, one, actor, tally)
        progress("importing", len(some), found.memories)
    memory.apply((), actor=actor)  # wakes whoever embeds and enriches
    return Brought(found, tally.added, tally.duplicates, tally.changed, tally.quarantined, tuple(tally.notes))


def _follow(memory: Memory, one: Found, actor: str, tally: _Tally) -> None:
    """Give a memory the later versions that it has in the archive, from where it stands; what was changed here stays as it is."""
    held = _held(memory, one.cube)
    line = (one.cube, *one.then)
    if held is None or held.version > len(line):
        return
    if held.text != line[held.version - 1].text:
        tally.note(f"{held.id} was changed here; what changed it in the archive was not taken")
        return
    for cube in line[held.version :]:
        status = cube.status if cube.status is Status.ARCHIVED else held.status
        if (held.text, held.valid_to, held.status) == (cube.text, cube.valid_to, status):
            continue
        new = held.with_(
            text=cube.text, valid_to=cube.valid_to, recorded_at=cube.recorded_at or held.recorded_at, status=status
        )
        try:
            (held,) = memory.door.commit([Operation.update(new, "as the archive has it")], actor=actor).cubes
        except (ConflictError, ValueError) as error:
            tally.note(f"{held.id}: a later version was not taken: {error}")
            return


def _held(memory: Memory, cube: Cube) -> Cube | None:
    try:
        return memory.store.get(cube.id, Scope(cube.scope.tenant, cube.scope.user))
    except NotFoundError:
        return None


def _founds(archive: Archive, name: str, scope: Scope, whose: str | None) -> Iterator[Found]:
    for one in _reader(name).read(archive, _maker(archive, name, scope)):
        if isinstance(one, Found) and _is_for(one, whose):
            yield one


def _is_for(one: Found, whose: str | None) -> bool:
    """Whether it is whose memories are wanted: the name itself, or the places under it."""
    if whose in (None, EVERYBODY):
        return True
    return one.owner is not None and (one.owner == whose or one.owner.startswith(f"{whose}."))


def _maker(archive: Archive, name: str, scope: Scope) -> Maker:
    return Maker(name, f"{name}:{archive.name}", scope)


def _reader(name: str) -> Format:
    return cast(Format, importlib.import_module(f"holdfast.importers.{name}"))


def _count(found: dict[str, tuple[int, str]], why: str, item: str) -> None:
    if why not in found and len(found) >= _TOLD:
        why = "and for more reasons"
    count, first = found.get(why, (0, item))
    found[why] = (count + 1, first)


def _silent(what: str, done: int, total: int | None) -> None:
    """Nobody looks."""
