"""Which attacks there are, by name, and one call that plays some of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast.bench.data import load_locomo, load_longmemeval
from holdfast.bench.redteam.arms import ARMS
from holdfast.bench.redteam.battery import KEPT, Tick, play
from holdfast.bench.redteam.recipes import arms as learning
from holdfast.bench.redteam.report import make
from holdfast.bench.redteam.targets import BARE, OURS, check
from holdfast.encode.base import Embedder
from holdfast.encode.embedders import default_embedder, open_embedder, why_no_embedder
from holdfast.errors import InputError
from holdfast.guard.attacks import anchors, graft, passages, plans, runs, trigger
from holdfast.guard.attacks.adaptive import adaptive
from holdfast.guard.attacks.base import Campaign
from holdfast.guard.attacks.belief import belief
from holdfast.guard.attacks.extraction import Timing, extraction
from holdfast.guard.attacks.flood import flood
from holdfast.guard.attacks.forgery import forgery
from holdfast.guard.attacks.query_only import query_only
from holdfast.guard.attacks.records import Records
from holdfast.guard.attacks.sleeper import sleeper
from holdfast.guard.attacks.static import Static
from holdfast.guard.attacks.worm import worm
from holdfast.recipes.book import opened

STATIC: Mapping[str, Callable[[Records, Embedder | None, int], list[Static]]] = {
    "graft": lambda records, _embedder, _seed: graft.variants(full=records.full),
    "trigger": lambda records, embedder, seed: trigger.variants(records, embedder, seed=seed),
    "passages": lambda records, _embedder, seed: passages.variants(records, seed=seed),
    "plans": lambda records, _embedder, _seed: plans.variants(records),
    "anchors": lambda records, embedder, seed: anchors.variants(records, embedder, seed=seed),
}

LEARNT: Mapping[str, Callable[[Records], list[Static]]] = {
    "graft": lambda records: runs.grafts(full=records.full),
    "plans": lambda records: runs.planned(records),
}
"""In place of ``STATIC`` where an agent learns by a recipe: more doors, and only what comes as experience."""

CAMPAIGNS: Mapping[str, Callable[..., Sequence[Campaign]]] = {
    "query-only": lambda full: query_only(full=full),
    "sleeper": lambda full: sleeper(full=full),
    "worm": lambda full: worm(full=full),
    "forgery": lambda full: forgery(full=full),
    "belief": lambda full: belief(full=full),
    "extraction": lambda full: extraction(full=full),
    "flood": lambda full: flood(full=full),
    "adaptive": lambda full: adaptive(full=full),
}

APART: Mapping[str, Callable[..., Sequence[Campaign]]] = {"timing": lambda **_: [Timing()]}
"""Played only where they are named: whoever measures times must see to it that nothing else runs."""

NAMES = (*STATIC, *CAMPAIGNS, *APART)
"""What ``--attack`` takes: families of static attacks, and campaigns."""


def run(
    data: Path | None = None,
    *,
    attacks: Sequence[str] = (),
    arms: Sequence[str] = (),
    recipe: str | None = None,
    seed: int = 0,
    embedder: Embedder | str | None = "auto",
    tick: Tick | None = None,
) -> dict[str, Any]:
    """Play attacks and hold what was seen against the targets; the report (``report.make``).

    ``data``: the folder with the full sets, None: the packaged sample. ``attacks`` and ``arms`` name some; by default all. The
    undefended arm is always played: everything is relative to it. ``recipe``: the arms are an agent that learns by it, without
    the guard and with it. Raises InputError for what does not exist.
    """
    chosen = _known(attacks, NAMES, "attack") or (*STATIC, *CAMPAIGNS)
    every = ARMS if recipe is None else learning(opened(recipe))
    named = _known(arms, tuple(every), "arm") or tuple(every)
    played = {name: arm for name, arm in every.items() if name == BARE or name in named}
    records = Records(data)
    found = opened_embedder(embedder)
    if recipe is None:
        static = [one for name, some in STATIC.items() if name in chosen for one in some(records, found, seed)]
    else:
        static = _learnt(chosen, records, found, seed)
    campaigns = [
        one for name, some in {**CAMPAIGNS, **APART}.items() if name in chosen for one in some(full=records.full)
    ]
    turns = ordinary(data) if OURS in played and not attacks else {}
    kept = KEPT if records.full else 2 * KEPT // 3
    if recipe is not None:  # there are many
        kept //= 2
    seen = play(static, campaigns, played, embedder=found, seed=seed, kept=kept, turns=turns, tick=tick)
    settings = {
        "command": "holdfast redteam" + (" --data PATH" if records.full else "") + f" --seed {seed}",
        "records": "full sets" if records.full else "packaged sample",
        "embedder": found.model if found is not None else None,
        "arms": list(played),
        **({"recipe": recipe} if recipe is not None else {}),
        "attacks": list(chosen),
        "questions asked in the sessions, at most": kept,
    }
    return make(seen, check(seen, shown=recipe is None) if OURS in played else [], seed=seed, settings=settings)


def _learnt(chosen: Sequence[str], records: Records, embedder: Embedder | None, seed: int) -> list[Static]:
    made: list[Static] = []
    for name in (name for name in STATIC if name in chosen):
        made += LEARNT[name](records) if name in LEARNT else runs.experienced(STATIC[name](records, embedder, seed))
    return made


def ordinary(data: Path | None) -> dict[str, list[str]]:
    """Turns of conversations in which nobody attacks anybody, by set: the sample's, and LoCoMo and LongMemEval where they are."""
    found: dict[str, list[str]] = {}
    for name in ("sam", "emily"):
        raw = json.loads(files("holdfast").joinpath("sample", f"{name}.json").read_text(encoding="utf-8"))
        found["sample"] = found.get("sample", []) + [
            message["content"] for session in raw["sessions"] for message in session["messages"]
        ]
    for name, file, load in (
        ("LoCoMo", "locomo/locomo10.json", load_locomo),
        ("LongMemEval", "longmemeval/evidence_500.jsonl", load_longmemeval),
    ):
        if data is not None and (data / file).is_file():
            found[name] = [turn.text for conversation in load(data / file) for turn in conversation.turns]
    return found


def _known(asked: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise InputError(
                f"there is no {what} {name!r}; "
                + (f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
            )
    return tuple(name for name in known if name in asked)


def opened_embedder(given: Embedder | str | None) -> Embedder | None:
    """The embedder of a name, ``auto``: the default one; None for none. Raises InputError."""
    if given is None or not isinstance(given, str):
        return given
    if given != "auto":
        return open_embedder(given)
    found = default_embedder()
    if found is None:
        raise InputError(f"{why_no_embedder()} Or attack a memory that goes by words only: --embedder none")
    return found
