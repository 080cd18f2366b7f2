"""What certainly fits a schema is let through quickly: never what jsonschema would not."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from holdfast.encode.schemas import _plainly_fits, misfits
from holdfast.encode.writing import TEXT, texts

words = st.sampled_from(["", "a", "ab", "tea"])
numbers = st.integers(-2, 3) | st.just(1.0) | st.booleans() | words
leaves = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "boolean", "number", "null", "nothing"])},
    optional={
        "minLength": numbers,
        "minimum": numbers,
        "maximum": numbers,
        "enum": st.lists(words, max_size=2) | words,
        "description": words | numbers,
        "pattern": st.just("a"),
        "const": st.just("a"),
    },
)
words_alone = st.fixed_dictionaries({"enum": st.lists(words, max_size=3)}, optional={"minLength": numbers})
schemas: st.SearchStrategy[Any] = st.recursive(
    leaves | words_alone,
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("array")}, optional={"items": inner, "minItems": numbers, "maxItems": numbers}
        )
        | st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(words, inner, max_size=2),
                "required": st.lists(words, max_size=2),
                "additionalProperties": st.booleans() | inner,
            },
        )
    ),
    max_leaves=4,
)
values: st.SearchStrategy[Any] = st.recursive(
    words | numbers | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@given(values, schemas)
def test_what_certainly_fits_has_no_misfits(value: Any, schema: dict[str, Any]) -> None:
    if _plainly_fits(value, schema):
        Draft202012Validator.check_schema(schema)
        assert Draft202012Validator(schema).is_valid(value)


def test_what_recipes_ask_for_is_seen_to_fit() -> None:
    count = {"type": "integer", "minimum": 1, "maximum": 10}
    fields = {
        "kind": TEXT,
        "tips": texts(1, 2),
        "scores": {"type": "array", "items": count},
        "done": {"type": "boolean"},
    }
    schema = {"title": "t", "type": "object", "properties": fields, "required": ["kind"], "additionalProperties": False}
    good = {"kind": "a", "tips": ["b"], "scores": [1, 10], "done": False}
    assert _plainly_fits(good, schema) and _plainly_fits({"kind": "a", "scores": []}, schema)
    for wrong, rule in (
        ({}, "required"),
        ({**good, "kind": ""}, "minLength"),
        ({**good, "tips": ["b"] * 3}, "maxItems"),
        ({**good, "scores": [0]}, "minimum"),
        ({**good, "scores": [True]}, "type"),
        ({**good, "more": 1}, "additionalProperties"),
    ):
        assert not _plainly_fits(wrong, schema) and [one.rule for one in misfits(wrong, schema)] == [rule]


def test_a_schema_that_is_none_fits_nothing() -> None:
    for schema in ({"type": "array", "minItems": -1}, {"type": "object", "required": ["a", "a"]}, {"type": "thing"}):
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError:
            pass
        else:
            raise AssertionError(schema)
        assert not any(_plainly_fits(value, schema) for value in ([], [1], {}, {"a": 1}))
