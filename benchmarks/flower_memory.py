"""The memory of a guarded Flower server, with replies in memory and on disk (``GuardedStrategy(spill=…)``).

    python benchmarks/flower_memory.py --parameters 1000000 10000000
    python benchmarks/flower_memory.py --parameters 10000000 --no-network     # silos in the server's process
    python benchmarks/flower_memory.py --parameters 100000000 --spill-only --folder DISK   # 8 GB there

A real deployment on this machine: a SuperLink, ``flwr run``, a ServerApp in a process of its own. The silos
are one process that speaks SuperNodes' protocol for all of them, one reply after another, since twenty real
SuperNodes would take more memory than the server. A silo sends the global model moved by 0.01 and noise; one
sends it moved by −1, and has to be banned. Measured is the peak of the resident set (VmHWM) of the process of
the ServerApp, and of that of the SuperLink, which holds what is sent and not yet fetched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flwr

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "benchmarks" / "flower_memory_app"
sys.path[:0] = [str(ROOT / "examples" / "flower"), str(APP)]
from run import BIN, QUIET, free_port, program, toml, wait_for  # noqa: E402 - the example's

MALICIOUS = 1
CONFIG = '[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'


def silos(port: int, count: int, parameters: int) -> None:
    """Register as so many SuperNodes, and reply in turn to the message that each one gets."""
    from flwr.supernode.fleet_http_connection import http_request_response

    with ExitStack() as stack:
        nodes = [
            stack.enter_context(http_request_response(f"127.0.0.1:{port}", insecure=True))
            for _ in range(count)
        ]
        print("registered", flush=True)
        for number, node in enumerate(nodes):
            while (received := node[1]()) is None:
                time.sleep(0.5)
            answer(node, received[0], number, parameters)
        sys.stdin.read()  # until the server is done


def answer(node: Any, message: Any, number: int, parameters: int) -> None:
    """Send the reply of one silo, object by object, as a SuperNode does."""
    from flwr.app import Message, MetricRecord, RecordDict
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )
    from memory_app import record

    *_, send, _, _, _, push, confirm = node
    step = -1.0 if number < MALICIOUS else 0.01
    arrays = record(parameters, 1 + number, step, 0.01)
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10})})
    confirm(message.metadata.run_id, message.metadata.message_id)
    reply = Message(content, reply_to=message)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        wanted, session = send(reply, get_object_tree(reply), 1.0)
        for key, item in get_all_nested_objects(reply).items():
            if key in wanted:
                push(message.metadata.run_id, session, key, item.deflate())


def measured(count: int, parameters: int, spilled: bool, folder: Path | None) -> dict[str, float]:
    """One run: what the server wrote down, and the SuperLink's peak."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="fedguard-memory-", dir=folder) as name:
        home = Path(name)
        env = {**os.environ, **QUIET, "FLWR_HOME": name, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        (home / "config.toml").write_text(CONFIG.format(port=port), encoding="utf-8")
        link = [program("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(port)]
        link += ["--disable-runtime-dependency-installation"]
        nodes = [sys.executable, __file__, "--silos-of", str(port), str(count), str(parameters)]
        with (home / "log").open("wb") as log:
            superlink = subprocess.Popen(link, env=env, stdout=log, stderr=log)  # noqa: S603 - Flower's
            try:
                wait_for(f"http://127.0.0.1:{port}/health", superlink)
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                others = subprocess.Popen(nodes, env=env, **pipes)  # noqa: S603 - this script
                try:
                    assert others.stdout is not None
                    others.stdout.readline()
                    settings = {"silos": count, "parameters": parameters, "report": home / "report"}
                    settings["spill"] = home / "spill" if spilled else ""
                    plain = " ".join(toml(f"{key}={value}") for key, value in settings.items())
                    run = [program("flwr"), "run", str(APP), "here", "--stream", "--run-config", plain]
                    done = subprocess.run(run, env=env, check=False, capture_output=True, text=True)  # noqa: S603
                    report = home / "report"
                    if not report.exists():
                        raise SystemExit(done.stdout + done.stderr + (home / "log").read_text("utf-8"))
                    status = Path(f"/proc/{superlink.pid}/status").read_text(encoding="utf-8")
                finally:
                    others.kill()
                    others.wait()
            finally:
                superlink.terminate()
                superlink.wait(60)
        found: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))
        lines = (line.split() for line in status.splitlines())
        found["superlink"] = next(int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:")
        return found


def alone(count: int, parameters: int, spilled: str, report: str) -> None:
    """The same round in this process, without a network: the silos are functions."""
    from flwr.app import Context, MetricRecord, RecordDict
    from memory_app import main as served
    from memory_app import record

    from fedguard.testing.flower import MemoryGrid

    def silo(number: int) -> Any:
        step = -1.0 if number < MALICIOUS else 0.01
        return lambda arrays, message: RecordDict(
            {
                "arrays": record(parameters, 1 + number, step, 0.01),
                "metrics": MetricRecord({"num-examples": 10}),
            }
        )

    config = {"silos": count, "parameters": parameters, "spill": spilled, "report": report}
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    served(MemoryGrid({1 + number: silo(number) for number in range(count)}), context)


def measured_alone(count: int, parameters: int, spilled: bool, folder: Path | None) -> dict[str, float]:
    """One round in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fedguard-memory-", dir=folder) as name:
        where, report = f"{name}/spill" if spilled else "", Path(name, "report")
        command = [sys.executable, __file__, "--alone", str(count), str(parameters), where, str(report)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - this script
        found: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))
        return {**found, "superlink": 0}


def row(count: int, parameters: int, spilled: bool, found: dict[str, float]) -> str:
    """One line of the table."""
    model = 4 * parameters
    good = (found["banned"], found["accepted"]) == (MALICIOUS, count - MALICIOUS)
    cells = [
        f"{count} × {parameters:.0e}".replace("e+0", "e"),
        "on disk" if spilled else "in memory",
        f"{model / 1e6:,.0f}",
        f"{found['before'] / 1e6:,.0f}",
        f"{found['peak'] / 1e6:,.0f}",
        f"{(found['peak'] - 2 * model) / 1e6:,.0f}",
        f"{found['superlink'] / 1e6:,.0f}" if found["superlink"] else "–",
        f"{found['seconds']:,.0f}",
        f"{found['banned']:.0f} banned, {found['accepted']:.0f} accepted, moved by {found['moved']:.4f}"
        + ("" if good else " (WRONG)"),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """# The memory of a guarded Flower server

`python benchmarks/flower_memory.py{options}`: Flower {flower}, a round of FedAvg behind `krum`;
MB = 10⁶ bytes. "Before" is the server's process after its imports, "beyond" is the peak minus two models.

| silos × parameters | replies | model, MB | before | peak | beyond | SuperLink's peak | seconds | verdicts |
|:--|:--|--:|--:|--:|--:|--:|--:|:--|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--silos", type=int, default=20)
    parser.add_argument("--parameters", type=int, nargs="+", default=[10**6])
    parser.add_argument("--spill-only", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--silos-of", type=int, nargs=3)
    parser.add_argument("--alone", nargs=4)
    given = parser.parse_args()
    if given.silos_of:
        silos(*given.silos_of)
        return
    if given.alone:
        alone(int(given.alone[0]), int(given.alone[1]), *given.alone[2:])
        return
    text = HEAD.format(options=" --no-network" if given.no_network else "", flower=flwr.__version__)
    for parameters in given.parameters:
        for spilled in (True,) if given.spill_only else (False, True):
            measure = measured_alone if given.no_network else measured
            found = measure(given.silos, parameters, spilled, given.folder)
            text += row(given.silos, parameters, spilled, found) + "\n"
            print(text.splitlines()[-1], flush=True)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
