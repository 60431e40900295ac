"""The example app as it is run: in a simulation, and deployed over TLS with authenticated SuperNodes."""

import datetime
import importlib.util
import ipaddress
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr")

pytestmark = pytest.mark.slow
APP = Path(__file__).parents[2] / "examples" / "flower"
BIN = Path(sys.executable).parent


def app_module():
    spec = importlib.util.spec_from_file_location("flower_example_run", APP / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = app_module()


def verdicts(state):
    return [json.loads(line) for line in (state / "verdicts.jsonl").read_text("utf-8").splitlines()]


def accuracy(log):
    return float(re.search(r"accuracy after \d+ rounds: ([\d.]+)", log)[1])


# --- a simulation


def simulate(folder, *settings):
    state, truth = folder / "state", folder / "truth"
    command = [sys.executable, str(APP / "run.py"), f"state={state}", f"truth={truth}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    (folder / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return accuracy(done.stdout), state, truth


def test_flwr_run_bans_the_attackers_keeps_the_honest_and_saves_the_model(tmp_path):
    pytest.importorskip("ray")
    guarded, open_ = tmp_path / "guarded", tmp_path / "open"
    guarded.mkdir()
    open_.mkdir()
    with_guard, state, truth = simulate(guarded)
    without, _, _ = simulate(open_, "guard=false")
    rows = verdicts(state)
    is_ = {int(path.name): path.read_text("utf-8") for path in truth.iterdir()}
    assert sorted(is_.values()) == ["honest"] * 7 + ["lie"] * 2 + ["sign_flip"]
    banned = {row["node"] for row in rows if row["banned"]}
    assert banned == {node for node, what in is_.items() if what != "honest"}
    last = {row["node"] for row in rows if row["round"] == 9}
    assert last == set(is_) - banned, "nobody honest is missing, nobody banned is asked"
    assert with_guard > 0.8
    assert without < 0.5


# --- a deployment


def pem_files(folder):
    """A certificate for this machine that is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(private)


def node_key(folder, name):
    """An OpenSSH key pair; returns the private key's path."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    path = folder / name
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public)
    return path


class Deployment:
    """A SuperLink and SuperNodes on this machine; every process is stopped at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        pem_files(folder)
        self.port = run.free_port()
        config = (
            f'[superlink]\ndefault = "there"\n[superlink.there]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{folder / "cert.pem"}"\n'
        )
        (self.home / "config.toml").write_text(config, encoding="utf-8")
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, **run.QUIET, "FLWR_HOME": str(self.home), "PATH": path}
        self.processes = {}

    def start(self, name, *command):
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *map(str, command[1:])], env=self.env, stdout=log, stderr=log
            )
        self.processes[name] = process

    def stop(self):
        """The nodes first: one that cannot sign off counts as online for a while, and is not let in again."""
        link = self.processes.pop("superlink", None)
        for group in (list(self.processes.values()), [link] if link else []):
            for process in group:
                process.terminate()  # once only: a second signal ends it without signing off
            for process in group:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(20)
        self.processes = {}

    def superlink(self):
        self.start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", self.port,
            "--ssl-ca-certfile", self.folder / "cert.pem", "--ssl-certfile", self.folder / "cert.pem",
            "--ssl-keyfile", self.folder / "key.pem", "--database", self.folder / "link.db",
            "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        )  # fmt: skip
        self.wait(0)

    def wait(self, nodes, seconds=240):
        """Until the SuperLink answers, and so many nodes are online."""
        end = time.monotonic() + seconds
        while True:
            listed = self.flwr("supernode", "list", "there", "--format", "json", check=False)
            found = re.search(r"\{.*\}", listed.stdout, re.DOTALL)
            answer = json.loads(found[0]) if found else {}
            if answer.get("success") and listed.stdout.count('"online"') >= nodes:
                return
            assert time.monotonic() < end, listed.stdout + (self.folder / "superlink.log").read_text("utf-8")
            time.sleep(1)

    def supernode(self, name, key, partition, partitions):
        self.start(
            name, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
            "--root-certificates", self.folder / "cert.pem", "--auth-supernode-private-key", key,
            "--node-config", f"partition-id={partition} num-partitions={partitions}",
            "--host", "127.0.0.1", "--port", run.free_port(), "--max-retries", 60,
        )  # fmt: skip

    def flwr(self, *arguments, check=True):
        done = subprocess.run(
            [str(BIN / "flwr"), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, **settings):
        plain = " ".join(run.toml(f"{key.replace('_', '-')}={value}") for key, value in settings.items())
        done = self.flwr("run", str(APP), "there", "--stream", "--run-config", plain)
        with (self.folder / "runs.log").open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        return done.stdout + done.stderr


@pytest.fixture
def deployment(tmp_path):
    there = Deployment(tmp_path)
    yield there
    there.stop()


def test_a_ban_outlives_the_server_and_a_new_key_is_a_new_client(deployment, tmp_path):
    state, truth = tmp_path / "state", tmp_path / "truth"
    truth.mkdir()
    settings = {"attacks": "sign_flip", "identity": "key", "state": state, "truth": truth, "strikes": 1}
    keys = [node_key(tmp_path, f"node{i}") for i in range(6)]
    deployment.superlink()
    for i, key in enumerate(keys):
        deployment.flwr("supernode", "register", str(key.with_suffix(".pub")), "there")
        deployment.supernode(f"node{i}", key, i, 6)
    deployment.wait(6)
    deployment.run(rounds=2, min_nodes=6, **settings)

    is_ = {path.name: path.read_text("utf-8") for path in truth.iterdir()}
    assert sorted(is_.values()) == ["honest"] * 5 + ["sign_flip"]
    rows = verdicts(state)
    clients = {row["client"]: is_[str(row["node"])] for row in rows}
    (attacker,) = (client for client, what in clients.items() if what != "honest")
    assert [(row["client"], row["round"]) for row in rows if row["banned"]] == [(attacker, 0)]
    assert sum(row["round"] == 1 for row in rows) == 5, "it is not asked again"
    assert len(clients) == 6
    assert all(client.startswith("key-") for client in clients), "every node has a key of its own"

    deployment.stop()  # the server and everybody else
    deployment.superlink()
    for i, key in enumerate(keys):
        deployment.supernode(f"node{i}", key, i, 6)
    fresh = node_key(tmp_path, "fresh")
    deployment.flwr("supernode", "register", str(fresh.with_suffix(".pub")), "there")
    deployment.supernode("fresh", fresh, 0, 6)  # the attacker's partition, under another key
    deployment.wait(7)
    deployment.run(rounds=1, min_nodes=7, **settings)

    later = [row for row in verdicts(state) if row["round"] == 2]
    assert attacker not in {row["client"] for row in later}, "the ban is still in force"
    (stranger,) = {row["client"] for row in later} - set(clients)
    assert {row["client"] for row in later} == set(clients) - {attacker} | {stranger}
    (row,) = (row for row in later if row["client"] == stranger)
    assert row["reason"].startswith("banned for good: dnc score"), "judged like anybody new, for what it sent"
