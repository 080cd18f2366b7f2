"""Which memory skills a span of text needs (MemSkill, arXiv 2602.02474 §3.2): a score for each, and the K best in their order.

The state is the vector of the span beside the mean of those of the memories near it. A controller that was trained (``train``)
scores every skill by the vector of its description, so that skills may come and go; here its weights are read and used without
torch. Where there is none, skills are chosen by the cosine of span and description, or by shared words where nothing embeds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.encode.base import Embedder, Vectors
from holdfast.encode.skills import Skill
from holdfast.errors import InputError, MissingExtraError
from holdfast.taxonomy import Function, MemoryProfile, Modality, Subform, Subject, Trainable

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.SKILLS,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.VECTOR),
    trainable=Trainable.ASSISTED,
)

Floats = npt.NDArray[np.float64]

LEAST = 1e-8
"""What is left of the mass after the first picks is at least this, so that no logarithm runs away."""
MASS, RARE = 0.30, 0.01
"""The share that new skills are given, and the one below which they are not lifted the whole way."""

LAYERS = ("state.0", "state.2", "skill.0", "skill.2", "actor.0", "actor.2", "critic.0", "critic.2")
"""The linear layers of a controller, as its file names them."""
_FORMAT = "holdfast skill controller 1"


def states(spans: Vectors, memories: Sequence[Vectors]) -> Vectors:
    """[span; mean of its memories], shape (spans, 2 d), ``scaled``; zeros where a span has no memory yet."""
    means = [one.mean(axis=0) if len(one) else np.zeros(spans.shape[1], np.float32) for one in memories]
    return scaled(np.concatenate([spans, np.stack(means)], axis=1), spans.shape[1])


def scaled(vectors: Vectors, dimension: int) -> Vectors:
    """Unit vectors as a network takes them, their parts of a size near 1: of parts near 1 / sqrt(d) it sees next to nothing."""
    return np.asarray(vectors * np.sqrt(dimension), np.float32)


def top_k(logits: Floats, k: int) -> tuple[int, ...]:
    """The k highest, the highest first; all of them where there are no more."""
    return tuple(np.argsort(-logits, kind="stable")[:k].tolist())


def gumbel_top_k(logits: Floats, k: int, random: np.random.Generator) -> tuple[int, ...]:
    """k drawn without replacement by the softmax of the logits, in the order in which they were drawn."""
    return top_k(logits + random.gumbel(size=logits.shape), k)


def log_prob(logits: Floats, order: Sequence[int]) -> float:
    """The logarithm of the probability that ``gumbel_top_k`` draws just these in this order."""
    mass = _softmax(logits)[list(order)]
    before = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    return float(np.sum(np.log(np.maximum(mass, LEAST)) - np.log(np.maximum(1.0 - before, LEAST))))


def shift(logits: Floats, new: npt.NDArray[np.bool_], scale: float, mass: float = MASS, rare: float = RARE) -> float:
    """What to add to the logits of new skills so that together they have ``mass`` of the softmax, times ``scale``.

    logit(mass) - logit(p) is exact, where p is what they have: log(mass / p) as in the paper falls short. Never below 0, and no
    more than lifts ``rare`` to ``mass``.
    """
    if not new.any() or new.all() or scale <= 0.0:
        return 0.0
    held = float(_softmax(logits)[new].sum())
    if held >= mass:
        return 0.0
    most = _logit(mass) - _logit(rare)
    return min(_logit(mass) - _logit(max(held, LEAST)), most) * scale


@dataclass(frozen=True, slots=True)
class Controller:
    """A trained controller at work: two small networks, for the state and for a skill, and a score for the pair.

    ``weights``: by layer, its matrix (out, in) and offset. ``embedder``: the model whose vectors it was trained on. Raises
    InputError where layers are missing or do not fit each other.
    """

    weights: Mapping[str, npt.NDArray[np.float32]]
    embedder: str

    def __post_init__(self) -> None:
        wanted = {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}
        if set(self.weights) != wanted or not all(np.isfinite(one).all() for one in self.weights.values()):
            raise InputError("a controller has these layers, of finite numbers, and no others: " + ", ".join(LAYERS))
        hidden = self.weights["state.2.weight"].shape[0]
        d = self.weights["skill.0.weight"].shape[-1]
        shapes = {
            "state.0": (hidden, 2 * d),
            "state.2": (hidden, hidden),
            "skill.0": (hidden, d),
            "skill.2": (hidden, hidden),
            "actor.0": (hidden, 2 * hidden),
            "actor.2": (1, hidden),
            "critic.0": (hidden, hidden),
            "critic.2": (1, hidden),
        }
        for layer, shape in shapes.items():
            if self.weights[f"{layer}.weight"].shape != shape or self.weights[f"{layer}.bias"].shape != shape[:1]:
                raise InputError(f"the layer {layer} of this controller does not fit the others")

    @property
    def dimension(self) -> int:
        """Of the vectors of spans and skills."""
        return int(self.weights["skill.0.weight"].shape[1])

    def logits(self, states: Vectors, skills: Vectors) -> Floats:
        """Scores of shape (states, skills)."""
        hidden = self._read("state", states)
        known = self._read("skill", skills)
        matrix, half = self.weights["actor.0.weight"], hidden.shape[1]
        # The first layer on a pair is the sum of what it does with either half.
        pairs = (hidden @ matrix[:, :half].T)[:, None] + (known @ matrix[:, half:].T)[None]
        seen = np.maximum(pairs + self.weights["actor.0.bias"], 0.0)
        return np.asarray(seen @ self.weights["actor.2.weight"][0] + self.weights["actor.2.bias"], np.float64)

    def values(self, states: Vectors) -> Floats:
        """What the rest of an episode is expected to bring, shape (states,)."""
        seen = np.maximum(self._layer("critic.0", self._read("state", states)), 0.0)
        return np.asarray(self._layer("critic.2", seen)[:, 0], np.float64)

    def save(self, path: Path) -> None:
        """Write the weights as safetensors. Raises MissingExtraError."""
        _need_safetensors()
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {name: np.ascontiguousarray(one, np.float32) for name, one in self.weights.items()}
        save_file(weights, path, {"format": _FORMAT, "embedder": self.embedder})

    @classmethod
    def load(cls, path: Path) -> Controller:
        """Read what ``save`` wrote. Raises InputError, MissingExtraError."""
        _need_safetensors()
        from safetensors import safe_open

        try:
            with safe_open(path, "np") as file:
                held = file.metadata() or {}
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        except Exception as error:  # the library's own errors are of no common kind
            raise InputError(f"{path} cannot be read as a controller: {error}") from error
        if held.get("format") != _FORMAT or any(one.dtype != np.float32 for one in weights.values()):
            raise InputError(f"{path} is no controller of memory skills")
        return cls(weights, held.get("embedder", ""))

    def _read(self, which: str, given: Vectors) -> npt.NDArray[np.float32]:
        first = np.maximum(self._layer(f"{which}.0", given), 0.0)
        return np.maximum(self._layer(f"{which}.2", first), 0.0)

    def _layer(self, name: str, given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(given @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"], np.float32)


@dataclass(frozen=True, slots=True)
class Selector:
    """Chooses skills for spans. Raises InputError where the controller was trained on another model's vectors."""

    embedder: Embedder | None = None
    controller: Controller | None = None
    _known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.controller is None:
            return
        if self.embedder is None:
            raise InputError(f"the controller of these skills needs the embedder {self.controller.embedder}")
        if self.controller.embedder != self.embedder.model or self.controller.dimension != self.embedder.dimension:
            raise InputError(
                f"the controller was trained on vectors of {self.controller.embedder}, not of {self.embedder.model}: train it "
                "anew, or open the memory with that embedder"
            )

    def nearest(self, text: str, memories: Sequence[str], most: int) -> list[int]:
        """The places of the memories most like a text, the nearest first."""
        if not memories:
            return []
        if self.embedder is None:
            alike = np.asarray([_shared(text, one) for one in memories])
        else:
            alike = self._vectors(memories) @ self._vectors([text])[0]
        return list(top_k(alike, most))

    def choose(self, text: str, memories: Sequence[str], skills: Sequence[Skill], k: int) -> tuple[Skill, ...]:
        """The k skills that a text needs most beside the memories that were found for it, the first first."""
        if self.embedder is None:
            scores = np.asarray([_shared(text, skill.description) for skill in skills], np.float64)
            return tuple(skills[at] for at in top_k(scores, k))
        span, described = self._vectors([text]), self._vectors([skill.description for skill in skills])
        if self.controller is None:
            scores = np.asarray(described @ span[0], np.float64)
        else:
            state = states(span, [self._vectors(memories)])
            scores = self.controller.logits(state, scaled(described, described.shape[1]))[0]
        return tuple(skills[at] for at in top_k(scores, k))

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        """The skills and memories of one span are mostly those of the next: each is embedded once."""
        assert self.embedder is not None
        if not texts:
            return np.zeros((0, self.embedder.dimension), np.float32)
        if len(self._known) > _CACHED:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self.embedder.embed(new), strict=True))
        return np.stack([self._known[text] for text in texts])


_CACHED = 10_000
_WORD = re.compile(r"\w{3,}")


def _shared(one: str, other: str) -> float:
    """How many of the words of the shorter text stand in the other, as a share."""
    words = [set(_WORD.findall(text.lower())) for text in (one, other)]
    return len(words[0] & words[1]) / max(1, min(map(len, words)))


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return np.asarray(raised / raised.sum())


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))


def _need_safetensors() -> None:
    if find_spec("safetensors") is None:
        raise MissingExtraError("a controller's file needs the extra: pip install 'holdfast[embed]'")
