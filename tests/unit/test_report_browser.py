"""The report in headless Chromium: a quiet console, nothing loaded, no sideways scrolling on a phone."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile

import pytest

from fedguard.evaluation.check import check_suite
from fedguard.evaluation.report.page import write_report
from fedguard.evaluation.runner import run_suite
from fedguard.evaluation.suite import load_suite

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def above_ten(descriptor):
    """The same pipe under a number that is not in the way of 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Browser:
    """One page of a headless Chromium, spoken to in the DevTools protocol over a pair of pipes."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (theirs_in, self.out), (self.inn, theirs_out) = (map(above_ten, os.pipe()) for _ in range(2))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [program, *flags, f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "chromium", *command]
        self.process = subprocess.Popen(
            shell, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.count, self.events, self.session = b"", 0, [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def read(self):
        while b"\0" not in self.buffer:
            part = os.read(self.inn, 1 << 16)
            assert part, "the browser has gone"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path, width=1280, height=900, dark=False):
        self.events.clear()
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())
        self.evaluate("document.fonts.ready.then(() => 1)")

    def evaluate(self, expression):
        done = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def complaints(self):
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in kinds]

    def requests(self):
        sent = [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path, full=True):
        shot = self("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path):
        done = self("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(done["data"]))

    def close(self):
        os.close(self.out)
        os.close(self.inn)
        self.process.terminate()
        self.process.wait(timeout=10)
        self.profile.cleanup()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    changes = [
        "rounds=2", "seeds=[0,1]", "mode=both", "clients=12", "malicious=3",
        "attacks=[none, scaling_backdoor, {name: label_flip, label: a_long_name_without_any_space_in_it}]",
        "defenses=[none, {label: <script>alert(1)</script>, detector: krum}, {detector: dnc, policy: ban}]",
    ]  # fmt: skip
    suite, source = load_suite("quickstart", changes)
    check_suite(suite, source)
    return write_report(run_suite(suite, folder / "out", workers=1).folder)


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here")
    browser = Browser(program)
    yield browser
    browser.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_renders_quietly_and_fits(browser, report, width, dark):
    browser.open(report, width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [report.absolute().as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg')"
    outside += f" && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    assert browser.evaluate(outside) == []
    heights = "[...document.querySelectorAll('svg[role=img]')].map(e => e.getBoundingClientRect().height)"
    assert min(browser.evaluate(heights)) > 40
    assert browser.evaluate("document.querySelectorAll('figure').length") > 10
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_pictures_lie_within_their_frames(browser, report):
    """No word and no line of a picture is drawn where it would be cut off."""
    browser.open(report, 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text, path, rect')].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && (r.left < box.left - 3 || r.right > box.right + 3 || r.bottom > box.bottom + 3);
        }).map(e => svg.getAttribute('aria-label').slice(0, 40) + ': ' + e.textContent);
    })"""
    assert browser.evaluate(cut) == []


def test_on_paper_it_is_light_and_complete(browser, report, tmp_path):
    browser.open(report, 1280, dark=True)
    browser(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    browser("Emulation.setEmulatedMedia", media="")
