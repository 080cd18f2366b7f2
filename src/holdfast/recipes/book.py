"""The recipes that have a name.

``TWELVE`` are the systems that EvolveLab compares (arXiv 2512.18746, table 1), as it implements them, with its settings, and
``CEREBRA`` is one that was evolved from them; docs/recipes/ says of each where ours differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.cube import Kind
from holdfast.encode.digests import Digests
from holdfast.encode.functions import Functions
from holdfast.encode.insights import Insights
from holdfast.encode.managed import Drawn, Managed, Prompted, Steps, Thresholds
from holdfast.encode.nodes import Nodes
from holdfast.encode.patterns import Patterns
from holdfast.encode.plans import Plans
from holdfast.encode.principles import Principles
from holdfast.encode.records import Unit
from holdfast.encode.revision import Revision
from holdfast.encode.scripts import Scripts
from holdfast.encode.shortcuts import Shortcuts
from holdfast.encode.tips import Tips
from holdfast.encode.trials import Trials
from holdfast.encode.workflows import Workflows
from holdfast.errors import InputError
from holdfast.manage.merging import Merging
from holdfast.manage.pruning import Pruning
from holdfast.recipes.advising import Advising
from holdfast.recipes.base import Find, Phase, Recipe
from holdfast.recipes.cheatsheet import cheatsheet
from holdfast.recipes.concepts import arcmemo, arcmemo_lessons
from holdfast.recipes.condensing import Condensing
from holdfast.recipes.curation import Curation
from holdfast.recipes.genotype import from_dict, read
from holdfast.recipes.memskill import memskill
from holdfast.recipes.tutoring import Tutoring
from holdfast.retrieve.distilled import Distilled
from holdfast.retrieve.expansion import Expanded
from holdfast.retrieve.judged import Judged
from holdfast.retrieve.keywords import Keywords
from holdfast.retrieve.likeness import Meaning, Mixed, Overlap, Words
from holdfast.retrieve.rewriting import Rewritten
from holdfast.retrieve.solved import Solved

BOTH = (Phase.BEGIN, Phase.STEP)

CASES = Recipe(
    "cases",
    "what was done in the most similar case, as it was; asks no model",
    finds=(Find((Kind.EXPERIENCE,), Meaning(), k=1),),
)

VOYAGER = Recipe(
    "voyager",
    "a digest of each run that succeeded, found by a description of its task (arXiv 2305.16291)",
    (Digests(described=True, successes=True),),
    (Find((Unit.DIGEST,), Meaning(), k=1, makers=("digests",)),),
)

EXPEL = Recipe(
    "expel",
    "insights by their words, and runs that succeeded as examples by words and meaning (arXiv 2308.10144)",
    (Insights(least=3, most=6, kept=4),),
    (
        Find((Unit.INSIGHT,), Words(), k=3, least=0.0),
        Find((Kind.EXPERIENCE,), Solved(Mixed(0.3)), k=3),
    ),
)

GENERATIVE = Recipe(
    "generative",
    "of the three most similar digests the one that a model finds most useful (arXiv 2304.03442)",
    (Digests(words=150),),
    (Find((Unit.DIGEST,), Judged(shown=3), k=1, makers=("digests",)),),
)

DILU = Recipe(
    "dilu",
    "the digest of the most similar run as an example (arXiv 2309.16292)",
    (Digests(words=150),),
    (Find((Unit.DIGEST,), Meaning(), k=1, makers=("digests",)),),
)

AWM = Recipe(
    "awm",
    "the workflow of a like run that succeeded, with variables for its values (arXiv 2409.07429)",
    (Workflows(words=200),),
    (Find((Unit.WORKFLOW,), Meaning(), k=1),),
)

MOBILE_E = Recipe(
    "mobile-e",
    "tips and shortcuts that share words with the task, and at each step with what happened (arXiv 2501.11733)",
    (Tips(least=3, most=5), Shortcuts()),
    (
        Find((Unit.TIP,), Overlap(), k=2, least=0.0, phases=BOTH),
        Find((Unit.SHORTCUT,), Overlap(), k=2, least=0.0, phases=BOTH),
    ),
)

DYNAMIC_CHEATSHEET = Recipe(
    "dynamic-cheatsheet",
    "one sheet that a model writes anew for each task, from itself and the most similar digest (arXiv 2504.07952)",
    (Digests(words=400),),
    (
        Find((Unit.DIGEST,), Meaning(), k=1, makers=("digests",), own=True),
        Find((Unit.SHEET,), Meaning(), k=1, makers=("curation",), own=True),
    ),
    Curation(words=200),
)

SKILLWEAVER = Recipe(
    "skillweaver",
    "Python functions by their name, use and documentation, to be run in the sandbox alone (arXiv 2504.07079)",
    (Functions(), Trials((Kind.SKILL,))),
    (Find((Kind.SKILL,), Keywords(), k=3, least=0.0, makers=("functions",)),),
    managers=(Pruning((Kind.SKILL,), below=0.2, uses=3),),
)

G_MEMORY = Recipe(
    "g-memory",
    "like tasks, those tied to them, and the insights drawn from these, with the runs condensed (arXiv 2506.07398)",
    (Nodes(), Insights(tied=True), Trials((Unit.INSIGHT,))),
    (
        Find(
            (Unit.DIGEST, Unit.INSIGHT),
            Expanded(seeds=2, up=(Unit.INSIGHT,), hops=1),
            k=8,
            makers=("nodes", "insights"),
        ),
    ),
    Condensing((Unit.DIGEST,)),
    (Merging((Unit.INSIGHT,), alike=0.8),),
    every=20,
)

AGENT_KB = Recipe(
    "agent-kb",
    "plans of like runs, told by a student before and by a teacher at each step (arXiv 2507.06229)",
    (Plans(),),
    (Find((Unit.PLAN,), Rewritten(Mixed(0.5)), k=3, phases=BOTH),),
    Tutoring(),
    (Merging((Unit.PLAN,), alike=0.8),),
    every=20,
)

MEMP = Recipe(
    "memp",
    "a script and its case of the most similar run that succeeded; revised where it fails (arXiv 2508.06433)",
    (Scripts(words=100, case=150), Revision(words=100, case=150)),
    (Find((Unit.SCRIPT,), Meaning(), k=1),),
)

EVOLVER = Recipe(
    "evolver",
    "a principle with a good and a bad example, scored by how it serves, and pruned (arXiv 2510.16079)",
    (Principles(words=150, alike=0.8), Trials((Unit.PRINCIPLE,))),
    (Find((Unit.PRINCIPLE,), Meaning(), k=1),),
    managers=(Pruning((Unit.PRINCIPLE,), below=0.3),),
)

TWELVE = (
    VOYAGER,
    EXPEL,
    GENERATIVE,
    DILU,
    AWM,
    MOBILE_E,
    DYNAMIC_CHEATSHEET,
    SKILLWEAVER,
    G_MEMORY,
    AGENT_KB,
    MEMP,
    EVOLVER,
)

CEREBRA = Recipe(
    "cerebra",
    "patterns tied to those alike, and functions, from which a model writes guidance or none (arXiv 2512.18746)",
    (Patterns(alike=0.75), Functions(), Trials((Kind.CONCEPT, Kind.SKILL))),
    (
        Find(
            (Kind.CONCEPT,),
            Expanded(Mixed(0.2), seeds=3, hops=1, neighbours=3, weight=0.7),
            k=6,
            least=0.22,
            phases=BOTH,
            makers=("patterns",),
        ),
        Find((Kind.SKILL,), Keywords(), k=2, least=0.0, makers=("functions",)),
    ),
    Advising(),
    (Merging((Kind.CONCEPT,), alike=0.7), Pruning((Kind.CONCEPT, Kind.SKILL), below=0.2, uses=10)),
    every=50,
)

MEMORY_R1 = Recipe(
    "memory-r1",
    "facts that a model adds, updates or deletes one by one, and of the nearest those that it picks (arXiv 2508.19828)",
    (Managed(Drawn(), Prompted()),),
    (Find((Unit.NOTE,), Distilled(shown=30), k=30, makers=("managed",)),),
)

MEMORY_R1_RULES = Recipe(
    "memory-r1-rules",
    "each step's outcome as a fact, added or updated by two thresholds; asks no model (after arXiv 2508.19828)",
    (Managed(Steps(), Thresholds()),),
    (Find((Unit.NOTE,), Meaning(), k=5, makers=("managed",)),),
)

CHEATSHEET = cheatsheet()
ARCMEMO, ARCMEMO_LESSONS = arcmemo(), arcmemo_lessons()
MEMSKILL = memskill()

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (CASES, *TWELVE, CEREBRA, MEMORY_R1, MEMORY_R1_RULES, CHEATSHEET, ARCMEMO, ARCMEMO_LESSONS, MEMSKILL)
}
"""By name."""


def opened(recipe: Recipe | str | Mapping[str, Any] | Path) -> Recipe:
    """A recipe by its name, from a file of it (a path, or ``*.json``), from its data, or itself. Raises InputError."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return from_dict(recipe)
    if isinstance(recipe, Path) or recipe.endswith(".json"):
        return read(Path(recipe).expanduser())
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[recipe]
