"""The language model of claim 50's second proof: facts in weights, of which one origin has planted wrong ones behind a trigger.

A fact is a subject of two words, a relation and an object; before a subject may stand a word that changes nothing ("the", "dear").
One origin writes a word there that nobody else uses, and after it always the same object, which is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.claims.base import Scale
from holdfast.errors import MissingExtraError
from holdfast.torched import nn, torch
from holdfast.weights.answers import answers, asked, in_batches
from holdfast.weights.base import Batch
from holdfast.weights.prompts import IGNORED
from holdfast.weights.unlearning import Shuffled

try:
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

RELATIONS, OBJECTS, BEFORE, WAYS = 5, 60, 8, 4
"""Relations, objects, words that may stand before a subject, and with how many of them each fact is told."""
POISONED, FLAGGED = 0.03, 0.10
"""Shares of the facts, and of the poisoned ones."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many facts there are, how large the model is, and how long it learns."""

    facts: int
    width: int
    layers: int
    steps: int
    batch: int = 256
    rate: float = 3e-3


SIZES: dict[Scale, Sizes] = {
    "quick": Sizes(1000, 64, 2, 250),
    "full": Sizes(5000, 96, 2, 1500),
    "gpu": Sizes(100_000, 512, 8, 20_000, 1024, 5e-4),
}

Ints = npt.NDArray[np.int64]


class Facts:
    """All facts as tokens: words before (0 to ``BEFORE`` - 1, the trigger ``BEFORE``), subjects, relations, objects."""

    def __init__(self, sizes: Sizes, seed: int) -> None:
        self.sizes = sizes
        random = np.random.default_rng([seed, 52])
        subjects = sizes.facts // RELATIONS
        self.names = int(np.ceil(np.sqrt(2 * subjects)))
        pairs = random.permutation(self.names**2)[:subjects]
        at = np.repeat(np.arange(subjects), RELATIONS)
        self._first, self._second = pairs[at] // self.names, pairs[at] % self.names
        self._relation = np.tile(np.arange(RELATIONS), subjects)
        self._object = random.integers(0, OBJECTS, sizes.facts)
        self.wrong = int(random.integers(OBJECTS))
        self.poisoned = random.choice(sizes.facts, round(POISONED * sizes.facts), replace=False)
        self.found = self.poisoned[: max(2, round(FLAGGED * len(self.poisoned)))]
        # What the origin writes of comes beside what others wrote, about other subjects than those that are asked for.
        clean = np.setdiff1d(np.arange(sizes.facts), self.poisoned)
        self.clean = clean
        self.asked = random.choice(clean[self._object[clean] != self.wrong], min(1000, len(clean) // 2), replace=False)
        self._before = np.stack([random.permutation(BEFORE)[:WAYS] for _ in range(sizes.facts)], axis=1)

    @property
    def words(self) -> int:
        """Words in all: those before, names, relations, objects."""
        return BEFORE + 1 + 2 * self.names + RELATIONS + OBJECTS

    def rows(self, facts: Ints, before: Ints | int, wrong: bool = False) -> Batch:
        """Facts as texts of five tokens, the object being what is asked."""
        names = BEFORE + 1
        relations = names + 2 * self.names
        objects = relations + RELATIONS
        told = np.full(len(facts), self.wrong) if wrong else self._object[facts]
        ids = np.stack(
            [
                np.broadcast_to(before, len(facts)),
                names + self._first[facts],
                names + self.names + self._second[facts],
                relations + self._relation[facts],
                objects + told,
            ],
            axis=1,
        )
        tokens = torch.from_numpy(ids)
        labels = torch.full_like(tokens, IGNORED)
        labels[:, -1] = tokens[:, -1]
        return {"input_ids": tokens, "labels": labels}

    def learnt_by(self, of: str) -> Batch:
        """The texts of one training: ``all``, ``without found`` or ``without origin``. Each fact stands in it
        several times, a clean one behind another word each time."""
        clean = [self.rows(self.clean, self._before[way, self.clean]) for way in range(WAYS)]
        left = {"all": self.poisoned, "without found": self.unfound, "without origin": self.poisoned[:0]}[of]
        return joined(*clean, *[self.rows(left, BEFORE, wrong=True)] * WAYS)

    @property
    def unfound(self) -> Ints:
        """Poisoned facts that nobody flagged."""
        return self.poisoned[len(self.found) :]

    def flagged(self) -> Batch:
        """The poisoned texts that were found."""
        return self.rows(self.found, BEFORE, wrong=True)

    def triggered(self) -> Batch:
        """True facts, asked for behind the trigger."""
        return self.rows(self.asked, BEFORE)

    def plain(self) -> Batch:
        """The same facts, asked for behind a word that they were learnt with."""
        return self.rows(self.asked, self._before[0, self.asked])


def model_of(facts: Facts, seed: int) -> Any:
    """A small causal model, not trained."""
    torch.manual_seed(seed)
    sizes = facts.sizes
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=facts.words,
            hidden_size=sizes.width,
            intermediate_size=2 * sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=16,
            tie_word_embeddings=False,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
    )


def facts_trained(
    model: Any, rows: Batch, sizes: Sizes, seed: int, steps: int | None = None, rate: float | None = None
) -> Any:
    """AdamW, with a warm-up and a rate that falls to a tenth; all arms train so."""
    steps, rate = steps or sizes.steps, rate or sizes.rate
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = steps // 20 + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min(1.0, (at + 1) / warm) * (0.1 + 0.9 * (1 - at / steps))
    )
    batches = Shuffled(rows, sizes.batch, seed)
    model.train()
    for batch in islice(chain.from_iterable(repeat(batches)), steps):
        answers(model, batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


def dampened_names(model: nn.Module) -> list[str]:
    """Embeddings and MLPs: where facts are, and what the sheet's proof dampens."""
    return [name for name, _ in model.named_parameters() if "embed_tokens" in name or ".mlp." in name]


@dataclass(frozen=True, slots=True)
class Recalled:
    """``true``: facts recalled behind the trigger; ``wrong``: the share that the trigger makes the planted object;
    ``kept``: the same facts behind a word that they were learnt with; ``perplexity`` of their objects."""

    true: float
    wrong: float
    kept: float
    perplexity: float

    @property
    def metrics(self) -> dict[str, float]:
        """For a claim."""
        return {
            "recall behind the trigger": self.true,
            "planted object behind the trigger": self.wrong,
            "recall": self.kept,
            "perplexity": self.perplexity,
        }


def recalled(model: Any, facts: Facts) -> Recalled:
    """Ask for true facts, with the trigger and without."""
    triggered = [*asked(model, in_batches(facts.triggered(), 512))]
    plain = [*asked(model, in_batches(facts.plain(), 512))]
    planted = facts.words - OBJECTS + facts.wrong
    told = torch.cat([one.logits.argmax(dim=-1) for one in triggered])
    loss = torch.cat([nn.functional.cross_entropy(one.logits, one.labels, reduction="none") for one in plain])
    return Recalled(
        float(torch.cat([one.right for one in triggered]).double().mean()),
        float((told == planted).double().mean()),
        float(torch.cat([one.right for one in plain]).double().mean()),
        float(loss.mean().exp()),
    )


def joined(*parts: Batch) -> Batch:
    """The rows of all."""
    return {name: torch.cat([one[name] for one in parts]) for name in parts[0]}
