"""Hierarchical memories (arXiv 2510.02375): blocks of weights fetched by topic keep rare facts that one block for all loses.

Two worlds of facts, each fact as often as its rank says. Topics: a topic and an entity tell an object, and the topic is the
address. Cities: "<city> lies in <region>, <country>" of real cities, at the address of the sentence's embedding; it is asked by
"<city> lies in", so that the question must find the block by itself. In both a small anchor learns from the beginning, with the
blocks of each fact's path, with one generic block of the same size, or alone; data, steps and rates are the same.

What was found: with the right address the gain is there in both worlds. But of MiniLM's vectors of "<city> lies in" nearly half
fall into another branch than their sentence's, and the wrong blocks are worse than none, for common facts most of all. A city that
is learnt at the address of its question has the gain: what is learnt belongs where it will be asked for.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.bench.memory_probes import one_thread
from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.encode.embedders.minilm import MiniLM
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.torched import Tensor, torch
from holdfast.weights.block_bank import GENERIC, BankShape, BlockBank
from holdfast.weights.block_training import IGNORED, Document, Training, train_memories
from holdfast.weights.cluster_tree import Address, ClusterTree
from holdfast.weights.sparse_adam import AdamW

try:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

number = 51
name = "hierarchical-memories"
statement = (
    "At equal run-time size blocks of weights fetched by topic know at least 10 points more of the rarest half of facts than one "
    "generic block, and as much of the commonest, give or take 2; so too where a question finds its blocks by its embedding, and "
    "there blocking the best-matching eighth of the bank takes at least half of the gain away."
)
arms = ("fetched", "generic", "anchor alone", "best branch blocked")

OURS, GENERAL, ALONE, BLOCKED = arms
OWN, KNOWN, FOUND = "asked at the fact's own address", "learnt where it is asked", "addresses"
"""What is measured beside, and not judged: what a wrong address costs, and what learning at the question's address gives."""
WIDTH, LAYERS, HEADS, INNER, STD = 32, 2, 4, 64, 0.1
RANKS = (8, 24)
"""More neurons a layer of a block of each level; a generic block has as many as both."""
RATE, MEMORY = 3e-3, AdamW(rate=1e-2, decay=1e-3)
"""Of the anchor and of the blocks, as in the pilot: one recipe for all arms."""
FLAT = 10
"""A fact of rank r comes as often as 1 / (r + FLAT) says."""
MORE, TIE, HALF = 0.10, 0.02, 0.5
FILE = "facts/world-cities.csv"
REGIONS = 64
"""Cities are drawn from so many regions, those with the most of them."""
BUCKETS = ((0, 1 / 16), (1 / 16, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 1))
"""By rank, as shares of all facts: the commonest first."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """topics: and as many entities and objects. cities. steps and batch, of topics and of cities.

    In full as many facts as leave the generic block where the sheet's pilot had it, at 79 % of the rarest half: by that arm alone,
    on seed 101, of 6,400, 9,216 and 16,384 facts of topics (75, 32 and 7 %) and of 4,096 and 8,192 cities (86 and 45 %). Of the
    sheet's 4,096 facts, and of 2,048 cities, it knew all on seed 0, and even the anchor alone 99.6 %: no margin could show.
    """

    topics: int
    cities: int
    steps: int
    city_steps: int
    batch: int = 256
    city_batch: int = 128


SIZES: Mapping[Scale, Sizes] = {
    "quick": Sizes(topics=64, cities=1024, steps=300, city_steps=200),
    "full": Sizes(topics=80, cities=4096, steps=3000, city_steps=1500),
    "gpu": Sizes(topics=64, cities=8192, steps=6000, city_steps=6000),
}


@dataclass(frozen=True, slots=True)
class World:
    """Facts by rank, the commonest first: as they are learnt; the address they are asked at; how the bank is cut.

    Fields
        facts: with the address they are learnt at.
        asked: by fact, shape (N, depth). elsewhere: the same, were the best branch of the root not there.
        at: by fact the place of the token that is asked for.
        vocabulary, branching, roots: of the model and of the tree.
    """

    facts: tuple[Document, ...]
    asked: Tensor
    elsewhere: Tensor | None
    at: Tensor
    vocabulary: int
    branching: int
    roots: int

    def learnt_where_asked(self) -> World:
        """The same, but that each fact is learnt at the address of its question."""
        rows = zip(self.facts, self.asked.tolist(), strict=True)
        return replace(self, facts=tuple(replace(one, address=tuple(address)) for one, address in rows))

    def agreement(self, level: int) -> float:
        """How often a question finds the node of its fact."""
        own = torch.tensor([one.address[level] for one in self.facts])
        return float((self.asked[:, level] == own).float().mean())


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Both worlds, drawn by ``seed``."""
    sizes = SIZES[scale]
    with one_thread():
        found = {
            "topics": _measured(topics(sizes.topics, seed), sizes.steps, sizes.batch, seed),
            "cities": _measured(cities(data, sizes.cities, seed), sizes.city_steps, sizes.city_batch, seed),
        }
    measured = {
        arm: {f"{world}, {what}": value for world, by in found.items() for what, value in by.get(arm, {}).items()}
        for arm in (*arms, OWN, KNOWN, FOUND)
    }
    checks = []
    for world, by in found.items():
        gain = by[OURS][_bucket(3)] - by[GENERAL][_bucket(3)]
        tie = abs(by[OURS][_bucket(0)] - by[GENERAL][_bucket(0)])
        checks += [
            Check(f"{world}: rarest half, fetched less generic", gain, MORE),
            Check(f"{world}: commonest sixteenth, fetched and generic apart", tie, TIE, False),
        ]
    cost = by[OURS][_bucket(3)] - by[BLOCKED][_bucket(3)]
    # Without a gain there is none to take away.
    checks.append(Check("cities: share of the gain that blocking takes", cost / gain if gain > 0 else 0.0, HALF))
    series = {
        world: {arm: [one[_bucket(at)] for at in range(4)] for arm, one in by.items() if _bucket(0) in one}
        for world, by in found.items()
    }
    settings = {
        "topics": sizes.topics,
        "facts of topics": sizes.topics**2,
        "cities": sizes.cities,
        "steps": [sizes.steps, sizes.city_steps],
        "batch": [sizes.batch, sizes.city_batch],
        "layers": LAYERS,
        "width": WIDTH,
        "ranks": list(RANKS),
        "learning rate of the anchor": RATE,
        "learning rate of the blocks": MEMORY.rate,
        "data": FILE,
        "scale": scale,
    }
    notes = (
        "anchor and blocks learn together from the beginning: one recipe for all arms, that of the pilot",
        "an anchor alone is smaller at run time by the size of a path: the arm that counts is the generic block",
        "a city is learnt at the address of its sentence and asked at that of '<city> lies in'; beside, and not judged: asked at "
        "the address it was learnt at, and learnt at the address it is asked at",
        "the full form has more facts than the sheet, of whose 4,096 the anchor alone knew 99.6 % here: as many as leave the "
        "generic block where the sheet had it, by that arm alone and on another seed",
    )
    return Result(measured, tuple(checks), settings, series, notes)


def plot(result: Result, path: Path) -> None:
    """Accuracy by rank in both worlds, and the rarest half of the cities."""
    middle = [1, 2, 3, 4]
    panels: list[Bars | Lines] = [
        Lines(
            {arm: (middle, values) for arm, values in by.items()},
            title=world.capitalize(),
            x_label="rank of the fact, four buckets, the commonest first",
            y_label="answered",
            ours=[OURS],
            percent=True,
            limits=(0, 1.05),
        )
        for world, by in result.series.items()
    ]
    rare = {arm: values[3] for arm, values in result.series["cities"].items()}
    panels.append(
        Bars(
            rare,
            title="Cities, the rarest half",
            ours=[OURS],
            controls=[BLOCKED],
            required=rare[GENERAL] + MORE,
            percent=True,
        )
    )
    draw(
        path,
        panels,
        title="Blocks fetched by topic keep rare facts",
        subtitle=f"Equal size at run time, {result.settings['facts of topics']} facts and {result.settings['cities']} cities",
    )


def topics(count: int, seed: int) -> World:
    """A topic and an entity tell an object; the address is the topic's, in groups of four."""
    random = np.random.default_rng(seed)
    objects = random.integers(0, count, count**2).tolist()
    facts = []
    for rank, fact in enumerate(random.permutation(count**2).tolist()):
        topic, entity = divmod(fact, count)
        told = 2 * count + objects[fact]
        facts.append(
            Document(
                str(rank),
                torch.tensor([topic, count + entity, told]),
                (topic // 4, topic),
                labels=torch.tensor([IGNORED, IGNORED, told]),
            )
        )
    asked = torch.tensor([one.address for one in facts])
    return World(tuple(facts), asked, None, torch.full((len(facts),), 2), 3 * count, 4, count // 4)


def cities(data: Path | None, count: int, seed: int) -> World:
    """Real cities, drawn from the regions that have the most; the address is the embedding's. Raises ClaimError."""
    file = None if data is None else data / FILE
    if file is None or not file.is_file():
        raise ClaimError(f"claim {number} needs {FILE} (34,000 cities, CC BY 4.0): give its folder with --data")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = [(row["name"], row["subcountry"], row["country"]) for row in csv.DictReader(opened) if row["subcountry"]]
    often: dict[tuple[str, str], dict[str, None]] = {}
    for city, *where in rows:
        often.setdefault((where[0], where[1]), {})[city] = None
    most = sorted(often, key=lambda region: (-len(often[region]), region))[:REGIONS]
    of = [(city, region) for region in most for city in often[region]]
    random = np.random.default_rng(seed)
    drawn, taken = [], set()
    for at in random.permutation(len(of)).tolist():
        if of[at][0] not in taken:  # a name that two regions share cannot be answered
            taken.add(of[at][0])
            drawn.append(of[at])
    drawn = drawn[:count]
    questions = [f"{city} lies in" for city, _ in drawn]
    embedder = MiniLM(threads=1)
    whole = torch.from_numpy(
        embedder.embed([f"{one} {r}, {c}." for one, (_, (r, c)) in zip(questions, drawn, strict=True)])
    )
    parts = torch.from_numpy(embedder.embed(questions))
    tree = ClusterTree.fit(whole, 8, len(RANKS), seed=seed, embedder=embedder.model)
    learnt, asked = tree.addresses(whole), tree.addresses(parts)
    elsewhere = torch.empty_like(asked)
    for root in asked[:, 0].unique().tolist():
        mine = asked[:, 0] == root
        elsewhere[mine] = tree.addresses(parts[mine], without=[(root,)])
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    pieces.train_from_iterator([city for city, _ in drawn], trainer)
    first = pieces.get_vocab_size()
    lies, within = first, first + 1
    regions = {region: first + 2 + at for at, region in enumerate(most)}
    countries = {country: first + 2 + len(most) + at for at, country in enumerate(dict.fromkeys(c for _, c in most))}
    facts = []
    for rank, (city, region) in enumerate(drawn):
        ids = [*pieces.encode(city).ids, lies, within, regions[region], countries[region[1]]]
        labels = [IGNORED] * (len(ids) - 2) + ids[-2:]
        address: Address = tuple(learnt[rank].tolist())
        facts.append(Document(str(rank), torch.tensor(ids), address, labels=torch.tensor(labels)))
    at = torch.tensor([len(one.tokens) - 2 for one in facts])
    return World(tuple(facts), asked, elsewhere, at, first + 2 + len(most) + len(countries), 8, 8)


def _measured(world: World, steps: int, batch: int, seed: int) -> dict[str, dict[str, float]]:
    """By arm the share of facts that are answered, by how common they are."""
    chance = 1 / (np.arange(len(world.facts)) + FLAT)
    drawn = np.random.default_rng([seed, 1]).choice(len(world.facts), steps * batch, p=chance / chance.sum())
    trials = {OURS: (OURS, world), GENERAL: (GENERAL, world), ALONE: (ALONE, world)}
    if world.elsewhere is not None:
        trials[KNOWN] = OURS, world.learnt_where_asked()
    found: dict[str, dict[str, float]] = {}
    for name_of, (arm, its) in trials.items():
        with TemporaryDirectory() as home:
            model, bank = learnt(arm, its, [its.facts[at] for at in drawn.tolist()], batch, seed, Path(home))
            found[name_of] = _by_rank(answered(model, bank, its, None if arm == GENERAL else its.asked))
            if name_of == OURS and its.elsewhere is not None:
                own = torch.tensor([one.address for one in its.facts])
                found[BLOCKED] = _by_rank(answered(model, bank, its, its.elsewhere))
                found[OWN] = _by_rank(answered(model, bank, its, own))
                levels = range(bank.shape.depth)
                found[FOUND] = {
                    f"questions that find their fact's node, level {at + 1}": its.agreement(at) for at in levels
                }
            extra = {OURS: bank.shape.fetched, GENERAL: bank.shape.generic * 3 * LAYERS * WIDTH, ALONE: 0}[arm]
            found[name_of]["parameters at run time"] = float(sum(one.numel() for one in model.parameters()) + extra)
            bank.close()
    return found


def learnt(
    arm: str, world: World, lessons: Sequence[Document], batch: int, seed: int, home: Path
) -> tuple[Any, BlockBank]:
    """An anchor that has learnt these lessons, with its bank."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=world.vocabulary,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=STD,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    general = arm == GENERAL
    shape = BankShape(
        LAYERS,
        WIDTH,
        (0,) * len(RANKS) if general else RANKS,
        world.branching,
        world.roots,
        generic=sum(RANKS) if general else 0,
    )
    bank = BlockBank(home, shape, model, seed=seed)
    if arm == ALONE:
        bank.block([(root,) for root in range(world.roots)])
    training = Training(batch=batch, memory=MEMORY, generic=float(general), seed=seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01, betas=MEMORY.betas)
    train_memories(bank, model, lessons, training, anchor=optimiser)
    return model.eval(), bank


def answered(model: Any, bank: BlockBank, world: World, asked: Tensor | None) -> npt.NDArray[np.float64]:
    """Of each fact whether it is answered at its address, 1 or 0; None: by the generic block."""
    found = []
    for rows in torch.arange(len(world.facts)).split(256):
        some = [world.facts[at].tokens for at in rows.tolist()]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
        address = GENERIC if asked is None else asked[rows].tolist()
        with torch.no_grad(), bank.attach(model, address):
            logits = model(ids, use_cache=False).logits
        here, at = torch.arange(len(rows)), world.at[rows]
        found.append(logits[here, at - 1].argmax(-1) == ids[here, at])
    right: npt.NDArray[np.float64] = torch.cat(found).double().numpy()
    return right


def _by_rank(right: npt.NDArray[np.float64]) -> dict[str, float]:
    return {
        _bucket(at): float(right[round(low * len(right)) : round(high * len(right))].mean())
        for at, (low, high) in enumerate(BUCKETS)
    }


def _bucket(at: int) -> str:
    return ("the commonest sixteenth", "to a quarter", "to a half", "the rarest half")[at]
