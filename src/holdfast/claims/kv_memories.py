"""Memories as KV caches, for claim 14: how exact and how quick they are, what moving them costs, and real ones under a schedule."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.cube import Cube, Scope
from holdfast.errors import MissingExtraError
from holdfast.latent.reader import Reader
from holdfast.latent.rotary import rotation
from holdfast.latent.segments import Segment, joined
from holdfast.memory import Memory
from holdfast.retrieve.context import CLOSE, NOTICE, OPEN, line
from holdfast.torched import nn, torch

try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
except ImportError as error:
    raise MissingExtraError("this needs the extras: pip install 'holdfast[torch,embed]'") from error

CONTEXTS, QUESTIONS = (583, 2773, 6064), (167, 303, 953)
"""The paper's lengths in tokens (table 5)."""
CORNERS = ((583, 167), (6064, 167), (6064, 953))
"""Those of the quick form."""
TOLD = 32
"""Tokens that are told greedily, to be compared."""

EXACT, MOVED, PILED = "read in this order", "kept alone, moved", "kept alone, one upon another"
UNREAD = "no memory (control)"
THINGS, VALUES, EACH, BLOCKS = 16, 8, 4, 3
"""Of the facts that are told: each of three memories holds four, in a world of 16 things with 8 values."""
ANEW = 0.5
"""So many facts of the second and third memory say anew what an earlier one said of the same thing."""

READ = "tokens read, relative to text only"
TICK = 5
"""Requests after which the schedule decides anew."""

_OPENING = f"{OPEN}\n{NOTICE}\n"
_UNKNOWN = "<unknown>"
_START = datetime(2026, 1, 1, tzinfo=UTC)


# --- exact and quick ---


def grid(seed: int, cells: Sequence[tuple[int, int]], times: int) -> dict[tuple[int, int], dict[str, float]]:
    """Of contexts and questions of some tokens: how long the first token takes afresh and by the cache, and whether they agree.

    The cache is loaded from the disk and looked through each time, by a store that was just opened. ``times``: runs, of which the
    median is taken. The model has random weights: what it says means nothing, and must be the same.
    """
    torch.manual_seed(seed)
    reader = Reader(_model(layers=6, width=384, inner=1024, heads=6, key_heads=2).eval(), _letters())
    random = np.random.default_rng(seed)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        with _opened(folder) as memory:
            frame = len(memory.attach(memory.add("x").ids, model=reader).tokens) - 1
            kept = {}
            for context in sorted({context for context, _ in cells}):
                kept[context] = memory.add(_letters_of(random, context - frame)).ids
                memory.promote(kept[context], to="state", model=reader)
        closing = len(reader.ids(f"{CLOSE}{reader.between}"))
        for context, asked in cells:
            found[context, asked] = _cell(folder, reader, kept[context], _letters_of(random, asked - closing), times)
    return found


def _cell(folder: str, reader: Reader, ids: Sequence[str], question: str, times: int) -> dict[str, float]:
    model = reader.model
    afresh, cached = [], []
    for _ in range(times):
        with _opened(folder) as memory, torch.no_grad():
            began = time.perf_counter()
            attached = memory.attach(ids, model=reader)
            prompt, state = attached.prompt(question), attached.cache()
            ours = model(prompt["input_ids"][:, attached.cached :], cache=state, logits_to_keep=1).logits[0, -1]
            cached.append(time.perf_counter() - began)
            began = time.perf_counter()
            read = DynamicCache()
            plain = model(prompt["input_ids"], cache=read, logits_to_keep=1).logits[0, -1]
            afresh.append(time.perf_counter() - began)
    by_state, by_text = (_told(model, prompt, cache) for cache in (state, read))
    return {
        "afresh, s": float(np.median(afresh)),
        "by the cache, s": float(np.median(cached)),
        "saved": 1.0 - float(np.median(cached)) / float(np.median(afresh)),
        "greedy output the same": float(by_state == by_text and attached.cached == len(attached.tokens)),
        "logits differ by": float((ours - plain).abs().max()),
    }


def _told(model: Any, prompt: Mapping[str, Any], cache: Any) -> list[int]:
    """What is told greedily by a cache that holds the whole prompt, whose last token is read again to begin with."""
    cache.crop(-1)
    told: list[int] = model.generate(**prompt, cache=cache, max_new_tokens=TOLD, do_sample=False)[0].tolist()
    return told


# --- moved ---


@dataclass(frozen=True, slots=True)
class Training:
    """How the model that tells facts is trained.

    A fact is one word that names a thing and its value, so that to find it takes one look back. Where things and values are words
    of their own it takes two, and models of this size did not learn that in a thousand steps.
    """

    steps: int = 400
    batch: int = 32
    rate: float = 3e-3
    layers: int = 2
    width: int = 64


def moving(seed: int, training: Training, questions: int) -> dict[str, dict[str, float]]:
    """How often a trained model tells the current one of some facts, by how three memories came into its cache.

    Later memories say anew what earlier ones said, and all are of one day: what is current is told by the order alone.
    ``questions``: so many, of as many talks.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    reader = _taught(random, training)
    turn = rotation(reader.model)
    root = reader.begin(_OPENING, reader.key)
    right = {arm: {False: 0, True: 0} for arm in (EXACT, MOVED, PILED, UNREAD)}
    count = {False: 0, True: 0}
    for _ in range(questions):
        told = _facts(random)
        current = _current(told)
        thing = int(random.choice(list(current)))
        anew = sum(thing in facts for facts in told) > 1
        count[anew] += 1
        blocks = [reader.ids(f"{line(cube)}\n") for cube in _cubes(told)]
        exact, moved = [root], [root]
        alone = [reader.read(ids, [root]) for ids in blocks]
        for ids, segment in zip(blocks, alone, strict=True):
            exact.append(reader.read(ids, exact))
            moved.append(segment.moved(moved[-1].end, turn))
        caches = {
            EXACT: joined(exact),
            MOVED: joined(moved),
            PILED: _piled([root, *alone]),
            UNREAD: joined([root]),
        }
        question = torch.tensor([reader.ids(f"{CLOSE}{reader.between}{_thing(thing)}")])
        for arm, cache in caches.items():
            with torch.no_grad():
                said = int(reader.model(question, cache=cache).logits[0, -1].argmax())
            right[arm][anew] += reader.tokenizer.convert_ids_to_tokens(said) == _fact(thing, current[thing])
    return {
        arm: {
            "facts told": sum(hits.values()) / questions,
            "told once": hits[False] / max(1, count[False]),
            "told anew": hits[True] / max(1, count[True]),
        }
        for arm, hits in right.items()
    }


def _piled(segments: Sequence[Segment]) -> Any:
    """One after the other without being moved, as the published code joins them: places overlap."""
    layers = (
        zip(*(segment.keys for segment in segments), strict=True),
        zip(*(one.values for one in segments), strict=True),
    )
    pairs = zip(*layers, strict=True)
    return DynamicCache([(torch.cat(keys, dim=1)[None], torch.cat(values, dim=1)[None]) for keys, values in pairs])


def _thing(thing: int) -> str:
    return f"k{thing}"


def _fact(thing: int, value: int) -> str:
    return f"k{thing}v{value}"


def _facts(random: np.random.Generator) -> list[dict[int, int]]:
    """Of each memory what it says: the value of some things, half of those after the first said before."""
    told: list[dict[int, int]] = []
    known: set[int] = set()
    for _ in range(BLOCKS):
        facts: dict[int, int] = {}
        while len(facts) < EACH:
            again = known and random.random() < ANEW
            thing = int(random.choice(sorted(known))) if again else int(random.integers(THINGS))
            facts[thing] = int(random.integers(VALUES))
        known |= set(facts)
        told.append(facts)
    return told


def _current(told: Sequence[Mapping[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for facts in told:
        found |= facts
    return found


def _cubes(told: Sequence[Mapping[int, int]]) -> list[Cube]:
    texts = (" ".join(_fact(thing, value) for thing, value in facts.items()) for facts in told)
    return [Cube(Scope("acme", "ana"), text, valid_from=_START) for text in texts]


def _taught(random: np.random.Generator, training: Training) -> Reader:
    """A small model that was trained to say what is current, on prompts as the product makes them."""
    tokenizer = _words()
    model = _model(
        layers=training.layers,
        width=training.width,
        inner=2 * training.width,
        heads=4,
        key_heads=4,
        vocabulary=len(tokenizer),
    )
    reader = Reader(model, tokenizer, between=" ")
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.rate, betas=(0.9, 0.95), weight_decay=0.01)
    warm = training.steps // 12 + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda at: min(1.0, (at + 1) / warm) * (0.05 + 0.95 * (1 + math.cos(math.pi * at / training.steps)) / 2),
    )
    for _ in range(training.steps):
        rows = [_lesson(reader, random) for _ in range(training.batch)]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
        asked = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
        logits = model(ids, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), asked[:, 1:].flatten(), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(False)
    return reader


def _lesson(reader: Reader, random: np.random.Generator) -> tuple[list[int], list[int]]:
    """A prompt in which every current fact is asked for, and what is to be told: -100 where nothing is."""
    told = _facts(random)
    current = _current(told)
    asked = [int(thing) for thing in random.permutation(list(current))]
    talk = " ".join(f"{_thing(thing)} {_fact(thing, current[thing])}" for thing in asked)
    lines = "".join(f"{line(cube)}\n" for cube in _cubes(told))
    ids = list(reader.ids(f"{_OPENING}{lines}{CLOSE}{reader.between}{talk}", first=True))
    answers = {len(ids) - 1 - 2 * at for at in range(len(asked))}
    return ids, [id if at in answers else -100 for at, id in enumerate(ids)]


# --- scheduled ---


def scheduled(seed: int, memories: int, requests: int) -> dict[str, float]:
    """Real states under a schedule: a Zipf(1.1) trace that drifts at half-time, with a tenth of updates, at a tenth of all bytes.

    Of every request it is looked whether the words in front of the model are those that the store holds now; of every fiftieth also
    whether the state gives the logits that reading these words gives.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    reader = Reader(_model(layers=2, width=16, inner=32, heads=2, key_heads=1).eval(), _letters())
    clock = [_START]
    sizes = random.integers(20, 400, memories)
    popularity = 1.0 / np.arange(1, memories + 1) ** 1.1
    popularity /= popularity.sum()
    order = random.permutation(memories)
    read = whole = asked = stale = wrong = compared = 0
    with tempfile.TemporaryDirectory() as folder, _opened(folder, lambda: clock[0]) as memory:
        texts = [_letters_of(random, int(size)) for size in sizes]
        ids = [memory.add(f"{at}: {text}").ids[0] for at, text in enumerate(texts)]
        size = reader.begin(_OPENING, reader.key).size // len(reader.ids(_OPENING))
        budget = int(sum(len(reader.ids(f"{line(memory.get(id))}\n")) for id in ids) * size // 10)
        states = memory.states(reader, budget=budget, half_life=200.0)
        for step in range(requests):
            clock[0] += timedelta(seconds=1)
            if step == requests // 2:
                order = random.permutation(memories)
            item = int(order[random.choice(memories, p=popularity)])
            if random.random() < 0.10:
                texts[item] = _letters_of(random, int(sizes[item]))
                memory.correct(ids[item], f"{item}: {texts[item]}")
                continue
            asked += 1
            attached = states.attach([ids[item]])
            words = reader.tokenizer.decode(attached.tokens)
            stale += f"{item}: {texts[item]}</memory>" not in words
            opening = len(reader.ids(_OPENING))
            read += len(attached.tokens) - attached.cached
            whole += len(attached.tokens) - opening
            if asked % 50 == 0 and attached.reused:
                compared += 1
                prompt = attached.prompt("?")["input_ids"]
                with torch.no_grad():
                    ours = reader.model(prompt[:, attached.cached :], cache=attached.cache()).logits[0, -1]
                    wrong += not torch.allclose(ours, reader.model(prompt).logits[0, -1], atol=1e-4)
            if asked % TICK == 0:
                states.tick()
    return {
        READ: read / whole,
        "stale reads": float(stale + wrong),
        "states compared with reading afresh": float(compared),
        "requests": float(requests),
    }


# --- inside ---


def _opened(folder: str, clock: Any = None) -> Memory:
    return Memory(
        Path(folder) / "store", user="ana", embedder=None, encoders=(), guard=None, background=False, clock=clock
    )


def _model(*, layers: int, width: int, inner: int, heads: int, key_heads: int, vocabulary: int = 257) -> Any:
    """A model of random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            max_position_embeddings=16_384,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _letters() -> Any:
    """A tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({byte: at for at, byte in enumerate(alphabet)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bare)


def _letters_of(random: np.random.Generator, count: int) -> str:
    """So many letters and blanks."""
    drawn = random.choice(list("abcdefghijklmnopqrstuvwxyz     "), count)
    return "".join(drawn[:-1]).strip().ljust(count - 1, "a") + "."


def _words() -> Any:
    """A tokenizer of the words and signs that the prompts hold."""
    split = pre_tokenizers.Whitespace()
    told = [dict.fromkeys(range(THINGS), value) for value in range(VALUES)]
    prompts = [_OPENING, CLOSE, *(line(cube) for cube in _cubes(told)), *map(_thing, range(THINGS))]
    words = {word for prompt in prompts for word, _ in split.pre_tokenize_str(prompt)} | {_UNKNOWN}
    bare = Tokenizer(models.WordLevel({word: at for at, word in enumerate(sorted(words))}, unk_token=_UNKNOWN))
    bare.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token=_UNKNOWN)
