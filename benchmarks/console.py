"""How fast the web console is on this machine: first paint, and frames while a long timeline is scrolled.

    python -m benchmarks.console --memories 100000

Needs the extra ``serve``, playwright and a Chromium (``CHROMIUM``, else /usr/bin/chromium). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Page, sync_playwright

from holdfast import Memory
from holdfast.serve.app import create_app
from holdfast.serve.limits import Limits

_ARGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"
_WORDS = "ferry harbour invoice oboe garden meeting train recipe balcony choir lecture passport bicycle dentist".split()

_SCROLL = """async ({rows, passes}) => {
    const view = document.querySelector(".viewport");
    const frames = [], long = [];
    const seen = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)));
    seen.observe({type: "longtask"});
    await new Promise(requestAnimationFrame);
    let before = performance.now();
    for (let n = 0; n < rows * passes; n++) {
        view.scrollTop += 40;
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        frames.push(now - before);
        before = now;
    }
    seen.disconnect();
    return {frames, long, rows: document.querySelectorAll(".line").length};
}"""


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--height", type=int, default=900, help="of the window, in pixels; 2600 shows 60 rows at once")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        memory = Memory(Path(home) / "s", user="ana", embedder=None, encoders=(), background=False, durability="normal")
        for start in range(0, args.memories, 10_000):
            some = range(start, min(start + 10_000, args.memories))
            memory.add([f"{_WORDS[n % 14]} {_WORDS[n // 14 % 14]} note number {n}" for n in some])
        memory.access.enrol("desk")
        memory.access.grant("desk", "default/ana", ["read", "write", "judge", "erase"])
        key = memory.access.issue("desk")
        app = create_app(memory, secrets.token_urlsafe(32), limits=Limits(rate=0))
        place = socket.socket()
        place.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        threading.Thread(target=server.run, args=([place],), daemon=True).start()
        while not server.started:
            time.sleep(0.01)
        address = f"http://127.0.0.1:{place.getsockname()[1]}/"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=_ARGS.split()
            )
            told = _measured(browser.new_page(viewport={"width": 1280, "height": args.height}), address, key, args.runs)
            browser.close()
        server.should_exit = True
        print(json.dumps({"memories": args.memories, **told}, indent=2))
        memory.close()


def _measured(page: Page, address: str, key: str, runs: int) -> dict[str, Any]:
    page.goto(address)
    page.get_by_label("Key").fill(key)
    page.get_by_label("User").fill("ana")
    page.get_by_role("button", name="Enter").click()
    page.locator("#app[data-ready=search]").wait_for()
    paints, ready = [], []
    for _ in range(runs):
        page.goto("about:blank")
        page.goto(f"{address}#/timeline")
        page.locator("#app[data-ready=timeline]").wait_for()
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        ready.append(page.evaluate("performance.getEntriesByName('holdfast-timeline')[0].startTime"))
    scrolls = [page.evaluate(_SCROLL, {"rows": 60, "passes": 1}) for _ in range(runs)]
    frames = [frame for one in scrolls for frame in one["frames"]]
    through = page.evaluate(_SCROLL, {"rows": 60, "passes": 20})
    return {
        "first_contentful_paint_ms": {"median": statistics.median(paints), "worst": max(paints)},
        "timeline_ready_ms": {"median": statistics.median(ready), "worst": max(ready)},
        "scroll_60_rows": {
            "frames": len(frames),
            "median_ms": statistics.median(frames),
            "worst_ms": max(frames),
            "long_tasks": sum(len(one["long"]) for one in scrolls),
        },
        "scroll_1200_rows": {
            "median_ms": statistics.median(through["frames"]),
            "worst_ms": max(through["frames"]),
            "long_tasks": len(through["long"]),
        },
        "rows_in_the_page": through["rows"],
    }


if __name__ == "__main__":
    main()
