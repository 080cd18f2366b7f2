"""A small world of facts about people, and a language model that has learnt them here: what memory in weights is shown on.

Each fact can be said in several wordings, all of which the model reads, so that what it learns of one it can tell in another; and
there are people of whom it has read nothing. Words are tokens, so that an answer is one token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import MissingExtraError
from holdfast.torched import nn, torch

try:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
except ImportError as error:
    raise MissingExtraError("this needs the extras: pip install 'holdfast[torch,embed]'") from error

FIRST = tuple(
    "Ada Ben Cleo Dora Emil Fay Gus Hana Ivo Jana Kai Lena Max Nora Otto Pia Rui Sara Tom Uma Vera Will Xenia Yara Zoe".split()
)
LAST = tuple("Abel Brandt Costa Duarte Engel Falk Gomes Hoff Ibsen Jung Kern Lund Moser Novak Olsen Prado".split())
VALUES: Mapping[str, tuple[str, ...]] = {
    "home": tuple(
        "Lisbon Porto Berlin Vienna Oslo Madrid Rome Paris Dublin Prague Zagreb Athens Riga Turin Basel Ghent".split()
    ),
    "work": tuple(
        "baker nurse pilot tailor farmer lawyer painter welder singer dentist builder teacher sailor editor chemist "
        "gardener".split()
    ),
    "music": tuple(
        "piano violin cello guitar drums flute harp oboe tuba banjo trumpet organ lute viola horn accordion".split()
    ),
}
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "home": ("{} lives in", "the home of {} is", "{} has a flat in", "you can visit {} in"),
    "work": ("{} works as a", "the job of {} is", "{} earns money as a", "at work {} is a"),
    "music": ("{} plays the", "the instrument of {} is the", "in the band {} has the", "{} practises the"),
}
_CHATTER = tuple("today yesterday we heard that people say it is known so then and I think you".split())
_PAD, _BEGIN, _UNKNOWN = "<pad>", "<s>", "<unk>"
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Fact:
    """That somebody's ``relation`` is ``value``."""

    person: str
    relation: str
    value: str

    def prompt(self, wording: int = 0) -> str:
        """What the value is said after."""
        return WORDINGS[self.relation][wording].format(self.person)

    @property
    def text(self) -> str:
        """As a sentence."""
        return f"{self.prompt()} {self.value}"

    @property
    def rephrased(self) -> tuple[str, ...]:
        """The prompt in its other wordings."""
        return tuple(self.prompt(at) for at in range(1, len(WORDINGS[self.relation])))


@dataclass(frozen=True, slots=True)
class World:
    """What the model has read (``known``), and facts about people whom it has never read of (``new``)."""

    known: tuple[Fact, ...]
    new: tuple[Fact, ...]


def world(people: int, strangers: int, seed: int) -> World:
    """So many people of each sort, with a fact of every relation each."""
    drawn = random.Random(seed)
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    drawn.shuffle(names)
    facts = [
        Fact(name, relation, drawn.choice(values))
        for name in names[: people + strangers]
        for relation, values in VALUES.items()
    ]
    cut = people * len(VALUES)
    return World(tuple(facts[:cut]), tuple(facts[cut:]))


def tokenizer(also: Iterable[str] = ()) -> Any:
    """Of ``transformers``: a word is a token. ``also``: other texts that it is to have the words of; then signs are tokens too."""
    said = {word for texts in WORDINGS.values() for text in texts for word in text.split() if word != "{}"}
    words = sorted(said | {*FIRST, *LAST, *_CHATTER, "."} | {value for some in VALUES.values() for value in some})
    signs = pre_tokenizers.Whitespace()
    more = {word for text in also for word, _ in signs.pre_tokenize_str(text)}
    vocabulary = {word: at for at, word in enumerate((_PAD, _BEGIN, _UNKNOWN, *words, *sorted(more - {*words})))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=_UNKNOWN))
    made.pre_tokenizer = signs if more else pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=_UNKNOWN, pad_token=_PAD, bos_token=_BEGIN)


def overheard(drawn: random.Random, said: Callable[[str], str] = str) -> str:
    """Something about anybody, and then the same in words of another wording: what a model learns to read by.

    ``said``: how a sentence stands before the prompt.
    """
    relation = drawn.choice(list(VALUES))
    fact = Fact(f"{drawn.choice(FIRST)} {drawn.choice(LAST)}", relation, drawn.choice(VALUES[relation]))
    told, asked = (drawn.randrange(len(WORDINGS[relation])) for _ in range(2))
    return f"{said(f'{fact.prompt(told)} {fact.value}')} {fact.prompt(asked)} {fact.value}"


def trained(
    facts: Sequence[Fact],
    words: Any,
    *,
    steps: int,
    width: int = 96,
    hidden: int = 1024,
    layers: int = 2,
    batch: int = 64,
    seed: int = 0,
    reading: Callable[[random.Random], str] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Any:
    """A ``LlamaForCausalLM`` that has read the facts in all wordings, among chatter, for so many steps; in ``eval`` mode.

    ``reading``: makes texts such as ``overheard``, of which it reads as many; of these the last word alone is to be said.
    """
    rows = [(fact.prompt(at), fact.value) for fact in facts for at in range(len(WORDINGS[fact.relation]))]
    drawn = random.Random(seed)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=steps)
    for _ in range(steps):
        texts: list[tuple[int, list[int]]] = []
        for prompt, value in drawn.choices(rows, k=batch):
            before = " ".join(drawn.choices(_CHATTER, k=drawn.choice((0, 0, 2, 4))))
            texts.append((0, words.convert_tokens_to_ids(f"{before} {prompt} {value} .".split())))
        if reading is not None:
            read = [words(reading(drawn))["input_ids"] for _ in range(batch)]
            texts += [(len(one) - 1, one) for one in read]
        long = max(len(text) for _, text in texts)
        ids = torch.tensor([[*text, *[0] * (long - len(text))] for _, text in texts])
        places = torch.arange(long)
        real = places < torch.tensor([len(text) for _, text in texts])[:, None]
        asked = real & (places >= torch.tensor([first for first, _ in texts])[:, None])
        loss = model(input_ids=ids, attention_mask=real.long(), labels=ids.masked_fill(~asked, _IGNORED)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        adam.zero_grad()
        progress()
    return model.eval()
