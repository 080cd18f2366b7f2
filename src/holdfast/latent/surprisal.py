"""What surprised the model is kept (SirLLM, arXiv 2405.12528): e_i = -log P(x_i | x_<i), less with every turn.

The published code takes the probability that the current token comes once more, shifted by one; here it is the formula. It also
gives the first token of a block the most of its block, for want of a prediction; here the block before has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.retention import Entries, Needs, Retention, pinned
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Retrieval, Subform, Subject
from holdfast.torched import Tensor, torch

PROFILE = MemoryProfile(
    Form.STATE,
    Subform.REUSED,
    (Function.WORK_MULTI,),
    evolution=(
        Evolution.FORGET_BY_IMPORTANCE,
        Evolution.FORGET_BY_TIME,
    ),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD, Subject.AGENT),
)

SURPRISE = "surprise"


@dataclass(frozen=True, slots=True)
class Surprisal(Retention):
    """A policy for all layers and heads alike. Raises InputError.

    Fields
        sinks: so many of the first entries are pinned.
        recent: so many of the newest are.
        decay: what is left of a surprise after a turn (1: all of it, and nothing is ever too old).
        most: of one block of tokens that is read at once, so many may count as surprising, by default all: noise is nothing but
            surprises, and would take the place of all that was said.
    """

    sinks: int = 4
    recent: int = 0
    decay: float = 1.0
    most: int | None = None

    def __post_init__(self) -> None:
        if (
            self.sinks < 0
            or self.recent < 0
            or not 0.0 < self.decay <= 1.0
            or (self.most is not None and self.most < 1)
        ):
            raise InputError(
                "sinks and recent are 0 or more, the decay lies in (0, 1], and one token or more may surprise"
            )

    @property
    def needs(self) -> Needs:
        """What the model predicted."""
        return Needs(logits=True)

    def observe(self, tokens: Tensor, logits: Tensor, before: Tensor | None) -> Mapping[str, Tensor]:
        """The surprise of each token in nats; that of the very first is the most of its block."""
        told = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        found = torch.zeros(tokens.shape, dtype=torch.float32, device=logits.device)
        found[:, 1:] = -told.gather(-1, tokens[:, 1:, None])[..., 0]
        if before is not None:
            found[:, 0] = -torch.log_softmax(before.float(), dim=-1).gather(-1, tokens[:, :1])[:, 0]
        elif tokens.shape[1] > 1:
            found[:, 0] = found[:, 1:].amax(dim=1)
        if self.most is not None and tokens.shape[1] > self.most:
            least = found.topk(self.most, dim=1).values[:, -1:]
            found = torch.where(found < least, torch.zeros_like(found), found)
        return {SURPRISE: found}

    def score(self, layer: int, entries: Entries, seen: int) -> Tensor:
        """The surprise as it has become."""
        return pinned(entries.notes[SURPRISE], entries, seen, self.sinks, self.recent)

    def turn(self, notes: dict[str, Tensor]) -> None:
        """Every surprise fades by the decay."""
        if SURPRISE in notes:
            notes[SURPRISE] *= self.decay
