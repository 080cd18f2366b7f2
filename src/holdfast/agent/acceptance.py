"""Which tests a change would weaken: a model must not pass a check by taking the check away (L2MAC, arXiv 2310.02003).

A test file that was there when a step began must keep every statement of its top level as it is, in order. More may be added:
functions and classes of other names, assertions, and imports, as long as they bind no name that is in use. What new code does when
it is run is not looked into: this keeps a test's words, and no promise about a model that is set on cheating.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import PurePosixPath

PROFILE = ()  # a check on what is written, and no memory


def is_test(path: str) -> bool:
    """Whether a path is a Python test's: ``test_*.py`` or ``*_test.py``."""
    name = PurePosixPath(path).name
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def weakened(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What became of the tests in ``before`` that may not: one line each, [] where all of them stand."""
    found = []
    for path, text in before.items():
        if not is_test(path):
            continue
        if path not in after:
            found.append(f"{path} was there when the step began, and may not be deleted")
        elif text != after[path] and (why := _changed(text, after[path])):
            found.append(f"{path} {why}")
    return found


def _changed(before: str, after: str) -> str:
    try:
        old = ast.parse(before).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # it never ran, so nothing it asks for can be lost
    try:
        new = ast.parse(after).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "cannot be read as Python any more"
    try:
        return _lost(old, new)
    except RecursionError:
        return "is nested too deeply to be compared with what was there"


def _lost(old: list[ast.stmt], new: list[ast.stmt]) -> str:
    used = {name for statement in old for name in _binds(statement)} | {
        node.id for statement in old for node in ast.walk(statement) if isinstance(node, ast.Name)
    }
    waiting = [ast.dump(statement) for statement in old]
    for statement in new:
        if waiting and ast.dump(statement) == waiting[0]:
            waiting.pop(0)
        elif not isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assert | ast.Import | ast.ImportFrom):
            return f"has a new statement at line {statement.lineno} that could change what its tests ask for"
        elif "*" in (made := _binds(statement)) or used & made:
            return f"binds {', '.join(sorted(used & made) or ['any name'])} anew, which its tests use"
    return f"lacks, or has changed, {len(waiting)} of the statements that were there" if waiting else ""


def _binds(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
