"""``python -m fuzz``: every target under atheris for some seconds; exits 1 where one found something.

What was found lies under ``out/fuzz/NAME`` as the input that shows it; ``python -m fuzz --target NAME FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.base import Target

FOUND = Path("out/fuzz")
LONGEST = 2_000
"""Bytes of an input: what is slow only when it is long is ``fuzz.slow``'s business."""


def main() -> int:
    """Run one target in this process, or each in one of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--target", metavar="NAME", help="only this one")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("inputs", nargs="*", type=Path, metavar="FILE", help="run the target on these and nothing else")
    args = parser.parse_args()
    if args.target:
        return _one(args.target, args.seconds, args.seed, args.inputs)
    from fuzz.catalogue import TARGETS

    if args.list:
        print(*(f"{name:12} {target.check.__doc__}" for name, target in TARGETS.items()), sep="\n")
        return 0
    options = ["--seconds", str(args.seconds), "--seed", str(args.seed)]
    failed = [
        name
        for name in TARGETS
        if subprocess.run([sys.executable, "-m", "fuzz", "--target", name, *options], check=False).returncode
    ]
    print(
        f"{len(TARGETS)} targets, {args.seconds} s each: {', '.join(failed) + ' found something' if failed else 'all hold'}"
    )
    return 1 if failed else 0


def _one(name: str, seconds: int, seed: int, inputs: list[Path]) -> int:
    try:
        import atheris
    except ImportError:
        print("fuzzing needs the extra: pip install 'holdfast[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["holdfast", "fuzz"]):
        from fuzz.catalogue import TARGETS
    if name not in TARGETS:
        print(f"there is no target {name!r}; see: python -m fuzz --list", file=sys.stderr)
        return 2
    target = TARGETS[name]
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    (found / "corpus").mkdir(exist_ok=True)
    for number, text in enumerate(seeds(target, seed)):
        (found / "corpus" / f"seed-{number}").write_bytes(text.encode("utf-8"))
    dictionary = found / "words.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))

    def check(data: bytes) -> None:
        target.check(data.decode("utf-8", "surrogateescape" if data[:1] == b"\xff" else "ignore"))

    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-seed={seed}", f"-dict={dictionary}"]
    options += [f"-artifact_prefix={found}/", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    where = [str(some) for some in inputs] or [str(found / "corpus")]
    atheris.Setup([sys.argv[0], *options, *where], check)
    atheris.Fuzz()
    return 0


def seeds(target: Target, seed: int, count: int = 300) -> list[str]:
    """Texts of a target's words to begin with, without half pairs, which are no bytes; the frame stands around every other."""
    rng = random.Random(seed)
    begin, between, end = target.frame
    texts = []
    for number in range(count):
        some = rng.choices(target.words, k=rng.choice((1, 2, 3, 6)))
        texts.append(begin + between.join(some) + end if number % 2 else "".join(some))
    return [text for text in texts if text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text)]


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    sys.exit(main())
