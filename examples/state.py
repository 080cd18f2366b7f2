"""A model that keeps a conversation as state: memories as KV caches on disk, and a stream past its window under a budget.

    pip install 'holdfast[torch,embed]'
    python examples/state.py --model ./a-causal-model --store ./talk.holdfast

`--model` names a causal model of transformers with its tokenizer, in a folder (nothing is fetched). Without one a small model of
random weights is made: it babbles, but what is shown holds for it too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from holdfast import Memory
from holdfast.latent.reader import Reader
from holdfast.latent.streaming import StreamingCache
from holdfast.latent.surprisal import Surprisal

TALK = (
    "I moved to Lisbon in May, and the flat is on the fourth floor.",
    "My sister Ida keeps bees on the roof. She gave me nine jars of honey.",
    "The door code of the office is 4711, and it changes on Mondays.",
    "On Fridays I play chess with Tom at the café by the river.",
)
QUESTION = "Where do I live, and who keeps bees?"


def main() -> None:
    """Keep a talk as state, ask by it and afresh, forget a part of it; then read on and on in a bounded cache."""
    options = _options()
    model, tokenizer = _model(options.model)
    with tempfile.TemporaryDirectory() as folder, Memory(options.store or f"{folder}/talk", user="ana") as memory:
        remember(memory, Reader(model, tokenizer), options.tokens)
    stream(model, tokenizer, options.budget, options.tokens)


def remember(memory: Memory, reader: Reader, tokens: int) -> None:
    """The talk is read once; whoever asks later, and in another program, does not read it again."""
    said = [id for line in TALK for added in (memory.add(line),) for id in (*added.ids, *added.duplicates)]
    kept = memory.promote(said, to="state", model=reader)
    print(f"{len(kept)} memories are kept as state: {sum(cube.data['bytes'] for cube in kept) / 1e6:.1f} MB on disk")

    began = time.perf_counter()
    attached = memory.attach(said, model=reader)
    prompt = attached.prompt(QUESTION)
    by_state = answer(reader, prompt, tokens, cache=attached.cache())
    took = time.perf_counter() - began
    began = time.perf_counter()
    afresh = answer(reader, prompt, tokens)
    again = time.perf_counter() - began
    print(f"asked by state ({attached.cached} of {prompt['input_ids'].shape[1]} tokens not read): {took:.2f} s")
    print(f"asked afresh: {again:.2f} s, and the answer is {'the same' if by_state == afresh else 'another one'}")
    print(f"  {by_state!r}")

    receipt = memory.forget(said[1], reason="it was Ida's to tell").verify()
    left = len(memory.states(reader).kept)
    print(
        f"forgotten: 1 memory and {len(receipt.derived)} things that were made of it; {left} of {len(kept)} states are left"
    )


def answer(reader: Reader, prompt: dict[str, Any], tokens: int, **given: Any) -> str:
    """What the model says to a prompt, greedily."""
    told = reader.model.generate(**prompt, **given, max_new_tokens=tokens, do_sample=False)
    return str(reader.tokenizer.decode(told[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


def stream(model: Any, tokenizer: Any, budget: int, tokens: int) -> None:
    """A talk without end in a cache of bounded length: what surprised the model stays."""
    cache = StreamingCache(model, Surprisal(sinks=4, decay=0.9), budget=budget, reindex=True)
    last = torch.empty(1, 0, dtype=torch.long)
    with cache.attached(model):
        for line in TALK * 3:
            turn = tokenizer(f"{line}\n", return_tensors="pt", add_special_tokens=False)["input_ids"]
            told = model.generate(
                **cache.prompt(torch.cat([last, turn], dim=1)), cache=cache, max_new_tokens=tokens, do_sample=False
            )
            last = told[:, -1:]
            cache.end_turn()
    print(f"streamed {cache.seen} tokens through a cache of {cache.layers[0].keys.shape[-2]}")


def _model(folder: Path | None) -> tuple[Any, Any]:
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = Tokenizer(models.BPE({byte: at for at, byte in enumerate(alphabet)}, []))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval(), PreTrainedTokenizerFast(tokenizer_object=letters)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a causal model with its tokenizer")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="where to keep the talk (default: nowhere)")
    parser.add_argument("--budget", type=int, default=256, help="entries of the bounded cache (default 256)")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to say at a time (default 24)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
