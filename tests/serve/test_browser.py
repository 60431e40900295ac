"""The control room in a browser, with a live guard; and the command that serves it."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from fedguard import EventLog, Guard, Round, SQLiteLedger, make_detector, make_policy
from fedguard.serve.page import write_ledger_report

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

IDS = [f"hospital-{k}" for k in range(60)] + ["<img src=x onerror=alert(1)>"]


class Federation:
    """A guard on the ledger that the control room shows; client 5 attacks in rounds 1 and 2."""

    def __init__(self, folder):
        self.folder, self.index, self.rng = folder, 0, np.random.default_rng(0)
        self.guard = Guard(
            make_detector("krum", num_malicious=1, select="m_krum"),
            make_policy("ban", strikes=2, rule={"name": "mad", "k": 10}),
            ledger=SQLiteLedger(folder / "ledger.db"),
            observers=[EventLog(folder / "events.jsonl")],
        )

    def step(self):
        updates = 0.5 + self.rng.normal(size=(len(IDS), 100))
        updates[5] += 5.0 * (self.index in (1, 2))
        outcome = self.guard.process(Round(updates, IDS, index=self.index))
        self.index += 1
        return {IDS[i] for i in np.flatnonzero(outcome.banned)}


class Server:
    """``fedguard serve`` as a process of its own."""

    def __init__(self, folder, *options):
        command = [
            sys.executable,
            "-m",
            "fedguard",
            "serve",
            "ledger.db",
            "--events",
            "events.jsonl",
            "--port",
            "0",
        ]
        self.process = subprocess.Popen(
            [*command, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.said = [self.process.stdout.readline() for _ in range(2)]
        assert "control room" in self.said[0], self.said
        self.url = re.search(r"http://\S+", self.said[0])[0]
        self.token = self.said[1].removeprefix("token: ").strip()
        for _ in range(200):
            try:
                urllib.request.urlopen(self.url).read()  # noqa: S310 - our own server
                return
            except OSError:
                time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        rest = self.process.communicate(timeout=20)[0]
        return self.process.returncode, rest


@pytest.fixture
def federation(tmp_path):
    federation = Federation(tmp_path)
    for _ in range(4):
        federation.step()
    return federation


def test_the_command_says_the_token_once_and_ends_with_ctrl_c(federation, tmp_path):
    server = Server(federation.folder, "--read-only")
    assert "(read-only)" in server.said[0]
    assert "127.0.0.1" in server.url
    ask = urllib.request.Request(  # noqa: S310
        f"{server.url}api/clients", headers={"Authorization": f"Bearer {server.token}"}
    )
    assert json.load(urllib.request.urlopen(ask))["clients"] == len(IDS)  # noqa: S310
    status, rest = server.stop()
    assert (status, rest) == (0, "")


def wait(browser, condition, seconds=20):
    end = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < end, condition + "\n" + browser.evaluate("document.body.innerText")
        time.sleep(0.05)


def go(browser, url, width):
    browser(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    browser.events.clear()
    browser("Page.navigate", url=url)
    while not any(event["method"] == "Page.loadEventFired" for event in browser.events):
        browser.events.append(browser.read())


def click(browser, name):
    """Open a client with the keyboard."""
    found = (
        f"[...document.querySelectorAll('#rows button')].find((b) => b.textContent === {json.dumps(name)})"
    )
    browser.evaluate(f"{found}.focus()")
    press(browser)


def press(browser):
    for kind in ("keyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13)  # fmt: skip


def fill(browser, **values):
    for name, value in values.items():
        browser.evaluate(f"document.getElementById({name!r}).value = {value!r}")


def shot(browser, name):
    folder = os.environ.get("FEDGUARD_SHOTS")
    if folder:
        browser.screenshot(Path(folder) / name)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_ban_in_the_page_is_obeyed_in_the_next_round(browser, federation, width):
    assert federation.step() == {"hospital-5"}
    server = Server(federation.folder)
    try:
        go(browser, server.url, width)
        browser.evaluate(f"document.querySelector('[name=token]').value = {server.token!r}")
        browser.events.clear()
        browser.evaluate("document.querySelector('form').requestSubmit()")
        wait(
            browser,
            "!!document.getElementById('rows') && document.querySelectorAll('#rows tr').length === 50",
        )
        wait(browser, "document.querySelectorAll('#heard tr').length === 5")
        assert browser.evaluate("document.querySelector('#rows button').textContent") == "hospital-5"

        fill(browser, search="hospital-7")
        browser.evaluate("document.getElementById('find').requestSubmit()")
        wait(browser, "document.querySelectorAll('#rows tr').length === 1")
        click(browser, "hospital-7")
        wait(browser, "document.activeElement.id === 'name'")
        assert browser.evaluate("document.querySelectorAll('#chart svg .dot').length") == 5
        fill(browser, by="olga", why="key stolen")
        browser.evaluate("document.getElementById('why').focus()")
        press(browser)
        wait(
            browser,
            "document.getElementById('standing').textContent.startsWith('banned since round 5, f')",
        )
        assert federation.step() == {"hospital-5", "hospital-7"}
        wait(browser, "document.querySelectorAll('#heard tr').length === 6")

        fill(browser, why="new key")
        browser.evaluate("document.getElementById('unban').click()")
        wait(browser, "document.getElementById('standing').textContent.startsWith('admitted')")
        assert federation.step() == {"hospital-5"}
        wait(browser, "document.getElementById('head').textContent.includes('up to round 6')")
        fill(browser, search="")
        browser.evaluate("document.getElementById('find').requestSubmit()")
        wait(browser, "document.querySelectorAll('#rows tr').length === 50")
        shot(browser, f"room-{width}.png")

        assert browser.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        browser.evaluate("document.getElementById('after').click()")
        wait(browser, "document.querySelectorAll('#rows tr').length === 11")
        assert browser.evaluate("document.querySelectorAll('img').length") == 0, "the hostile name is text"
        assert all(url.startswith(server.url) for url in browser.requests())
        assert browser.complaints() == []
    finally:
        go(browser, "about:blank", width)
        assert server.stop()[0] == 0


@pytest.mark.slow
def test_the_file_works_alone(browser, federation):
    path = write_ledger_report(federation.folder / "ledger.db", events=federation.folder / "events.jsonl")
    browser.open(path, width=390)
    wait(browser, "document.querySelectorAll('#rows tr').length === 50")
    click(browser, "hospital-5")
    wait(browser, "document.querySelectorAll('#verdicts tr').length > 0")
    if importlib.util.find_spec("axe_core_python"):
        assert browser.violations() == []
    assert browser.evaluate("document.querySelectorAll('#chart .strike').length") == 2
    assert browser.evaluate("document.getElementById('act').hidden")
    fill(browser, search="img")
    browser.evaluate("document.getElementById('find').requestSubmit()")
    wait(browser, "document.querySelectorAll('#rows tr').length === 1")
    assert browser.requests() == [path.absolute().as_uri()]
    assert browser.complaints() == []
