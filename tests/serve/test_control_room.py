"""The control room: who may see it, what it shows, and a guard that obeys it."""

import json
import re
import sqlite3
import stat
import sys
import threading
import time

import numpy as np
import pytest

from fedguard import EventLog, Guard, Round, SQLiteLedger, make_detector, make_policy
from fedguard.cli import entry as cli
from fedguard.core.errors import ConfigError, DataError, LedgerError, ParameterError
from fedguard.serve.live import Live
from fedguard.serve.page import part, policy, write_ledger_report
from fedguard.serve.sessions import IDLE, MOST, Sessions, token_from

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from fedguard.serve.app import MAX_BODY, Room

TOKEN = "t" * 43
HOSTILE = ("<script>alert(1)</script>", "a\u202eb\ud800\n", "x" * 1000, 2**60, "' OR 1=1 --", "</script><!--")


def federation(folder, ids=("ann", "bob", "eve", "dan", "fay", "gus")):
    ledger = SQLiteLedger(folder / "ledger.db")
    guard = Guard(
        make_detector("krum", num_malicious=1, select="m_krum"),
        make_policy("ban", strikes=2, rule={"name": "mad", "k": 10}),
        ledger=ledger,
        observers=[EventLog(folder / "events.jsonl")],
    )
    rng = np.random.default_rng(0)

    def step(index, attacker=None):
        updates = 0.5 + rng.normal(size=(len(ids), 50))
        if attacker is not None:
            updates[attacker] += 5.0
        return guard.process(Round(updates, list(ids), index=index))

    return ledger, step


def client_of(folder, read_only=False, origin="http://testserver", user_header=""):
    live = Live(folder / "ledger.db", folder / "events.jsonl", read_only)
    app = Room(live, Sessions(TOKEN), user_header=user_header).app()
    return TestClient(app, headers={"origin": origin} if origin else {}, follow_redirects=True)


def logged_in(folder, **options):
    client = client_of(folder, **options)
    page = client.post("/login", content=f"token={TOKEN}", headers={"content-type": "text/plain"}).text
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    client.headers["x-csrf-token"] = data["csrf"]
    return client


@pytest.fixture
def room(tmp_path):
    _, step = federation(tmp_path)
    for index in range(3):
        step(index, attacker=2)
    return tmp_path


BAN = {"client": "bob", "by": "olga", "why": "key stolen"}


# --- what it shows, and what it does


def test_pages_and_stories(room):
    client = logged_in(room)
    found = client.get("/api/clients").json()
    assert (found["clients"], found["banned"], found["next_round"]) == (6, 1, 3)
    first = found["entries"][0]
    assert (first["name"], first["banned"], first["strikes"]) == ("eve", True, 2)
    told = client.get(f"/api/client?number={first['number']}").json()
    assert [v["round"] for v in told["verdicts"]] == [0, 1]
    assert "krum score" in told["verdicts"][0]["reason"]
    assert told["actions"][0]["by"] == "the guard"
    assert client.get("/api/clients?which=banned&limit=1").json()["found"] == 1
    assert {e["name"] for e in client.get("/api/clients?search=an").json()["entries"]} == {"ann", "dan"}


def test_a_ban_keeps_the_client_from_the_next_round_and_an_unban_lets_it_back(tmp_path):
    ledger, step = federation(tmp_path)
    step(0)
    client = logged_in(tmp_path)
    assert client.post("/api/ban", json=BAN).json() == {"standing": "banned since round 1, for good"}
    outcome = step(1)
    assert outcome.banned.tolist() == [False, True, False, False, False, False]
    assert outcome.weights[1] == 0
    assert outcome.reasons[1] == "banned since round 1: banned by olga: key stolen"
    assert client.post("/api/unban", json={**BAN, "why": "new key"}).status_code == 200
    assert not step(2).banned.any()
    assert [(a.what, a.by, a.why) for a in ledger.actions("bob")] == [
        ("ban", "olga", "banned by olga: key stolen"),
        ("unban", "olga", "new key"),
    ]


def test_a_ban_for_some_rounds_of_a_client_that_was_never_seen(room):
    client = logged_in(room)
    answer = client.post("/api/ban", json={**BAN, "client": "stranger", "rounds": 4})
    assert answer.json() == {"standing": "banned since round 3, until round 7"}
    again = client.post("/api/ban", json={**BAN, "client": "stranger", "rounds": 2})
    assert (again.status_code, "nothing was changed" in again.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    "wrong",
    [{"by": " "}, {"why": ""}, {"rounds": 0}, {"rounds": 1.5}, {"rounds": True}, {"client": None},
     {"client": ""}, {"client": "x" * 1001}, {"rounds": 10**30}, {"by": 7}],
)  # fmt: skip
def test_a_decision_needs_all_of_it(room, wrong):
    client = logged_in(room)
    assert client.post("/api/ban", json={**BAN, **wrong}).status_code == 400
    assert not SQLiteLedger(room / "ledger.db").is_banned("bob", 3)


def test_an_operator_evicts_nobody(tmp_path):
    ledger, step = federation(tmp_path)
    step(0)
    with sqlite3.connect(ledger.path) as db:
        rows = [(f'"c{k}"', f'"c{k}"') for k in range(100_500)]
        db.executemany("INSERT INTO clients (key, id) VALUES (?, ?)", rows)
    client = logged_in(tmp_path)
    client.post("/api/ban", json={**BAN, "client": "new"})
    found = client.get("/api/clients?offset=100500").json()
    assert (found["clients"], len(found["entries"])) == (100_507, 7)


def test_it_is_read_while_it_is_written(room):
    client, stop = logged_in(room), threading.Event()
    writer_ledger = SQLiteLedger(room / "ledger.db")

    def write():
        index = 3
        while not stop.is_set():
            with writer_ledger.transaction():
                for name in ("ann", "bob"):
                    writer_ledger.judge(name, index, float(index), False)
            index += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        number = {e["name"]: e["number"] for e in client.get("/api/clients").json()["entries"]}
        seen = []
        for _ in range(20):
            found = client.get("/api/clients").json()
            scores = {e["name"]: e["score"] for e in found["entries"]}
            assert scores["ann"] == scores["bob"] or found["next_round"] == 3, "a round is seen whole"
            seen.append(found["next_round"])
            assert client.get(f"/api/client?number={number['bob']}").status_code == 200
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_a_ledger_that_goes_bad_is_an_error_and_not_a_page(room):
    client = logged_in(room)
    with sqlite3.connect(room / "ledger.db") as db:
        db.execute("CREATE VIEW v AS SELECT 1")
    answer = client.get("/api/clients")
    assert (answer.status_code, "not written by FedGuard" in answer.json()["error"]) == (503, True)


# --- who may


@pytest.mark.parametrize("path", ["/api/clients", "/api/client?number=1", "/events"])
def test_nothing_is_shown_without_the_token(room, path):
    client = client_of(room)
    assert client.get(path).status_code == 401
    assert "eve" not in client.get("/").text
    assert client.get(path, headers={"authorization": "Bearer " + "x" * 43}).status_code == 401
    client.cookies.set("fedguard_session", "x" * 43)
    assert client.get(path).status_code == 401


def test_a_wrong_token_begins_no_session(room):
    client = client_of(room)
    for wrong in ("", "token=", "token=" + "t" * 42, f"token=x&token={TOKEN}", "token=%ff"):
        answer = client.post("/login", content=wrong)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(room):
    client = client_of(room)
    answer = client.post("/login", content=f"token={TOKEN}", follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.post("/logout").status_code == 200
    assert client.get("/api/clients").status_code == 401, "the session has ended on the server"


def test_another_site_cannot_ban_with_a_browsers_cookie(room):
    client = logged_in(room)
    for headers in (
        {"x-csrf-token": ""},
        {"x-csrf-token": "x" * 43},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        for path in ("/api/ban", "/api/unban"):
            assert client.post(path, json=BAN, headers=headers).status_code == 403
    assert not SQLiteLedger(room / "ledger.db").is_banned("bob", 3)
    assert client.get("/api/ban").status_code == 405, "a link bans nobody"


def test_a_program_uses_the_token_itself(room):
    client = client_of(room, origin=None)
    assert client.post("/api/ban", json=BAN, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert SQLiteLedger(room / "ledger.db").is_banned("bob", 3)


BY_PROXY = {"x-forwarded-user": "olga@example.org", "x-fedguard-token": TOKEN}


def test_a_proxys_user_is_logged_in_and_decides_under_that_name(room):
    client = client_of(room, user_header="X-Forwarded-User")
    data = json.loads(re.search(r'id="data">(.*?)</script>', client.get("/", headers=BY_PROXY).text)[1])
    assert data["user"] == "olga@example.org"
    assert client.get("/api/clients", headers=BY_PROXY).json()["clients"] == 6
    signed = {**BY_PROXY, "x-csrf-token": data["csrf"]}
    assert client.post("/api/ban", json={**BAN, "by": "somebody else"}, headers=signed).status_code == 200
    assert SQLiteLedger(room / "ledger.db").actions("bob")[-1].by == "olga@example.org"


@pytest.mark.parametrize(
    "forged",
    [
        {"x-forwarded-user": "olga"},
        {"x-forwarded-user": "olga", "x-fedguard-token": "x" * 43},
        {"x-forwarded-user": "", "x-fedguard-token": TOKEN},
        {"x-fedguard-token": TOKEN},
        [("x-forwarded-user", "eve"), ("x-forwarded-user", "olga"), ("x-fedguard-token", TOKEN)],
    ],
)
def test_only_the_proxy_names_users(room, forged):
    client = client_of(room, user_header="X-Forwarded-User")
    assert client.get("/api/clients", headers=forged).status_code == 401
    assert client_of(room).get("/api/clients", headers=BY_PROXY).status_code == 401, "unless it is asked for"


def test_another_site_cannot_ban_through_the_proxy(room):
    client = client_of(room, user_header="X-Forwarded-User")
    other = Sessions(TOKEN).csrf_of("ann")
    for headers in ({}, {"x-csrf-token": other}, {"origin": "https://evil.example"}):
        assert client.post("/api/ban", json=BAN, headers={**BY_PROXY, **headers}).status_code == 403
    assert not SQLiteLedger(room / "ledger.db").is_banned("bob", 3)


def test_read_only_is_read_only(room):
    client = logged_in(room, read_only=True)
    before = (room / "ledger.db").read_bytes()
    for path in ("/api/ban", "/api/unban"):
        answer = client.post(path, json={**BAN, "client": "eve"})
        assert (answer.status_code, "read-only" in answer.json()["error"]) == (403, True)
    assert client.get("/api/clients").json()["clients"] == 6
    assert (room / "ledger.db").read_bytes() == before


def test_a_large_body_is_refused(room):
    client = logged_in(room)
    assert client.post("/api/ban", content=b" " * (MAX_BODY + 1)).status_code == 413
    assert client.post("/login", content=b"x" * (MAX_BODY + 1)).status_code == 413
    for text in (b"[" * 10_000, b"7", b"\xff", b"{"):
        assert client.post("/api/ban", content=text).status_code == 400


def test_odd_queries_are_errors(room):
    client = logged_in(room)
    queries = (
        "offset=-1",
        "limit=0",
        "limit=99999999",
        "offset=1e3",
        "which=x",
        "limit=٣",
        f"offset={10**30}",
    )
    for query in queries:
        assert client.get(f"/api/clients?{query}").status_code == 400
    for number in ("", "x", "999", "9" * 18, "9" * 40):
        assert client.get(f"/api/client?number={number}").status_code == 400


def test_every_answer_has_a_policy_that_allows_its_own_script_only(room):
    client = logged_in(room)
    for path in ("/", "/api/clients", "/api/client?number=x"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == policy(live=True)
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert "unsafe" not in policy(live=True)
    text = part("page.js") + part("page.html") + part("page.css")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\bon\w+=|style=", text)


def test_sessions_end(monkeypatch):
    now = [0.0]
    sessions = Sessions(TOKEN, lambda: now[0])
    first = sessions.begin()
    assert sessions.csrf(first)
    now[0] += IDLE + 1
    assert sessions.csrf(first) is None
    many = []
    for _ in range(MOST + 1):
        now[0] += 1
        many.append(sessions.begin())
    assert [sessions.csrf(one) is None for one in many] == [True] + [False] * MOST
    with pytest.raises(ParameterError, match="has 5 characters"):
        Sessions("short")


def test_the_token_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "token"
    token = token_from(path)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_from(path) == token
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read the token"):
        token_from(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ParameterError, match="has 5 characters"):
        token_from(path)
    with pytest.raises(ConfigError, match="cannot use the token file"):
        token_from(tmp_path / "no" / "token")


# --- hostile names, and the file


def test_hostile_names_are_text(tmp_path):
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    for name in HOSTILE:
        ledger.judge(name, 0, float("inf"), True, f"reason {name}")
    client = logged_in(tmp_path)
    entries = client.get("/api/clients").json()["entries"]
    assert {e["id"] for e in entries} == {str(name) for name in HOSTILE}
    assert all(e["name"].isprintable() and len(e["name"]) <= 200 for e in entries)
    for entry in entries:
        assert client.get(f"/api/client?number={entry['number']}").json()["verdicts"][0]["score"] == "inf"
        body = json.dumps({**BAN, "client": entry["id"]})
        assert client.post("/api/ban", content=body).status_code == 200
    assert all(ledger.is_banned(name, 1) for name in HOSTILE), "that client, also with a large number as id"
    assert len(ledger.clients()) == len(HOSTILE)
    text = write_ledger_report(tmp_path / "ledger.db").read_text(encoding="utf-8")
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert text.isascii() or "\u202e" not in text


def test_the_file_holds_the_same(room):
    path = write_ledger_report(room / "ledger.db", events=room / "events.jsonl")
    assert path == room / "ledger.html"
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    live = logged_in(room)
    assert data["page"]["entries"] == live.get("/api/clients").json()["entries"]
    number = data["page"]["entries"][0]["number"]
    assert data["stories"][str(number)] == live.get(f"/api/client?number={number}").json()
    assert [r["round"] for r in data["rounds"]] == [0, 1, 2]
    assert data["rounds"][1]["new_bans"] == {"count": 1, "names": ["eve"]}
    assert "connect-src" not in text
    assert "default-src &#x27;none&#x27;" in text


def test_the_command_writes_the_file(room, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["fedguard", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, "".join(capsys.readouterr())

    status, said = call(room / "ledger.db", "--events", room / "events.jsonl", "-o", room / "r.html")
    assert (status, "wrote" in said) == (0, True)
    assert "banned for good" in (room / "r.html").read_text(encoding="utf-8")
    assert call(room / "ledger.db", "--where", "seed=1")[0] == 2
    assert call(room, "--events", room / "events.jsonl")[0] == 2
    assert call(room / "events.jsonl")[0] == 2, "no ledger"


def test_no_ledger_and_no_events_are_errors(tmp_path, room):
    with pytest.raises(LedgerError, match="no such file"):
        Live(tmp_path / "none.db")
    with pytest.raises(DataError, match="no such file"):
        write_ledger_report(room / "ledger.db", events=tmp_path / "none.jsonl")


# --- a real server


def test_rounds_come_as_they_are_judged(tmp_path, caplog, capfd):
    uvicorn, httpx = pytest.importorskip("uvicorn"), pytest.importorskip("httpx")
    _, step = federation(tmp_path)
    step(0)
    app = Room(Live(tmp_path / "ledger.db", tmp_path / "events.jsonl"), Sessions(TOKEN), pause=0.02).app()
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    socket = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        with httpx.stream("GET", f"{url}/events", headers={"authorization": f"Bearer {TOKEN}"}) as stream:
            lines, rounds, changes = stream.iter_lines(), [], 0
            for line in lines:
                if line.startswith("data: ["):
                    rounds.append([r["round"] for r in json.loads(line[6:])])
                    if len(rounds) == 1:
                        step(1)
                changes += line == "event: ledger"
                if len(rounds) == 2 and changes >= 2:
                    break
        assert rounds == [[0], [0, 1]]
    finally:
        server.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())
