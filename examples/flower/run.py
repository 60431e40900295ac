"""Run the app in a simulation on this machine: ``python run.py [key=value …]``, keys as in pyproject.toml.

It calls ``flwr run`` with a temporary SuperLink and configuration, which are removed when it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

APP = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
CLIENTS = 10
CONFIG = """
[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
options.num-supernodes = {clients}
options.backend.client-resources.num-cpus = 1
"""
#: Nothing is installed or reported while it runs.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Where one of Flower's programs is: beside this Python, or on the path."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise SystemExit(f'{name} is not installed; run: pip install "fedguard[flower]"')
    return found


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until the SuperLink answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own SuperLink
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the SuperLink does not start")


def toml(setting: str) -> str:
    """``key=value`` as TOML: what is neither a number nor true or false is a text."""
    key, _, value = setting.partition("=")
    plain = value in ("true", "false") or value.lstrip("-").replace(".", "", 1).isdigit()
    return f"{key}={value}" if plain else f'{key}="{value}"'


def table(state: Path, truth: Path) -> str:
    """Every client: what it is, and what the guard made of it."""
    path = state / "verdicts.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    lines = [f"{'client':28}{'what it is':14}{'rounds':>7}{'left out':>10}  banned"]
    for client in sorted({row["client"] for row in rows}):
        own = [row for row in rows if row["client"] == client]
        note = truth / str(own[-1]["node"])
        what = note.read_text("utf-8") if note.exists() else "?"
        out = sum(row["weight"] == 0 for row in own)
        since = next((f"since round {row['round']}" for row in own if row["banned"]), "")
        lines.append(f"{client[:26]:28}{what:14}{len(own):7}{out:10}  {since}".rstrip())
    return "\n".join(lines) if rows else ""


def main(settings: list[str], app: Path = APP, clients: int = CLIENTS) -> int:
    """Start a SuperLink, run the app, show its log and the verdicts, stop the SuperLink."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        folders = {name: Path(home, name) for name in ("state", "truth")}
        for key, _, value in (setting.partition("=") for setting in settings):
            folders.update({key: Path(value).resolve()} if key in folders else {})
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        settings = [s for s in settings if s.partition("=")[0] not in folders]
        settings += [f"{key}={folder}" for key, folder in folders.items()]
        env = {**os.environ, **QUIET, "FLWR_HOME": home, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        Path(home, "config.toml").write_text(CONFIG.format(port=port, clients=clients), encoding="utf-8")
        link = [program("flower-superlink"), "--insecure", "--simulation"]
        link += ["--host", "127.0.0.1", "--port", str(port)]
        with Path(home, "superlink.log").open("wb") as log:
            superlink = subprocess.Popen(link, env=env, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", superlink)
            command = [program("flwr"), "run", str(app), "here", "--stream"]
            command += ["--run-config", " ".join(map(toml, settings))]
            code = subprocess.run(command, env=env, check=False).returncode
            print(table(**folders), flush=True)
            return code
        finally:
            superlink.terminate()
            superlink.wait(30)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
