"""MoVE (arXiv 2601.22887): value vectors of tokens, in a table that all layers read through gates, lower the loss of a small model.

Two tests. Text: speeches, the last of them held out, told by a small model with the table, without it, and with as many numbers in
a table for each layer. Token facts: every token has an attribute that is asked for a few tokens later; what is measured is how many
attributes of rare tokens are known.

What was found in full, three seeds: 0.17 nats less than without a table. It is not the table's sharing: a table that every layer
reads by an order of its own does a little better. One without the gate on the model's value does hardly better than a table for
each layer. Attributes of rare tokens it knows 9 points more of, where 15 were asked for.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.bench.memory_probes import one_thread
from holdfast.bench.plots import Bars, Lines, draw
from holdfast.claims.base import Check, Result, Scale
from holdfast.errors import ClaimError, MissingExtraError
from holdfast.torched import Tensor, torch
from holdfast.weights.sparse_adam import AdamW
from holdfast.weights.value_bank import ValueBank

try:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

number = 28
name = "move"
statement = (
    "At equal depth, width and steps a gated table of value vectors that all layers share lowers the loss of held-out text by at "
    "least 0.02 nats a token, no less than as many numbers in a table for each layer but 0.005; and it knows at least 15 points "
    "more of the attributes of rare tokens than the model without it."
)
arms = ("shared table", "no table", "a table a layer", "no gate on the value", "rows by lot in each layer")

OURS, NONE, LAYERED, UNSCALED, LOT = arms
LOSS, NEAR, RARE = 0.02, 0.005, 0.15
FILES = ("corpora/state_union.zip", "corpora/inaugural.zip")
RATE, TOKENS, BETAS = 2e-3, 1e-2, (0.9, 0.95)
"""Of the matrices and of the embeddings. Of the tables half of the latter, as nanochat has it: one recipe for all arms."""
TABLE = AdamW(rate=TOKENS / 2, decay=0.01, betas=(0.8, 0.995))
WARM, LEAST, CLIP, HEADS = 0.05, 0.1, 1.0, 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the text: pieces, layers, width, tokens of a row, rows of a batch, steps; of the facts: tokens, attributes, steps."""

    pieces: int
    layers: int
    width: int
    length: int
    batch: int
    steps: int
    tokens: int
    attributes: int
    fact_steps: int
    fact_batch: int
    fact_width: int = 32
    fact_layers: int = 2


SIZES: Mapping[Scale, Sizes] = {
    "quick": Sizes(1024, 2, 48, 64, 8, 150, tokens=1024, attributes=32, fact_steps=150, fact_batch=64),
    "full": Sizes(2048, 3, 96, 64, 16, 500, tokens=2048, attributes=32, fact_steps=600, fact_batch=128),
    "gpu": Sizes(2048, 4, 128, 128, 64, 1500, tokens=2048, attributes=32, fact_steps=3000, fact_batch=256),
}


class ByLot(ValueBank):
    """The control: every layer reads the table by an order of the tokens of its own, so that layers share no token's row."""

    def __init__(self, model: Any, slots: int, seed: int) -> None:
        super().__init__(model, slots)
        g = torch.Generator().manual_seed(seed)
        self.orders = [torch.randperm(self.vocabulary, generator=g) for _ in range(self.layers)]

    def seen_by(self, layer: int, ids: Tensor) -> Tensor | None:
        """What stands at a token in this layer's order."""
        return self.orders[layer][ids]


Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Rows of tokens, shape (B, T), and labels of the same shape: what is told at each place by the tokens before it."""


def run(scale: Scale, seed: int, data: Path | None) -> Result:
    """Both tests; weights and batches are drawn by ``seed``."""
    sizes = SIZES[scale]
    with one_thread():
        train, held = speeches(data, sizes.pieces)
        text = {arm: _told(arm, sizes, train, held, seed) for arm in arms}
        facts = TokenFacts(sizes, seed)
        known = {arm: _known(arm, sizes, facts, seed) for arm in (OURS, NONE, LAYERED)}
    measured = {
        arm: {
            "nats a token": one.loss,
            "parameters of the table": one.table,
            "operations a token, more by": one.flops,
            "seconds a step": one.seconds,
            **{f"attributes of {which} tokens": share for which, share in known.get(arm, {}).items()},
        }
        for arm, one in text.items()
    }
    checks = (
        Check("held-out nats a token, no table less shared", text[NONE].loss - text[OURS].loss, LOSS),
        Check("held-out nats a token, shared less a table a layer", text[OURS].loss - text[LAYERED].loss, NEAR, False),
        Check(
            "attributes of the rarer half of tokens, shared less none", known[OURS]["rare"] - known[NONE]["rare"], RARE
        ),
    )
    settings = {
        "data": list(FILES),
        "tokens to learn from": len(train),
        "tokens held out": len(held),
        "passes over the text": sizes.steps * sizes.batch * sizes.length / len(train),
        "pieces": sizes.pieces,
        "layers": sizes.layers,
        "slots": sizes.layers,
        "width": sizes.width,
        "length": sizes.length,
        "batch": sizes.batch,
        "steps": sizes.steps,
        "learning rates": {"matrices": RATE, "embeddings": TOKENS, "tables": TABLE.rate},
        "facts": {
            "tokens": sizes.tokens,
            "attributes": sizes.attributes,
            "steps": sizes.fact_steps,
            "batch": sizes.fact_batch,
        },
        "scale": scale,
    }
    notes = (
        "one recipe for all arms; the rates of tables and embeddings are in the proportion that nanochat has",
        "a table for each layer has as many numbers as the shared one: one slot a layer",
        "tables begin at zero, so that every arm begins as the model without",
    )
    series = {"curves": {arm: [one.steps, one.curve] for arm, one in text.items()}, "facts": known}
    return Result(measured, checks, settings, series, notes)


def plot(result: Result, path: Path) -> None:
    """The held-out loss as it falls, its end, and what is known of rare tokens."""
    curves = {arm: (xs, ys) for arm, (xs, ys) in result.series["curves"].items()}
    losses = {arm: result.arms[arm]["nats a token"] for arm in arms}
    low = min(losses.values()) - 0.1
    rare = {arm: one["rare"] for arm, one in result.series["facts"].items()}
    draw(
        path,
        [
            Lines(curves, title="Held-out text", x_label="steps", y_label="nats a token", ours=[OURS]),
            Bars(
                losses,
                title="At the end",
                label="nats a token",
                ours=[OURS],
                controls=[LOT],
                required=losses[NONE] - LOSS,
                at_least=False,
                limits=(low, max(losses.values()) + 0.1),
            ),
            Bars(rare, title="Attributes of rare tokens", ours=[OURS], required=rare[NONE] + RARE, percent=True),
        ],
        title="A shared table of value vectors",
        subtitle=f"Speeches, {result.settings['layers']} layers of width {result.settings['width']}, equal steps",
    )


def speeches(data: Path | None, pieces: int) -> tuple[Tensor, Tensor]:
    """Tokens to learn from, and those of the last tenth. Raises ClaimError."""
    files = [] if data is None else [data / one for one in FILES]
    if not files or not all(one.is_file() for one in files):
        raise ClaimError(
            f"claim {number} needs {' and '.join(FILES)} (speeches, public domain): give their folder with --data"
        )
    texts = []
    for file in files:
        with zipfile.ZipFile(file) as opened:
            names = sorted(one for one in opened.namelist() if one.endswith(".txt"))
            texts += [(Path(one).name, opened.read(one).decode("utf-8", "replace")) for one in names]
    texts.sort()  # by year: what is held out is newer than what is learnt
    cut = round(0.9 * len(texts))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([text for _, text in texts[:cut]], trainer)
    ids = [
        torch.tensor([id for _, text in part for id in tokenizer.encode(text).ids])
        for part in (texts[:cut], texts[cut:])
    ]
    return ids[0], ids[1]


class TokenFacts:
    """Rows of tokens, each of which is asked for the attribute of one of them, one to eight tokens later.

    Tokens are drawn by rank, 1 / (rank + 10). A row is eight tokens, the question, and the attribute of the one that stands so far
    back as the question says.
    """

    def __init__(self, sizes: Sizes, seed: int) -> None:
        random = np.random.default_rng([seed, 2])
        self.tokens, self.attributes = sizes.tokens, sizes.attributes
        self.of = torch.from_numpy(random.integers(0, sizes.attributes, sizes.tokens))
        chance = 1 / (np.arange(sizes.tokens) + 10)
        self._chance = torch.from_numpy(chance / chance.sum())
        self.vocabulary = sizes.tokens + 8 + sizes.attributes

    def drawn(self, rows: int, g: torch.Generator, asked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows and labels; ``asked``: the tokens that are asked for, by lot where it is None."""
        tokens = torch.multinomial(self._chance, rows * 8, replacement=True, generator=g).view(rows, 8)
        back = torch.randint(1, 9, (rows,), generator=g)
        here = torch.arange(rows)
        if asked is not None:
            tokens[here, 8 - back] = asked
        told = self.tokens + 8 + self.of[tokens[here, 8 - back]]
        question = self.tokens + back - 1
        ids = torch.cat([tokens, question[:, None], told[:, None]], dim=1)
        labels = torch.full_like(ids, -100)
        labels[:, -1] = told
        return ids, labels


@dataclass(frozen=True, slots=True)
class Told:
    """Of one arm on text: held-out nats a token at the end and on the way, numbers in the table, operations, seconds a step."""

    loss: float
    steps: list[int]
    curve: list[float]
    table: float
    flops: float
    seconds: float


def _told(arm: str, sizes: Sizes, train: Tensor, held: Tensor, seed: int) -> Told:
    model = _model(sizes.pieces, sizes.layers, sizes.width, sizes.length, seed)
    bank = bank_of(arm, model, sizes.layers, seed)
    g = torch.Generator().manual_seed(seed)
    window = torch.arange(sizes.length + 1)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(sizes.steps):
            starts = torch.randint(len(train) - sizes.length, (sizes.batch,), generator=g)
            rows = train[starts[:, None] + window]
            yield rows, rows

    rows = held[: len(held) // (sizes.length + 1) * (sizes.length + 1)].view(-1, sizes.length + 1)
    rows = rows[:: max(1, len(rows) // 256)]  # spread over all that is held out
    began, steps, curve = time.process_time(), [], []
    spent = 0.0
    for step in trained(model, bank, batches, sizes.steps):
        if step % max(1, sizes.steps // 5) == 0 or step == sizes.steps:
            spent += time.process_time() - began
            steps.append(step)
            curve.append(_loss(model, bank, rows))
            began = time.process_time()
    more = 0.0 if bank is None else float(bank.flops(sizes.width))
    return Told(curve[-1], steps, curve, 0.0 if bank is None else float(bank.size), more, spent / sizes.steps)


def _known(arm: str, sizes: Sizes, facts: TokenFacts, seed: int) -> dict[str, float]:
    """The share of attributes that are told, of the commoner and of the rarer half of the tokens."""
    model = _model(facts.vocabulary, sizes.fact_layers, sizes.fact_width, 9, seed)
    bank = bank_of(arm, model, sizes.fact_layers, seed)
    g = torch.Generator().manual_seed(seed)
    batches = lambda: (facts.drawn(sizes.fact_batch, g) for _ in range(sizes.fact_steps))  # noqa: E731
    for _ in trained(model, bank, batches, sizes.fact_steps):
        pass
    asked = torch.arange(sizes.tokens).repeat(2)
    ids, _ = facts.drawn(len(asked), torch.Generator().manual_seed(seed + 1), asked)
    with torch.no_grad(), _with(bank, model):
        said = [model(some[:, :-1], use_cache=False).logits[:, -1].argmax(-1) for some in ids.split(256)]
    known, rare = (torch.cat(said) == ids[:, -1]).float(), asked >= sizes.tokens // 2
    return {"common": float(known[~rare].mean()), "rare": float(known[rare].mean())}


def _model(vocabulary: int, layers: int, width: int, length: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=int(8 * width / 3),
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=length + 1,
        initializer_range=width**-0.5 / 2,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def bank_of(arm: str, model: Any, layers: int, seed: int) -> ValueBank | None:
    """The bank of an arm: all of them have as many numbers."""
    made: dict[str, Callable[[], ValueBank | None]] = {
        OURS: lambda: ValueBank(model, layers),
        NONE: lambda: None,
        LAYERED: lambda: ValueBank(model, 1, shared=False, scaled=False),
        UNSCALED: lambda: ValueBank(model, layers, scaled=False),
        LOT: lambda: ByLot(model, layers, seed),
    }
    return made[arm]()


def trained(model: Any, bank: ValueBank | None, batches: Batches, steps: int) -> Iterator[int]:
    """Train model and bank together, by one recipe; the number of each step as it is done."""
    tokens = {id(model.get_input_embeddings().weight)}
    matrices = [one for one in model.parameters() if id(one) not in tokens]
    gates = [] if bank is None else [*bank.gates.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices + gates, "lr": RATE, "weight_decay": 0.01},
            {"params": [model.get_input_embeddings().weight], "lr": TOKENS, "weight_decay": 0.01},
        ],
        betas=BETAS,
    )
    warm = max(1, round(WARM * steps))

    def share(at: int) -> float:
        left = (at - warm) / max(1, steps - warm)
        return (at + 1) / warm if at < warm else LEAST + (1 - LEAST) * 0.5 * (1 + float(np.cos(np.pi * left)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    for step, (ids, labels) in enumerate(batches(), 1):
        model.train()
        optimiser.zero_grad()
        with _with(bank, model):
            logits = model(ids[:, :-1], use_cache=False).logits
        told = labels[:, 1:] != -100
        torch.nn.functional.cross_entropy(logits[told], labels[:, 1:][told]).backward()
        rows = [] if bank is None else bank.waiting()
        torch.nn.utils.clip_grad_norm_([*matrices, *gates, model.get_input_embeddings().weight, *rows], CLIP)
        now = share(step - 1)
        optimiser.step()
        schedule.step()
        if bank is not None:
            bank.step(TABLE, now)
            bank.rebind(model)
        model.eval()
        yield step


@torch.no_grad()  # type: ignore[untyped-decorator]
def _loss(model: Any, bank: ValueBank | None, rows: Tensor) -> float:
    """Nats a token, in all rows."""
    found = []
    with _with(bank, model):
        for some in rows.split(64):
            logits = model(some[:, :-1], use_cache=False).logits
            found.append(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none")
            )
    return float(torch.cat(found).mean())


def _with(bank: ValueBank | None, model: Any) -> Any:
    return nullcontext() if bank is None else bank.attach(model)
