"""The evaluators of a run (L2MAC, arXiv 2310.02003, Algorithm 1: E): what is wrong with its files, in lines a model can act upon.

Each looks at all files and names what it found by path. Code is parsed here and run only in the sandbox. A test shares its process
with the code that it tests, as tests do, so its word is as good as that code is honest; neither of them can leave the sandbox.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.agent.acceptance import is_test
from holdfast.agent.sandbox import Sandbox

PROFILE = ()  # checks on what is written, and no memory


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the file (and test) where it is, and what it is, in one line."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Evaluator(Protocol):
    """Judges the files of a run. What it says depends on the files alone."""

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """The faults of some files, by path; [] where all is well."""
        ...


@dataclass(frozen=True, slots=True)
class PythonSyntax:
    """Every ``.py`` file can be parsed."""

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``."""
        return [
            Finding(path, what) for path, text in files.items() if path.endswith(".py") and (what := unparsable(text))
        ]


def unparsable(text: str) -> str:
    """Why a text is no Python, in one line; "" where it is."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        return f"SyntaxError: {error.msg} (line {error.lineno}: {(error.text or '').strip()[:60]})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"cannot be parsed: {type(error).__name__}"
    return ""


@dataclass(frozen=True, slots=True)
class PythonTests:
    """Every ``test_`` function in a test file runs without an error, in the sandbox; ``needed``: there is at least one.

    Plain functions with assertions, without fixtures; a test file without one is a fault. A test that gave no result counts as
    failed, whatever the run's status. A file with broken syntax is not run: that is ``PythonSyntax``'s to say.
    """

    sandbox: Sandbox = field(default_factory=Sandbox)
    needed: bool = False

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``. Raises SandboxError where code cannot be run as safely as demanded."""
        named = {path: _tests(text) for path, text in sorted(files.items()) if is_test(path) and not unparsable(text)}
        found = [
            Finding(path, "has no function test_*; classes are not looked into") for path, of in named.items() if not of
        ]
        tests = [(path, name) for path, of in named.items() for name in of]
        if not tests:
            none = [Finding("tests", "there is none; write test_*.py with functions test_*")] if self.needed else []
            return found or none
        code = {path: text for path, text in files.items() if path.endswith(".py")}
        results, ended = run_functions(code, tests, self.sandbox)
        for path, name in tests:
            what = results.get((path, name), f"gave no result ({ended})")
            if what:
                found.append(Finding(f"{path}::{name}", what))
        return found


def _tests(text: str) -> list[str]:
    return list(
        dict.fromkeys(
            node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"
        )
    )


def run_functions(
    code: Mapping[str, str], functions: list[tuple[str, str]], sandbox: Sandbox
) -> tuple[dict[tuple[str, str], str], str]:
    """Call functions of Python files, each in turn, in one sandbox: what each raised ("" for nothing), and how the run ended.

    A function without an entry gave no result.
    """
    nonce = secrets.token_hex(16)
    done = sandbox.run(f"told = {[dict(code), functions, nonce]!r}\n{_RUNNER}")
    results: dict[tuple[str, str], str] = {}
    for line in done.output.splitlines():
        mark, _, said = line.rpartition(nonce)
        if not said or mark.strip():
            continue
        try:
            number, what = json.loads(said)
            results[functions[number]] = str(what)[:300]
        except (ValueError, TypeError, IndexError):
            continue
    ended = done.ended if done.ended != "finished" else f"status {done.status}"
    return results, ended


_RUNNER = """
def run(files, functions, nonce):
    import importlib.util, json, linecache, os, sys, traceback
    for path, text in files.items():
        if "/" in path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    sys.path.insert(0, os.getcwd())
    write, dumps, modules = sys.stdout.write, json.dumps, {}
    def say(number, what):
        write(nonce + dumps([number, what]) + "\\n")
        sys.stdout.flush()
    def told(error):
        words = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if frame.filename.startswith(os.getcwd())]
        if inside:
            last = inside[-1]
            words += f" ({os.path.relpath(last.filename)} line {last.lineno}: {last.line[:80]})"
        # The folder is another one each time, and what is said shall depend on the files alone.
        return words.replace(os.getcwd() + os.sep, "")
    for number, (path, name) in enumerate(functions):
        try:
            if path not in modules:
                stem = path[:-3].replace("/", ".")
                spec = importlib.util.spec_from_file_location(stem, os.path.abspath(path))
                module = importlib.util.module_from_spec(spec)
                sys.modules.setdefault(stem, module)
                try:
                    spec.loader.exec_module(module)
                    modules[path] = module
                except BaseException as error:
                    modules[path] = error
            if isinstance(modules[path], BaseException):
                raise modules[path]
            getattr(modules[path], name)()
        except BaseException as error:
            say(number, told(error)[:300] or "failed")
        else:
            say(number, "")
run(*told)
"""


@dataclass(frozen=True, slots=True)
class SectionsPresent:
    """A Markdown file holds these headings, in this order."""

    path: str
    headings: tuple[str, ...]

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``."""
        if self.path not in files:
            return [Finding(self.path, "is missing")]
        there = [match[1].strip() for match in _HEADING.finditer(files[self.path])]
        found, at = [], 0
        for heading in self.headings:
            if heading in there[at:]:
                at = there.index(heading, at) + 1
            else:
                found.append(
                    Finding(self.path, f"lacks the section {heading!r}" + (" in its place" if heading in there else ""))
                )
        return found


_HEADING = re.compile(r"^#{1,6}[ \t]+([^\n]*?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CrossReferences:
    """Links in Markdown files lead to a file that is there, and to a heading in it where they name one.

    Links are ``[words](path#heading)``, headings as GitHub names them: in lower case, hyphens for spaces, without other marks.
    Addresses with a scheme are not looked at.
    """

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``."""
        headings = {path: _anchors(text) for path, text in files.items() if path.endswith(".md")}
        found = []
        for path in sorted(headings):
            for link in _LINK.findall(_FENCED.sub("", files[path])):
                target, _, anchor = link.partition("#")
                place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
                if _SCHEME.match(link):
                    continue
                if place not in files:
                    found.append(Finding(path, f"links to {target}, which is not there"))
                elif anchor and place in headings and anchor.lower() not in headings[place]:
                    found.append(Finding(path, f"links to {link}, and {place} has no such heading"))
        return found


_LINK = re.compile(r"\]\(([^()\s]+)\)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    headings = [match[1] for match in _HEADING.finditer(_FENCED.sub("", text))]
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@dataclass(frozen=True, slots=True)
class WordCount:
    """A file has at least and at most so many words."""

    path: str
    least: int = 0
    most: int | None = None

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``."""
        words = len(files.get(self.path, "").split())
        if words < self.least:
            return [Finding(self.path, f"has {words} words, at least {self.least} are needed")]
        if self.most is not None and words > self.most:
            return [Finding(self.path, f"has {words} words, at most {self.most} are allowed")]
        return []


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A JSON file fits a JSON Schema. Needs the extra ``llm`` (MissingExtraError); InputError for what is no schema."""

    path: str
    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        from holdfast.encode.schemas import usable

        usable(self.schema)

    def evaluate(self, files: Mapping[str, str]) -> list[Finding]:
        """See ``Evaluator``. Names five misfits at most."""
        from holdfast.encode.schemas import misfits

        if self.path not in files:
            return [Finding(self.path, "is missing")]
        try:
            value = json.loads(files[self.path])
        except (ValueError, RecursionError) as error:
            return [Finding(self.path, f"is no JSON: {error}")]
        return [Finding(self.path, str(one)) for one in misfits(value, self.schema)]
