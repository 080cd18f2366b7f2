"""Where something is from, and what is asked from outside: labels, lineage, rules of release, tensor files, every argument."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fuzz.base import ANA, CUT, ID, NOW, Target, law, parts, refusable
from fuzz.records import MEMORY
from holdfast.cube import Channel, Cube, Origin, Ref, Status
from holdfast.guard.base import ancestry, site, source_of, voter
from holdfast.guard.release import Release, Rule, origins, propose
from holdfast.guard.stance import denies
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where
from holdfast.store.sqlite import SqliteStore


def label(text: str) -> None:
    """Whatever an address says, it names nobody inside, and no path of a site makes another site of it."""
    for channel in (Channel.WEB, Channel.TOOL, Channel.DOCUMENT):
        cube = Cube(ANA, "a", origin=Origin(channel, text[:40] or None, text or None))
        law(
            not any(some.startswith("user:") for some in origins(cube, lambda _: None)),
            "a label is nobody's word",
            cube,
        )
        law(not voter(cube).authorises and not source_of(cube).startswith("user:"), "nor authorises anything", cube)
    page = Cube(ANA, "a", origin=Origin(Channel.WEB, reference=f"https://www.evil.example/{text}"))
    law(
        origins(page, lambda _: None) == {"site:evil.example"},
        "a page is of its site",
        page,
        origins(page, lambda _: None),
    )
    law(site(f"web:https://www.evil.example/{text}") == "web:evil.example", "and one voice with it", text)


def lineage(text: str) -> None:
    """However sources hang together, each is looked at once; what misses one, or is its own, authorises nothing."""
    made: dict[Ref, Cube] = {}
    named = [Ref(f"{ID[:-4]}{number:04x}", 1) for number in range(len(text) + 1)]
    for number, character in enumerate(text):
        code = ord(character)
        sources = {(number - 1 - step) % len(named) for step in range(4) if code >> step & 1}
        channel = (Channel.USER, Channel.WEB)[code >> 4 & 1]
        origin = Origin(channel, f"w{code >> 5 & 3}", derived_from=tuple(named[one] for one in sorted(sources)))
        made[named[number]] = Cube(ANA, "a", origin=origin, id=named[number].id)
    if not made:
        return
    asked: list[Ref] = []

    def lookup(ref: Ref) -> Cube | None:
        asked.append(ref)
        return made.get(ref)

    last = made[named[len(text) - 1]]
    found = list(ancestry(last, lookup))
    law(
        len(asked) <= 4 * len(named) and len({ref for ref, _, _ in found}) == len(found),
        "each is looked at once",
        asked,
    )
    law(found[-1][0] == last.ref, "sources come first", found)
    broken = any(None in sources for _, _, sources in found)
    law(("unknown" in origins(last, lookup)) == broken, "what is missing is said", found)
    outside = any(cube.origin.channel is Channel.WEB for _, cube, _ in found)
    law(not (voter(last, lookup).authorises and (broken or outside)), "and authorises nothing", found)


def released(text: str) -> None:
    """One site, however it words what it says, and however often, lets nothing out of quarantine."""
    found, waiting = proposed(*parts(text, 3))
    law(not found and len(waiting) <= 1, "one site is one voice", found, waiting)
    denies(text)


def proposed(first: str, *others: str) -> tuple[list[Release], dict[str, str]]:
    """What the rule does with some words in quarantine where pages of the same site have said them, and others, in recall."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = SqliteStore(Path(folder) / "s", clock=lambda: NOW, durability="normal")
        try:
            for number, words in enumerate((first, first, *others)):
                origin = Origin(Channel.WEB, "Ana", f"https://h{number}.evil.example/{number}")
                claimed = {"key": words, "value": words} if number == 0 and "key" in words else {}
                status = Status.GENERATED if number else Status.QUARANTINED
                page = Operation.add(
                    Cube(ANA, words, data=claimed, status=status, origin=origin), "quarantined: a page"
                )
                refusable(lambda some=page: store.commit([some]))
            return propose(store, ANA, Rule())
        finally:
            store.close()


def tensors(text: str) -> None:
    """Only a whole file of tensors is taken, whatever its header says."""
    header = text.encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        store = SqliteStore(Path(folder) / "s", durability="normal")
        try:
            for data in (header, len(header).to_bytes(8, "little") + header + bytes(8)):
                name = refusable(lambda some=data: store.blobs.put(some, ANA))
                law(name is None or b"data_offsets" in data, "no other file is taken", data)
        finally:
            store.close()


def asked(text: str) -> None:
    """Every argument of a call may be anything: it is answered or refused, and a principal is told of nothing that is not its own."""
    for call in CALLS.values():
        refusable(lambda some=call: some(_memory(), text))
        told = refusable(lambda some=call: repr(some(_memory().held_by("bot"), text)))
        law(told is None or _SECRET not in told or _SECRET in text, "what is hidden is not told", told)


_SECRET = "zqsecret"

CALLS: dict[str, Callable[[Memory, str], object]] = {
    "search": lambda memory, text: memory.search(text),
    "kind": lambda memory, text: memory.search("ferry", kinds=[text]),
    "agent": lambda memory, text: memory.search("ferry", agent=text),
    "session": lambda memory, text: memory.search("ferry", session=text),
    "user": lambda memory, text: memory.search("ferry", user=text),
    "pack": lambda memory, text: memory.pack(text, budget=200).text,
    "get": lambda memory, text: memory.get(text),
    "author": lambda memory, text: list(memory.select(Where(author=text))),
    "source": lambda memory, text: list(memory.select(Where(source=text))),
    "by": lambda memory, text: list(memory.select(Where(by=text))),
    "kinds": lambda memory, text: list(memory.select(Where(kinds=(text,)))),
    "data": lambda memory, text: list(memory.select(Where(data={text: text}))),
    "history": lambda memory, text: memory.history(text),
    "lineage": lambda memory, text: memory.lineage(text),
    "as of": lambda memory, text: memory.as_of(text).search("ferry"),
    "forget": lambda memory, text: memory.forget(text, author=text, since=text, dry_run=True).preview,
    "revoke": lambda memory, text: memory.revoke(source=text, author=text, dry_run=True).diff,
    "precedents": lambda memory, text: memory.precedents(text, learn=False).to_dict(),
    "key": lambda memory, text: memory.with_key(text),
    "principal": lambda memory, text: memory.held_by(text),
}
"""Calls that change nothing, with a text where a caller may put one."""


@cache
def _memory() -> Memory:
    """A memory with something in it, and a principal who may read one session of it and no more."""
    folder = tempfile.TemporaryDirectory(dir=MEMORY)
    _KEPT.append(folder)
    memory = Memory(
        Path(folder.name) / "m",
        user="ana",
        tenant="acme",
        embedder=None,
        encoders=(),
        background=False,
        durability="normal",
        clock=lambda: NOW,
    )
    memory.add("the ferry leaves at nine", agent="plan", session="s1")
    memory.add(
        f"the ferry leaves at ten {_SECRET}", author=f"Bo {_SECRET}", source=f"https://{_SECRET}.example", agent="work"
    )
    memory.access.enrol("bot")
    memory.access.grant("bot", "acme/ana/plan/s1", ["read", "erase", "judge"])
    return memory


_KEPT: list[tempfile.TemporaryDirectory[str]] = []

_LABELS = (
    "https://",
    "http:",
    "//",
    "evil.example",
    "ana",
    "user:",
    "@",
    "[",
    "]",
    ":",
    ".",
    "/",
    "?",
    "#",
    "%",
    "\t",
    "\ud800",
    "xn--",
    "。",
)
_SAID = (
    "The ferry leaves at nine", ".", " the ", "ferry", CUT, "not ", "key", "“", "\u0315", "\u0300", "ﷺ", "I live in Lisbon", "\ud800", " ",
)  # fmt: skip
_ARGUMENTS = (
    ID,
    _SECRET,
    "ferry",
    "*",
    "-",
    "%",
    "/",
    "acme",
    "ana",
    "\x00",
    "\ud800",
    "2026-01-01",
    "9" * 30,
    "",
    "'",
    '"',
    "plan",
    "hf_",
)

TARGETS = (
    Target("label", label, _LABELS),
    Target("lineage", lineage, ("\x01", "\x03", "\x0f", "\x11", "\x21", "\x43" * 30, "\x02", "\x00")),
    Target("released", released, _SAID),
    Target(
        "tensors",
        tensors,
        ('"data_offsets":[0,8]', "1e999", "NaN", "9" * 30, '"a":', "[", "]", "null", '"', "-1"),
        ("{", ",", "}"),
    ),
    Target("asked", asked, _ARGUMENTS),
)
