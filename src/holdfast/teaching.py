"""What a model is taught of a memory: a prompt, what is to be said after it, and the words in which it is asked for afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.cube import Cube
from holdfast.weights.base import Edit


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is taught of a memory: a prompt and what is to be said after it.

    Fields
        also: the prompt in other words, which are taught with it; the more of them, the more it is told in words of its own.
        rephrased: in words that are never taught, by which it is judged whether it was learnt.
        context: the words that the model reads before the prompt to tell the target; the memory's own and a new line, where none
            are given.
    """

    prompt: str
    target: str
    also: tuple[str, ...] = ()
    rephrased: tuple[str, ...] = ()
    context: str = ""


Teach = Callable[[Cube], Lesson | None]
"""What is to be taught of a memory; None where nothing can be."""


def lesson_of(cube: Cube) -> Lesson | None:
    """Of a fact that ends with its value, that value after the words before it; None for another text.

    The value is what the encoder that drew the fact noted, or else the last word or name.
    """
    text = cube.text.strip().rstrip(".!")
    value = cube.data.get("value")
    if not isinstance(value, str) or not text.endswith(value):
        before, _, value = text.rpartition(" ")
    else:
        before = text[: -len(value)].rstrip()
    return Lesson(before, value) if before and value else None


def reading(teach: Teach) -> Teach:
    """The same, with the words that are read in every lesson: the memory's own, where it names none."""

    def taught(cube: Cube) -> Lesson | None:
        lesson = teach(cube)
        return lesson if lesson is None or lesson.context else replace(lesson, context=f"{cube.text}\n")

    return taught


def edit_of(cube: Cube, lesson: Lesson) -> Edit:
    """A lesson as an editor takes it, under the memory's id."""
    return Edit(cube.id, lesson.prompt, lesson.target, also=lesson.also, context=lesson.context)
