"""The facts and the small language model of claim 20: CounterFact for what is edited, requests of CLINC150 for what is far from it.

Words are tokens. The model is a Llama with one wide feed-forward layer, trained until it knows a few hundred facts, each in two
wordings, the facts near them, and the intents of some requests.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.editing import Pair, Trial, shares
from holdfast.claims.base import Scale
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.torched import torch
from holdfast.weights.base import Edit
from holdfast.weights.prompts import padded

try:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaMLP
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

FACTS, REQUESTS = "edits/counterfact-edit.json", "intents/clinc150_small.json"
UNKNOWN = 0
_LONGEST = 12
"""Words of a prompt at most: a few have whole sentences before them."""
_OTHERS = 0.1
"""What the tokens that are no answer weigh in training."""
_CONTEXT = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is trained and edited.

    Fields
        facts: that the model knows, each in two wordings and with one near it. edits: so many of them are edited.
        requests: of another domain; half is asked after the edits, half may be used while editing.
        layers, width, heads, inner: of the model; ``wide``: the inner width of the layer that is edited, the last but one.
        epochs, batch, rate: of its training.
        contexts: words drawn by lot, before which a fact is taught as well.
    """

    facts: int
    edits: int
    requests: int
    layers: int
    width: int
    heads: int
    inner: int
    wide: int
    epochs: int
    batch: int = 32
    rate: float = 3e-3
    contexts: int = 10

    @property
    def layer(self) -> str:
        """The path of the matrix that is edited."""
        return f"model.layers.{self.layers - 2}.mlp.down_proj"


SIZES: dict[Scale, Sizes] = {
    "quick": Sizes(80, 12, 80, layers=3, width=64, heads=4, inner=128, wide=4096, epochs=25, contexts=4),
    "full": Sizes(600, 100, 500, layers=4, width=128, heads=4, inner=512, wide=4096, epochs=30),
    "gpu": Sizes(
        3000, 1000, 1000, layers=8, width=512, heads=8, inner=2048, wide=8192, epochs=30, batch=128, rate=1e-3
    ),
}


class World:
    """Facts of a seed: those to edit, and all that a model is to know. Raises ClaimError where the data is missing."""

    def __init__(self, data: Path | None, sizes: Sizes, seed: int) -> None:
        records, requests = _read(data, FACTS), _read(data, REQUESTS)["train"]
        random = np.random.default_rng([seed, 20])
        fit: dict[str, Any] = {}
        for record in (records[at] for at in random.permutation(len(records)).tolist()):
            texts = [record[name] for name in ("prompt", "rephrase_prompt", "locality_prompt")]
            # The subject must be told in the other wording as well, and of nobody two things.
            if max(len(_words(text)) for text in texts) <= _LONGEST and record["subject"] in record["rephrase_prompt"]:
                fit.setdefault(record["subject"], record)
            if len(fit) == sizes.facts:
                break
        facts = [*fit.values()]
        drawn = [requests[at] for at in random.permutation(len(requests))[: sizes.requests].tolist()]
        asked = [(f"request : {text}", f"<{intent}>") for text, intent in drawn]
        edited, rest = facts[: sizes.edits], facts[sizes.edits :]
        half = len(asked) // 2
        self.sizes, self.seed = sizes, seed
        self.trial = Trial(
            [Edit(f"fact {one['case_id']}", one["prompt"], one["target_new"]) for one in edited],
            [(one["rephrase_prompt"], one["target_new"]) for one in edited],
            [(one["locality_prompt"], one["locality_ground_truth"]) for one in edited],
            asked[:half],
        )
        others = [one[name] for one in rest for name in ("prompt", "locality_prompt")]
        asked_anyway = cycle(prompt for prompt, _ in asked[half:])
        self.unrelated = [text for pair in zip(others, asked_anyway, strict=False) for text in pair]
        """Of facts and requests that are neither edited nor asked, turn about."""
        self.known: list[Pair] = [
            *((one[name], one["ground_truth"]) for one in facts for name in ("prompt", "rephrase_prompt")),
            *((one["locality_prompt"], one["locality_ground_truth"]) for one in facts),
            *asked,
        ]
        words = [word for prompt, answer in self.known for word in (*_words(prompt), answer)]
        words += [one.target for one in self.trial.edits]
        self.vocabulary = {word: at + 1 for at, word in enumerate(dict.fromkeys(words))}
        contexts = [self._context(random) for _ in range(sizes.contexts)]
        self.templates = ("{}", *(f"{' '.join(some)} {{}}" for some in contexts))

    def tokenizer(self, text: str) -> list[int]:
        """A text as tokens."""
        return [self.vocabulary.get(word, UNKNOWN) for word in _words(text)]

    def _context(self, random: np.random.Generator) -> list[str]:
        """Words drawn by lot, before a prompt."""
        some = [*self.vocabulary]
        return [some[at] for at in random.integers(0, len(some), int(random.integers(1, _CONTEXT + 1))).tolist()]


def trained(world: World) -> tuple[Any, float]:
    """A model that knows the world, in ``eval`` mode, and the share of it that it knows."""
    sizes = world.sizes
    torch.manual_seed(world.seed)
    config = LlamaConfig(
        vocab_size=len(world.vocabulary) + 1,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    wide = copy.copy(config)
    wide.intermediate_size = sizes.wide
    model.model.layers[-2].mlp = LlamaMLP(wide)
    random = np.random.default_rng([world.seed, 21])
    rows = [(world.tokenizer(prompt), world.vocabulary[answer]) for prompt, answer in world.known]
    each = -(-len(rows) // sizes.batch)
    learner = torch.optim.AdamW(model.parameters(), lr=sizes.rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(learner, sizes.rate, total_steps=each * sizes.epochs, pct_start=0.1)
    for _ in range(sizes.epochs):
        order = random.permutation(len(rows)).tolist()
        for start in range(0, len(order), sizes.batch):
            some = []
            for at in order[start : start + sizes.batch]:
                prompt, answer = rows[at]
                # Half of them after other words, so that no place in a row is part of what is known.
                before = world.tokenizer(" ".join(world._context(random))) if random.random() < 0.5 else []
                some.append([*before, *prompt, answer])
            ids, mask = padded(some)
            last = mask.sum(dim=1) - 1
            weights = _OTHERS * mask.float()
            weights[torch.arange(len(some)), last] = 1.0
            logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1]
            told = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            loss = (told * weights[:, 1:]).sum() / weights[:, 1:].sum()
            learner.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            learner.step()
            schedule.step()
    model.eval()
    return model, shares(model, world.tokenizer, world.known).exact


def _read(data: Path | None, name: str) -> Any:
    path = None if data is None else data / name
    if path is None or not path.is_file():
        raise ClaimError(
            f"claim 20 edits facts of CounterFact among requests of CLINC150: give the folder with {name} as --data"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _words(text: str) -> list[str]:
    return re.findall(r"<\w+>|[\w'’-]+|[^\w\s]", text)
