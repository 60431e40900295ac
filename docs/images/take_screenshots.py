"""Take the pictures of the report and the control room anew, wide and as on a phone.

    python docs/images/take_screenshots.py [RESULTS]

The report is that of docs/how-to/report.md; RESULTS is what ``fedguard evaluate quickstart`` wrote, which
runs (a minute) if it is absent. The control room shows what the code of docs/how-to/control-room.md leaves
behind. Needs Chromium and the extra serve.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = (sys.executable, "-m", "fedguard")
#: Width and height in pixels.
PHONE = (390, 1050)
WHERE = (
    *("--where", "attack=[label_flip,lie,scaling_backdoor]"),
    *("--where", "defense=[no_defense,m_krum,dnc,lfr,fedredefense]"),
)


def open_browser() -> Any:
    """The headless Chromium of the tests, without scroll bars."""
    spec = importlib.util.spec_from_file_location("browser", ROOT / "tests" / "browser.py")
    if spec is None or spec.loader is None:
        raise SystemExit("tests/browser.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = next(filter(None, map(shutil.which, module.BROWSERS)), None)
    if program is None:
        raise SystemExit(f"no Chromium: none of {', '.join(module.BROWSERS)} is installed")
    browser = module.Browser(program)
    browser("Emulation.setScrollbarsHidden", hidden=True)
    return browser


def report(browser: Any, folder: Path, results: Path | None) -> None:
    """The top of the report of quickstart."""
    if results is None:
        results = folder / "quickstart"
        subprocess.run([*PYTHON, "evaluate", "quickstart", "--quiet", "--out", results], check=True)
    subprocess.run([*PYTHON, "report", results, *WHERE, "--out", folder / "report.html"], check=True)
    browser.open(folder / "report.html", 1200, 1780)
    browser.screenshot(HERE / "report.png", full=False)
    browser.open(folder / "report.html", *PHONE)
    browser.screenshot(HERE / "report_phone.png", full=False)


def control_room(browser: Any, folder: Path) -> None:
    """The control room after the page's example, with one client open."""
    text = (ROOT / "docs" / "how-to" / "control-room.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    command = [*PYTHON, "serve", "ledger.db", "--events", "events.jsonl", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        address, token = (server.stdout.readline() for _ in range(2)) if server.stdout else ("", "")
        found = re.search(r"http://\S+", address)
        if found is None:
            raise SystemExit(f"the control room did not start: {address}")
        _enter(browser, found[0], token.removeprefix("token: ").strip())
        browser.screenshot(HERE / "control_room.png", full=False)
        _resize(browser, *PHONE)
        browser.screenshot(HERE / "control_room_phone.png", full=False)
    finally:
        browser("Page.navigate", url="about:blank")  # it holds a connection open
        server.terminate()
        server.wait(timeout=20)


def _enter(browser: Any, url: str, token: str) -> None:
    _resize(browser, 1000, 1050)
    for _ in range(100):  # until it listens
        browser("Page.navigate", url=url)
        time.sleep(0.1)
        if browser.evaluate("!!document.querySelector('[name=token]')"):
            break
    browser.evaluate(f"document.querySelector('[name=token]').value = {json.dumps(token)}")
    browser.evaluate("document.querySelector('form').requestSubmit()")
    _wait(browser, "!!document.querySelector('#rows button')")
    browser.evaluate("document.querySelector('#rows button').click()")
    _wait(browser, "!!document.querySelector('#chart svg')")
    browser.evaluate("document.activeElement.blur(), scrollTo(0, 0)")


def _resize(browser: Any, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser("Emulation.setDeviceMetricsOverride", **size)


def _wait(browser: Any, condition: str) -> None:
    for _ in range(200):
        if browser.evaluate(condition):
            return
        time.sleep(0.05)
    raise SystemExit(f"the page never came to {condition}")


def main() -> None:
    """All pictures."""
    browser = open_browser()
    try:
        with tempfile.TemporaryDirectory() as name:
            report(browser, Path(name), Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None)
            control_room(browser, Path(name))
    finally:
        browser.close()


if __name__ == "__main__":
    main()
