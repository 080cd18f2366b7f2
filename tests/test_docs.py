"""The examples in README.md and docs/ run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast import Memory

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = [
    ("import torch", "torch", "torch"),
    ("distilled_adapter", "peft", "peft"),
    ("holdfast.serve.app", "fastapi", "serve"),
    ("holdfast.serve.mcp", "mcp", "mcp"),
    ("holdfast.adapters", "langgraph", "adapters"),
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, library, extra in NEEDS:
        if words in "".join(BLOCK.findall(page.read_text())):
            pytest.importorskip(library, reason=f"the extra {extra} is not installed")
    names: dict[str, object] = {}
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)
    for made in names.values():  # a page may leave one open, as a program does; its folder is gone now
        if isinstance(made, Memory):
            made.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
