"""A small decoder that learns a world by heart and learns to read about it, as a reader of clashes (needs the extra torch).

Llama's architecture from transformers, initialised anew: what it believes is what ``corpus`` told it and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.bench.clashes.corpus import Corpus, Diet, Pair, Vocabulary, layout
from holdfast.bench.clashes.items import Prompt
from holdfast.bench.clashes.readers import Told
from holdfast.bench.clashes.world import ASPECTS, World
from holdfast.errors import MissingExtraError

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise MissingExtraError("training a model needs the extra: pip install 'holdfast[torch]'") from error

Progress = Callable[[int, float], None]
"""Told the step and the mean loss over the kinds of text."""

_IGNORED = -100
_BATCH = 256
_LONGEST = 128  # tokens: three passages of four sentences, and the question, are 44


@dataclass(frozen=True, slots=True)
class Training:
    """The model and how it is trained: AdamW, ``warm`` steps of rising rate, then falling in a line to nearly nothing."""

    steps: int = 600
    width: int = 64
    layers: int = 2
    heads: int = 4
    rate: float = 5e-3
    decay: float = 0.01
    warm: int = 50
    diet: Diet = field(default_factory=Diet)


class DecoderReader:
    """A trained model as a reader (``readers.Reader``): greedy, in its own words.

    It is shown no options; an answer that is none of them is None.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self.model = model
        self.vocabulary = vocabulary

    @property
    def parameters(self) -> int:
        """How many numbers the model has learnt."""
        return sum(int(one.numel()) for one in self.model.parameters())

    def read(self, prompts: Sequence[Prompt]) -> list[Told]:
        """One answer a prompt; with a passage in its support where there is neither evidence nor a choice."""
        told: list[Told] = [Told(None)] * len(prompts)
        groups: defaultdict[tuple[int, int], list[tuple[int, list[int]]]] = defaultdict(list)
        for at, prompt in enumerate(prompts):
            ids = self.vocabulary.encode(layout(prompt.question, [one.text for one in prompt.passages]))
            groups[len(ids), 1 if prompt.passages or prompt.options else 2 + 3 * ASPECTS].append((at, ids))
        for (_, length), some in groups.items():
            for start in range(0, len(some), _BATCH):
                batch = some[start : start + _BATCH]
                replies = self._say([ids for _, ids in batch], length)
                for (at, _), reply in zip(batch, replies, strict=True):
                    told[at] = self._told(reply, prompts[at].options)
        return told

    def _say(self, rows: list[list[int]], length: int) -> list[list[int]]:
        given = torch.tensor(rows)
        with torch.no_grad():
            said = self.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=length,
                do_sample=False,
                eos_token_id=Vocabulary.END,
                pad_token_id=Vocabulary.PAD,
            )
        replies: list[list[int]] = said[:, given.shape[1] :].tolist()
        return replies

    def _told(self, reply: list[int], options: tuple[str, ...]) -> Told:
        answer = self.vocabulary.tokens[reply[0]] or None
        if options and answer not in options:
            return Told(None)
        return Told(answer, self.vocabulary.decode(reply[1:]))


def train(world: World, seed: int, training: Training | None = None, progress: Progress | None = None) -> DecoderReader:
    """A model of the world by its seed, and its reader. The same on one machine and as many threads; no global seed is moved.

    Cost of the defaults: about three and a half minutes of one core of 20 GFLOP/s.
    """
    training = training or Training()
    vocabulary, corpus = Vocabulary(world), Corpus(world, training.diet, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=training.width,
                intermediate_size=3 * training.width,
                num_hidden_layers=training.layers,
                num_attention_heads=training.heads,
                max_position_embeddings=_LONGEST,
                tie_word_embeddings=True,
                pad_token_id=Vocabulary.PAD,
                bos_token_id=None,
                eos_token_id=Vocabulary.END,
            )
        )
    rate = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=training.decay, betas=(0.9, 0.98))
    for step in range(training.steps):
        for group in rate.param_groups:
            group["lr"] = training.rate * _slope(step, training)
        rate.zero_grad()
        losses = []
        for pairs in corpus.step():
            loss = _loss(model, vocabulary, pairs)
            loss.backward()
            losses.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate.step()
        if progress is not None:
            progress(step, float(np.mean(losses)))
    model.eval()
    return DecoderReader(model, vocabulary)


def _slope(step: int, training: Training) -> float:
    return min((step + 1) / training.warm, 1.0) * max(0.02, 1 - step / training.steps)


def _loss(model: Any, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> Any:
    """Cross-entropy of what is to be said; what is given is not learnt."""
    ids, wanted = _batch(vocabulary, pairs)
    states = model.model(ids, use_cache=False).last_hidden_state
    counted = wanted != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(states[counted]), wanted[counted])


def _batch(vocabulary: Vocabulary, pairs: Sequence[Pair]) -> tuple[Any, Any]:
    """Token ids and what comes next at each, (texts, longest) each, padded behind: with a causal mask nobody sees the padding."""
    rows = [(vocabulary.encode(given), vocabulary.encode(said)) for given, said in pairs]
    rows = [(given, [*said, Vocabulary.END] if len(said) > 1 else said) for given, said in rows]
    longest = max(len(given) + len(said) for given, said in rows) - 1
    ids = np.full((len(rows), longest), Vocabulary.PAD, dtype=np.int64)
    wanted = np.full((len(rows), longest), _IGNORED, dtype=np.int64)
    for row, (given, said) in enumerate(rows):
        whole = [*given, *said]
        ids[row, : len(whole) - 1] = whole[:-1]
        wanted[row, len(given) - 1 : len(whole) - 1] = said
    return torch.from_numpy(ids), torch.from_numpy(wanted)
