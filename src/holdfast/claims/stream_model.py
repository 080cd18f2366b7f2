"""The small language model of claims 36 and 38, trained anew for every seed, and the stream that it is asked about.

An episode names items ("please buy [ milk ] ."), then come real questions of StrategyQA with their answers, then it is asked for
one. Words are tokens. The questions of the episodes that are measured are none of those that the model was trained with. Of
SirLLM's own stream, whose file has no licence, this has the form: one item, many questions, one recall.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.claims.base import Scale
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.latent.streaming import StreamingCache
from holdfast.torched import Tensor, torch

try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

FILES = ("strategyqa/train.json", "strategyqa/dev.json")
"""Where the questions are in a user's folder of data; without one, those that are packed."""

# One token each; 53, as in the paper's stream. Where several items are named, it is one of each group, by which it is asked for.
GROUPS = {
    "fruit": "apples bananas oranges grapes lemons peaches cherries pears plums mangoes melons limes figs".split(),
    "vegetable": (
        "onions garlic carrots potatoes tomatoes lettuce spinach cabbage celery mushrooms beans lentils peppers".split()
    ),
    "drink": "milk juice tea coffee cocoa water wine beer cider soda lemonade broth cordial".split(),
    "good": "bread rice pasta flour sugar salt honey vinegar mustard oats cereal crackers cookies soap".split(),
}
ITEMS = tuple(item for group in GROUPS.values() for item in group)

CHOICES = "a : yes b : no answer :"
"""Each question is put as a choice, as those of the paper's stream are: that form comes again and again, and surprises nobody."""

SEVERAL = 0.5
"""In so many of the episodes to train with several items are named: with one alone, what is asked for is learnt much later."""

PAD, UNKNOWN = "<pad>", "<unknown>"
_WORDS = {PAD: 0, UNKNOWN: 1}
_MOST = 3000
_SPLIT = 0.8


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is trained, and what is asked of it.

    Fields
        layers, width, heads, inner: of the model. steps, batch, rate: of its training.
        turns: of questions at most in training, and exactly in what is measured.
        episodes: that are measured, in batches of ``together`` whose turns have the same lengths.
        weight: of the token that is asked for, in the loss.
    """

    layers: int
    width: int
    heads: int
    inner: int
    steps: int
    batch: int
    turns: int
    episodes: int
    together: int = 20
    rate: float = 2e-3
    weight: float = 20.0


SIZES: dict[Scale, Sizes] = {
    "quick": Sizes(layers=2, width=64, heads=4, inner=128, steps=450, batch=16, turns=4, episodes=40, rate=3e-3),
    "full": Sizes(layers=4, width=128, heads=4, inner=352, steps=450, batch=8, turns=10, episodes=100),
    "gpu": Sizes(layers=4, width=128, heads=4, inner=352, steps=1200, batch=16, turns=10, episodes=500),
}


@dataclass(frozen=True, slots=True)
class Episodes:
    """Episodes whose turns have the same lengths: ``turns``, shape (B, T) each, the last asks; ``answers``, shape (B,);
    ``named``: where the item that is asked for stood, shape (B,)."""

    turns: tuple[Tensor, ...]
    answers: Tensor
    named: Tensor

    @property
    def tokens(self) -> int:
        """How long each is."""
        return sum(turn.shape[1] for turn in self.turns)


class Stream:
    """Questions as tokens, and episodes drawn of them. Raises ClaimError where there are none."""

    def __init__(self, data: Path | None, seed: int) -> None:
        asked = _questions(data)
        random = np.random.default_rng(seed)
        order = random.permutation(len(asked)).tolist()
        words = [_words(f"{asked[at][0]} {CHOICES} {'a' if asked[at][1] else 'b'} .") for at in order]
        cut = round(_SPLIT * len(words))
        ours = [*ITEMS, *GROUPS, *"please buy [ ] . what which was named ?".split()]
        often = Counter(word for turn in words[:cut] for word in turn)
        known = dict.fromkeys([PAD, UNKNOWN, *ours, *(word for word, _ in often.most_common(_MOST))])
        self.vocabulary = {word: at for at, word in enumerate(known)}
        self.items = [self.vocabulary[item] for item in ITEMS]
        self._train, self._test = ([self.ids(turn) for turn in part] for part in (words[:cut], words[cut:]))
        self._by_length: dict[int, list[list[int]]] = {}
        for turn in self._test:
            self._by_length.setdefault(len(turn), []).append(turn)
        self.questions = len(asked)

    def turns(self) -> list[list[int]]:
        """All questions with their answers."""
        return [*self._train, *self._test]

    def ids(self, words: Sequence[str]) -> list[int]:
        """Words as tokens."""
        return [self.vocabulary.get(word, _WORDS[UNKNOWN]) for word in words]

    def naming(self, items: Sequence[int]) -> list[int]:
        """The turn that names items."""
        return [*self.ids(["please", "buy", "["]), *items, *self.ids(["]", "."])]

    def asking(self, group: str | None) -> list[int]:
        """The turn that asks for the item, or for that of a group."""
        return self.ids(f"which {group} was named ?".split() if group else "what was named ?".split())

    def batches(
        self, sizes: Sizes, steps: int, seed: int, several: float, growing: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Episodes to train with: tokens, shape (B, T), padded at the end; a mask of what is none; weights of what is to be told.

        ``several``: the share of episodes that name more than one item. ``growing``: the first are short, and from two thirds of
        the steps on they are as long as they get.
        """
        random = np.random.default_rng(seed)
        for step in range(steps):
            # What is asked for is found sooner in short episodes, and they cost less.
            most = min(sizes.turns, 1 + int(1.5 * sizes.turns * step / steps)) if growing else sizes.turns
            rows, told = [], []
            for of in range(sizes.batch):
                naming, asks, _ = self._drawn(random, random.random() < several)
                picked = random.integers(0, len(self._train), int(random.integers(1, most + 1)))
                row = [*naming, *(token for at in picked.tolist() for token in self._train[at])]
                for asking, answer in asks:  # of several items all are asked for, one after another
                    row += [*asking, answer]
                    told.append((of, len(row) - 1))
                rows.append(row)
            longest = max(map(len, rows))
            tokens = torch.tensor([row + [_WORDS[PAD]] * (longest - len(row)) for row in rows])
            mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
            weights = mask.float()
            for of, at in told:
                weights[of, at] = sizes.weight
            yield tokens, mask, weights

    def episodes(self, sizes: Sizes, seed: int, several: bool = False) -> list[Episodes]:
        """Episodes to measure, of questions that nothing was trained with."""
        random = np.random.default_rng([seed, 1])
        lengths = [length for length, turns in self._by_length.items() for _ in turns]
        found = []
        for _ in range(-(-sizes.episodes // sizes.together)):
            drawn = [self._drawn(random, several) for _ in range(sizes.together)]
            turns = [torch.tensor([naming for naming, *_ in drawn])]
            for _ in range(sizes.turns):
                same = self._by_length[lengths[int(random.integers(len(lengths)))]]
                picked = random.integers(0, len(same), sizes.together)
                turns.append(torch.tensor([same[at] for at in picked.tolist()]))
            first = [asks[0] for _, asks, _ in drawn]
            turns.append(torch.tensor([asking for asking, _ in first]))
            answers, places = torch.tensor([answer for _, answer in first]), torch.tensor([at for *_, at in drawn])
            found.append(Episodes(tuple(turns), answers, places))
        return found

    def _drawn(self, random: np.random.Generator, several: bool) -> tuple[list[int], list[tuple[list[int], int]], int]:
        """The turn that names items; in an order drawn by lot, how each is asked for and what it is; where the first stands."""
        if several:
            picked = [(group, items[int(random.integers(len(items)))]) for group, items in GROUPS.items()]
            items = [self.vocabulary[item] for _, item in picked]
            asks = [(self.asking(group), item) for (group, _), item in zip(picked, items, strict=True)]
        else:
            items = [self.items[int(random.integers(len(self.items)))]]
            asks = [(self.asking(None), items[0])]
        naming = self.naming([items[at] for at in random.permutation(len(items)).tolist()])
        asks = [asks[at] for at in random.permutation(len(items)).tolist()]
        return naming, asks, naming.index(asks[0][1])


def trained(stream: Stream, sizes: Sizes, seed: int, several: float = SEVERAL) -> Any:
    """A model that learnt to tell the next token of such episodes; frozen."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(stream.vocabulary),
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=_WORDS[PAD],
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=sizes.rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = sizes.steps // 20 + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min(1.0, (at + 1) / warm) * (0.1 + 0.9 * max(0.0, 1 - at / sizes.steps))
    )
    for tokens, _, weights in stream.batches(sizes, sizes.steps, seed, several, growing=True):
        logits = model(tokens, use_cache=False).logits[:, :-1]
        told = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        loss = (told * weights[:, 1:]).sum() / weights[:, 1:].sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Streamed:
    """Of one arm: the share of items recalled, of those whose own entry some head still held when asked, and in nats how far what
    is told of the questions' words lies from what is told with a full cache."""

    recall: float
    held: float
    divergence: float


def streamed(
    model: Any, stream: Stream, episodes: Sequence[Episodes], cache_of: Callable[[], StreamingCache] | None
) -> Streamed:
    """Stream episodes through a cache, turn by turn; None: a full one."""
    right = held = total = 0
    divergence = words = 0.0
    items = torch.tensor(stream.items)
    for some in episodes:
        with torch.no_grad():
            whole = torch.log_softmax(model(torch.cat(some.turns, dim=1), use_cache=False).logits, dim=-1)
        ends = [*accumulate(turn.shape[1] for turn in some.turns)]
        if cache_of is None:
            last = whole[:, -1]
            held += len(some.answers)
        else:
            cache = cache_of()
            with torch.no_grad(), cache.attached(model):
                for at, turn in enumerate(some.turns):
                    if at == len(some.turns) - 1:
                        held += int(_holds(cache, some.named).sum())
                    logits = torch.log_softmax(model(turn, cache=cache).logits, dim=-1)
                    cache.end_turn()
                    if 0 < at < len(some.turns) - 1:
                        before = whole[:, ends[at - 1] : ends[at]]
                        divergence += float((before.exp() * (before - logits)).sum())
                        words += logits.shape[0] * logits.shape[1]
            last = logits[:, -1]
        told = items[last[:, items].argmax(dim=-1)]
        right += int((told == some.answers).sum())
        total += len(some.answers)
    return Streamed(right / total, held / total, divergence / words if words else 0.0)


def _holds(cache: StreamingCache, named: Tensor) -> Tensor:
    """Of each row whether any head of any layer holds the entry that was read there."""
    found = torch.zeros(len(named), dtype=torch.bool)
    for layer in range(len(cache.layers)):
        entries = cache.entries(layer)
        assert entries is not None
        here = entries.positions == named[:, None, None]
        if entries.held is not None:
            here &= entries.held
        found |= here.flatten(1).any(dim=1)
    return found


def _questions(data: Path | None) -> list[tuple[str, bool]]:
    found = [data / name for name in FILES] if data is not None else []
    rows = [row for file in found if file.is_file() for row in json.loads(file.read_text(encoding="utf-8"))]
    if not rows:
        packed = files("holdfast.sample").joinpath("redteam.json").read_text(encoding="utf-8")
        rows = json.loads(packed)["strategyqa"]
    if not rows:
        raise ClaimError("there are no questions to make a stream of")
    return [(row["question"], bool(row["answer"])) for row in rows]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+|[?.,:]", text.lower())
