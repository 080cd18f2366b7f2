"""What Holdfast costs before it does anything: the time to import it, and the size of a bare install.

python -m benchmarks.footprint ANSWER
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
INTERPRETERS = 10


def import_ms(statement: str) -> dict[str, float]:
    """Median and worst time of an import in fresh interpreters, less what an interpreter takes to start."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    times = [
        1e3 * float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(INTERPRETERS)
    ]
    return {"median": statistics.median(times), "worst": max(times)}


def bare_install() -> dict[str, Any]:
    """Install the package without extras into a fresh environment; count its packages and their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "bare"
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        packages = next(home.glob("lib/python*/site-packages"), home / "Lib" / "site-packages")
        before = _size(packages), _distributions(packages)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile", str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": f"pip could not install it: {done.stderr.strip().splitlines()[-1]}"}
        added = sorted(_distributions(packages) - before[1])
        sizes = {"mb": (_size(packages) - before[0]) / 1e6, "packages": len(added), "names": added}
        subprocess.run([home / "bin" / "python", "-m", "compileall", "-q", packages], check=False, capture_output=True)
        return sizes | {"mb_compiled": (_size(packages) - before[0]) / 1e6}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _distributions(packages: Path) -> set[str]:
    return {found.name.removesuffix(".dist-info") for found in packages.glob("*.dist-info")}


if __name__ == "__main__":
    answer = {
        "import_holdfast_ms": import_ms("import holdfast"),
        "import_memory_ms": import_ms("from holdfast import Memory"),
        "install": bare_install(),
    }
    Path(sys.argv[1]).write_text(json.dumps(answer))
