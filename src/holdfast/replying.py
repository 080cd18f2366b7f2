"""A question answered from memory in whichever form is cheapest and still holds: weights, state inside the model, or text.

A fact in weights costs the reading of the question alone, a memory as state what stands between it and the question, a memory as
text all of it. Two must agree before weights answer: recall, which finds the memory for the question, and the model's own route,
which knows the question for one that it was taught. Everything else is answered from what was recalled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.cube import Cube, Form
from holdfast.errors import InputError, NotFoundError
from holdfast.imprint import Imprint
from holdfast.keeping import recallable
from holdfast.latent.reader import Reader
from holdfast.retrieve.hits import Hit
from holdfast.states import States
from holdfast.store.sql import SqlStore
from holdfast.torched import torch
from holdfast.weights.prompts import tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said.

    Fields
        text: the answer.
        form: of the memory that it is from.
        cubes: the memories, as text, that it rests on: lineage, whatever the form.
        read: tokens that had to be read for it.
    """

    text: str
    form: Form
    cubes: tuple[Cube, ...]
    read: int


def reply(
    store: SqlStore,
    question: str,
    hits: Sequence[Hit],
    reader: Reader,
    states: States,
    imprint: Imprint | None,
    length: int,
) -> Reply:
    """Answer greedily with at most ``length`` tokens. ``hits``: what was recalled for the question, best first.

    Raises InputError where the imprint is in another model than the reader's, or belongs to another scope than the states.
    """
    if imprint is None:
        return _from_context(question, hits, reader, states, length)
    if imprint.editor.model is not reader.model:
        raise InputError("these facts are in another model than the one that is to answer")
    imprint.load()
    told = _from_weights(store, question, hits, imprint, length)
    if told is not None:
        return told
    with imprint.editor.apart():  # what is read by a model with edits on is no state of the model
        return _from_context(question, hits, reader, states, length)


def _from_weights(store: SqlStore, question: str, hits: Sequence[Hit], imprint: Imprint, length: int) -> Reply | None:
    """Where a memory that was recalled is one that the model knows the question for; None elsewhere."""
    editor = imprint.editor
    ids = torch.tensor([tokens(editor.tokenizer, question)], device=editor.model.device)
    route = editor.route(ids)
    if route.memory is None:
        return None
    taught = set(editor.taught_in(route.memory))
    found = [hit.id for hit in hits if hit.id in taught and hit.id in imprint.facts]
    if not found:
        return None
    try:
        cube = recallable(store, imprint.scope, found[0])
    except NotFoundError:  # gone since it was recalled
        return None
    with editor.on():
        text = _said(editor.model, editor.tokenizer, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, length)
    return Reply(text, Form.WEIGHTS, (cube,), ids.shape[1])


def _from_context(question: str, hits: Sequence[Hit], reader: Reader, states: States, length: int) -> Reply:
    attached = states.attach([hit.id for hit in hits])
    prompt = attached.prompt(question)
    text = _said(reader.model, reader.tokenizer, prompt, length, cache=attached.cache())
    form = Form.STATE if attached.reused else Form.TEXT
    return Reply(text, form, attached.cubes, prompt["input_ids"].shape[1] - (attached.cached if attached.reused else 0))


def _said(model: Any, tokenizer: Any, prompt: dict[str, Any], length: int, **given: Any) -> str:
    said = model.generate(**prompt, **given, max_new_tokens=length, do_sample=False)
    return str(tokenizer.decode(said[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
