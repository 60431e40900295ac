"""Alerts: what is found, who is told, and that no receiver can slow or break a round."""

import json
import logging
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from fedguard import Card, Detector, Guard, Round, Scores, load_guard, make_policy
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.observers.alert import escaped
from fedguard.observers.alerts import Alerts
from fedguard.observers.receivers import Command, Email, Webhook
from fedguard.observers.settings import alerts_from

HOSTILE = 'x"; rm -rf ~ #\n<!channel>$(id)'


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect; below −10 is an error."""

    card = Card("first", "for tests", "FedGuard")

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        if (values < -10).any():
            raise ZeroDivisionError("secret")
        return Scores(values, values > 10, "above 10")


class Memo:
    def __init__(self):
        self.alerts = []

    def deliver(self, alert):
        self.alerts.append(alert)


def played(rounds, receiver=None, policy="exclude", ids=None, **options):
    """The alerts of a guard that judges rounds of one parameter."""
    memo = receiver or Memo()
    with Alerts([memo], **options) as alerts:
        guard = Guard(First(), policy, observers=[alerts])
        for index, values in enumerate(rounds):
            try:
                guard.process(Round(np.array(values, dtype=float)[:, None], ids, index=index))
            except ZeroDivisionError:
                continue
    return memo.alerts if receiver is None else alerts


def kinds(alerts):
    return [(alert.kind, alert.round) for alert in alerts]


# --- what is found


def test_a_ban_names_the_client_escaped():
    alerts = played([[1, 2, 3], [1, 2, 30], [1, 2, 30]], policy="ban", ids=["a", "b", HOSTILE])
    assert kinds(alerts) == [("ban", 1)]
    assert alerts[0].clients == (escaped(HOSTILE),)
    assert alerts[0].facts == {"bans": 1, "clients": 3}
    assert not set(alerts[0].text) & set('<>"$\n`@')
    assert escaped(HOSTILE).startswith(r"x\x22\x3b\x20rm")


def test_mass_suspicion_is_more_than_the_share():
    assert played([[1, 2, 30, 30]]) == []
    (alert,) = played([[1, 30, 30, 30]])
    assert kinds([alert]) == [("mass_suspicion", 0)]
    assert alert.facts == {"suspects": 3, "clients": 4, "limit": 0.5}


def test_a_refused_round_names_the_error_and_not_its_message():
    (alert,) = played([[1, 2, -20], [1, 2, 3]])
    assert kinds([alert]) == [("refused_round", 0)]
    assert alert.text == "round 0 was refused: ZeroDivisionError"


def test_a_round_without_any_accepted_update_counts_as_refused():
    assert kinds(played([[30, 30, 30]], on=["refused_round"])) == [("refused_round", 0)]


def test_drift_is_against_the_median_of_the_norms_before():
    steady = [[1, 1]] * 5
    assert played([*steady, [3, 3], [1, 1]]) == []
    (alert,) = played([*steady, [3.5, 3.5]])
    assert kinds([alert]) == [("drift", 5)]
    assert alert.facts["norm"] / alert.facts["usual_norm"] == pytest.approx(3.5)
    assert kinds(played([[1, 1], [-1, -1]])) == [("drift", 1)]
    assert played([[1, 1], [-1, -1]], cosine=None) == []
    assert played([[9, 9]] + [[1, 1]] * 4, drift=3.0) == [], "five rounds are needed"


# --- limits


def test_the_rate_is_limited_per_kind_and_the_next_alert_says_how_many():
    alerts = played([[30, 30, 1]] * 4, on=["mass_suspicion"], limit=2)
    assert kinds(alerts) == [("mass_suspicion", 0), ("mass_suspicion", 1)]
    memo = Memo()
    with Alerts([memo], on=["mass_suspicion"], limit=1, period=0.2) as watcher:
        guard = Guard(First(), "exclude", observers=[watcher])
        for index in range(4):
            if index == 3:
                time.sleep(0.25)
            guard.process(Round([[30.0], [30.0], [1.0]], index=index))
    assert [(a.round, a.suppressed) for a in memo.alerts] == [(0, 0), (3, 2)]
    assert watcher.counts["suppressed"] == 2


def test_a_receiver_that_hangs_slows_no_round_and_what_does_not_fit_is_dropped(caplog):
    class Hangs:
        go = threading.Event()

        def deliver(self, alert):
            self.go.wait(20)

    alerts = Alerts([Hangs()], limit=100, waiting=2)
    guard = Guard(First(), "exclude", observers=[alerts])
    start = time.monotonic()
    for index in range(6):
        guard.process(Round([[30.0], [30.0], [1.0]], index=index))
    assert time.monotonic() - start < 10, "nobody waited for the receiver"
    assert alerts.counts["dropped"] >= 3
    assert "was dropped: 2 are waiting" in caplog.text
    Hangs.go.set()
    alerts.close()
    assert alerts.counts["sent"] + alerts.counts["dropped"] == 6
    guard.process(Round([[30.0], [30.0], [1.0]], index=6))
    assert "the observer is closed" in caplog.text


def test_a_receiver_that_fails_is_a_warning_without_its_words(caplog):
    class Fails:
        def deliver(self, alert):
            raise RuntimeError("https://host/secret")

    alerts = played([[30, 30, 1]], receiver=Fails())
    assert alerts.counts == {"sent": 0, "failed": 1, "dropped": 0, "suppressed": 0}
    assert "Fails: alert mass_suspicion of round 0 failed: RuntimeError" in caplog.text
    assert "secret" not in caplog.text


# --- receivers


@pytest.fixture
def web():
    """A server that keeps what is posted; /moved redirects, /broken fails."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.posted.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response({"/moved": 302, "/broken": 500}.get(self.path, 204))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.posted = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_posts_json_with_the_token(web, monkeypatch, caplog):
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    hook = Webhook(f"http://127.0.0.1:{web.server_port}/in", token_env="HOOK_TOKEN")  # noqa: S106
    caplog.set_level(logging.DEBUG)
    alerts = played([[1, 30, 30]], receiver=hook, ids=["a", HOSTILE, "c"])
    ((path, headers, body),) = web.posted
    assert (path, headers["Authorization"]) == ("/in", "Bearer t0ken")
    assert (body["event"], body["kind"], body["round"]) == ("alert", "mass_suspicion", 0)
    assert body["clients"] == [escaped(HOSTILE), "c"]
    assert alerts.counts["sent"] == 1
    assert "t0ken" not in caplog.text + repr(hook) + json.dumps(body)


@pytest.mark.parametrize(("path", "status"), [("moved", 302), ("broken", 500)])
def test_a_webhook_follows_no_redirect_and_reports_the_status(web, caplog, path, status):
    alerts = played([[1, 30, 30]], receiver=Webhook(f"http://127.0.0.1:{web.server_port}/{path}"))
    assert [posted[0] for posted in web.posted] == [f"/{path}"]
    assert alerts.counts["failed"] == 1
    assert f"HTTP status {status}" in caplog.text


def test_a_webhook_that_nobody_answers_fails(caplog):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as silent:  # accepts by its backlog, never answers
        hook = Webhook(f"http://127.0.0.1:{silent.server_address[1]}/private", timeout=0.1)
        assert played([[1, 30, 30]], receiver=hook).counts["failed"] == 1
    assert "no answer in time" in caplog.text
    assert "private" not in caplog.text


def test_a_command_gets_everything_on_standard_input_and_no_shell(tmp_path):
    out = tmp_path / "got.json"
    code = (
        "import json, os, sys; from pathlib import Path; "
        "env = {k: v for k, v in os.environ.items() if k.startswith('FEDGUARD_')}; "
        "Path(sys.argv[1]).write_text(json.dumps([sys.argv[2], env, json.load(sys.stdin)]))"
    )
    command = Command([sys.executable, "-c", code, str(out), "$(id); *"])
    played([[1, 2, 30]], receiver=command, policy="ban", ids=["a", "b", HOSTILE])
    argument, env, body = json.loads(out.read_text())
    assert argument == "$(id); *"
    assert env["FEDGUARD_ALERT"] == "ban"
    assert env["FEDGUARD_ROUND"] == "0"
    assert HOSTILE not in str(env)
    assert body["clients"] == [escaped(HOSTILE)]


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ([sys.executable, "-c", "import sys; sys.exit(3)"], "exit status 3"),
        ([sys.executable, "-c", "import time; time.sleep(30)"], "no answer in time"),
        (["/nowhere/at/all"], "No such file or directory"),
    ],
)
def test_a_command_that_fails_is_a_warning(run, why, caplog):
    assert played([[1, 30, 30]], receiver=Command(run, timeout=0.5)).counts["failed"] == 1
    assert why in caplog.text


# --- settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Webhook(), "either url or url_env"),
        (lambda: Webhook("file:///etc/passwd"), "not valid"),
        (lambda: Webhook("https://ann:secret@host/"), "token_env"),
        (lambda: Webhook("https://host/\r\nX: y"), "not valid"),
        (lambda: Webhook("https://host:99999/"), "not valid"),
        (lambda: Webhook(url_env="NO_SUCH_VARIABLE"), "'NO_SUCH_VARIABLE' is not set"),
        (lambda: Webhook("https://host/", timeout=0), "timeout"),
        (lambda: Email("mail", "guard", "ops@host"), "'guard' is not an address"),
        (lambda: Email("mail", "a@host", "ops@host\nBcc: e@host"), "not an address"),
        (lambda: Email("mail", "a@host", "b@host", user="ann"), "go together"),
        (lambda: Email("mail", "a@h", "b@h", security="none", user="a", password_env="P"), "in the clear"),  # noqa: S106
        (lambda: Command("notify --now"), "a list of the program"),
        (lambda: Command([]), "a list of the program"),
        (lambda: Command(["a\0b"]), "without NUL"),
        (lambda: Alerts([]), "at least one receiver"),
        (lambda: Alerts([Memo()], on=["bans"]), "ban, mass_suspicion"),
        (lambda: Alerts([Memo()], share=1), "share is 1"),
        (lambda: Alerts([Memo()], drift=1), "more than 1"),
        (lambda: Alerts([Memo()], limit=0), "at least 1"),
        (lambda: alerts_from("https://host/secret"), "is not a mapping"),
        (lambda: alerts_from({"webhok": {}}), "did you mean 'webhook'"),
        (lambda: alerts_from({"webhook": {"uri": "x"}}), "alerts: webhook: unknown parameter 'uri'"),
    ],
)
def test_settings_that_are_wrong_are_refused_in_words(make, words, monkeypatch):
    monkeypatch.setenv("P", "password")
    with pytest.raises(ParameterError, match=words):
        make()


def test_a_guards_file_brings_its_alerts(tmp_path):
    out = tmp_path / "said.json"
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    path = tmp_path / "guard.yaml"
    path.write_text(
        "detectors: {name: norm_bound}\n"
        "policy: {name: exclude, rule: {name: top, count: 2}}\n"
        f"alerts:\n  share: 0.6\n  command: {{run: {json.dumps([sys.executable, '-c', code, str(out)])}}}\n"
    )
    memo = Memo()
    memo.observe = lambda round, outcome: memo.alerts.append(round)
    guard = load_guard(path, observers=[memo])
    guard.process(Round([[1.0], [2.0], [3.0]]))
    guard.observers[-1].close()
    assert json.loads(out.read_text())["facts"] == {"suspects": 2, "clients": 3, "limit": 0.6}
    assert len(memo.alerts) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: ban\ndetector: krum\n", "guard.yaml:2: detector: unknown, did you mean 'detectors'"),
        ("\npolicy: bam\n", "guard.yaml:2: policy: "),
        ("detectors: {name: krum, f: 2}\n", "guard.yaml:1: detectors: .*unknown parameter 'f'"),
        ("- krum\n", "write keys with values"),
        ("policy: [\n", "guard.yaml:2: not valid YAML"),
        ("alerts: {}\n", "guard.yaml:1: alerts: .*at least one receiver"),
        ("device: 7\n", "guard.yaml:1: device: "),
        ("on_too_few: perhaps\n", "guard.yaml:1: on_too_few: "),
    ],
)
def test_a_guards_file_that_is_wrong_names_line_and_key(tmp_path, text, words):
    path = tmp_path / "guard.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_guard(path)


def test_a_guards_file_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="no such file"):
            load_guard(path)


def test_a_policy_by_name_is_a_guards_default(tmp_path):
    path = tmp_path / "guard.yaml"
    path.write_text("detectors: norm_bound\n")
    assert load_guard(path).policy.name == make_policy("exclude").name


def test_flower_takes_a_guard_from_a_file(tmp_path):
    strategies = pytest.importorskip("flwr.serverapp.strategy")
    from fedguard.flower import GuardedStrategy

    path = tmp_path / "guard.yaml"
    path.write_text(
        "detectors: norm_bound\npolicy: {name: ban, strikes: 2}\nalerts: {command: {run: [logger]}}\n"
    )
    strategy = GuardedStrategy(strategies.FedAvg(), load_guard(path), identity="node")
    assert strategy.guard.policy.strikes == 2
    assert len(strategy.guard.observers) == 1
