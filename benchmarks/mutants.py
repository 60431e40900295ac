#!/usr/bin/env python3
"""Do the tests notice? Deliberate mistakes, one at a time, each against the tests of its area.

    python benchmarks/mutants.py                    the tests of the checkout's last commit
    python benchmarks/mutants.py --ref v0.1.0       those of another commit
    python benchmarks/mutants.py --all              survivors against the whole suite, too (hours)
    python benchmarks/mutants.py --out FILE.md      the table as Markdown

Every mutant replaces one piece of text in one file of a copy of the commit. It is killed if a test fails
that passes without it. The copy's tests run with this interpreter, so the dependencies must be installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CHECKS = "tests/testing/test_checks.py"
#: Kinds whose contract checks take a minute at most.
SHORT = ("attacks", "aggregators")


class Mutant(NamedTuple):
    """One mistake: `old` becomes `new` in `file`; `tests` are the files that cover the line."""

    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    # detectors
    Mutant(
        "detectors/krum.py",
        "min(self.m or round.n - f,",
        "min(self.m or round.n - f - 1,",
        "detectors/test_krum",
    ),
    Mutant(
        "detectors/krum.py", "suspects[kept] = False", "suspects[kept[1:]] = False", "detectors/test_krum"
    ),
    Mutant(
        "detectors/norm_bound.py",
        "np.where(norms > 0, np.inf, 0.0), norms > 0, why",
        "np.where(norms > 0, np.inf, 0.0), norms < 0, why",
        "detectors/test_more_detectors",
    ),
    Mutant(
        "detectors/foolsgold.py",
        "np.fill_diagonal(c[:, rows.start :], 0)",
        "np.fill_diagonal(c[:, rows.start :], 0.1)",
        "detectors/test_foolsgold",
    ),
    Mutant("detectors/foolsgold.py", "w[w == 1] = 0.99", "w[w == 1] = 0.6", "detectors/test_foolsgold"),
    Mutant(
        "detectors/afa.py",
        "return alpha / (alpha + beta) if",
        "return beta / (alpha + beta) if",
        "detectors/test_afa",
    ),
    Mutant(
        "detectors/dnc.py",
        "math.ceil(self.filter_fraction * f - 1e-9)",
        "math.ceil(self.filter_fraction * f)",
        "detectors/test_dnc",
    ),
    # attacks
    Mutant(
        "attacks/ipm.py",
        "by_all(-self.epsilon *",
        "by_all(self.epsilon *",
        "attacks/test_sent_updates attacks/test_tailored",
    ),
    Mutant(
        "attacks/lie.py",
        "by_all(mean - z * std, view)",
        "by_all(mean + z * std, view)",
        "attacks/test_sent_updates attacks/test_attack_effect",
    ),
    Mutant(
        "attacks/_gamma.py",
        "return self.mean - gamma * self.p",
        "return self.mean - 0.5 * gamma * self.p",
        "attacks/test_min_max_min_sum attacks/test_agr_tailored",
    ),
    Mutant(
        "attacks/label_flip.py",
        "return num_classes - 1 - labels",
        "return num_classes - labels",
        "attacks/test_sent_updates",
    ),
    Mutant(
        "attacks/mpaf.py",
        "(base - view.global_params)",
        "base - view.global_params",
        "attacks/test_sent_updates",
    ),
    Mutant(
        "attacks/byzantine.py",
        "return -view.own_updates",
        "return view.own_updates.neg_()",
        "attacks/test_sent_updates",
    ),
    # aggregators
    Mutant(
        "fedguard/aggregators/_middle.py",
        "middle_means(round.updates, cut, round.n - cut)",
        "middle_means(round.updates, cut, round.n - cut - 1)",
        "aggregators/test_rules",
    ),
    Mutant(
        "fedguard/aggregators/median.py",
        "return (n - 1) // 2",
        "return n // 2 - 1",
        "aggregators/test_rules",
    ),
    Mutant(
        "fedguard/aggregators/bulyan.py",
        "return 4 * (self.num_malicious or 0) + 3",
        "return 4 * (self.num_malicious or 0) + 2",
        "aggregators/test_rules",
    ),
    Mutant(
        "fedguard/aggregators/krum.py",
        "return max(0, (n - 3) // 2)",
        "return max(0, (n - 2) // 2)",
        "aggregators/test_rules detectors/test_krum",
    ),
    # rules and policies
    Mutant(
        "fedguard/contracts/rules.py",
        "suspects[_order(values)[:count]] = False",
        "suspects[_order(values)[: count + 1]] = False",
        "contracts/test_scores_rules",
    ),
    Mutant(
        "fedguard/contracts/rules.py",
        "0.6745 * (values - center) / spread",
        "0.6745 * (center - values) / spread",
        "contracts/test_scores_rules",
    ),
    Mutant(
        "fedguard/policies/ban.py",
        "s and not most and not case.excuse(i)",
        "s and not most",
        "policies/test_doubtful_verdicts policies/test_policies",
    ),
    Mutant(
        "fedguard/policies/ban.py",
        "if sentence.ban and i in spared:",
        "if sentence.ban and i not in spared:",
        "policies/test_policies",
    ),
    Mutant(
        "fedguard/policies/reweight.py",
        "weights *= np.clip(scores.weights, 0, 1)",
        "weights = np.clip(scores.weights, 0, 1)",
        "policies/test_policies",
    ),
    # the guard and judging
    Mutant(
        "fedguard/guard.py",
        "            self._load_methods(before)\n            raise",
        "            raise",
        "guard/test_guard",
    ),
    Mutant(
        "fedguard/judging/numbering.py",
        "round.index <= last and not repeat",
        "round.index < last and not repeat",
        "judging/test_round_numbers",
    ),
    Mutant(
        "fedguard/judging/too_few.py",
        "away * present // admitted)",
        "away * present // (admitted + 1))",
        "judging/test_too_few",
    ),
    # geometry
    Mutant(
        "fedguard/geometry/tables.py",
        "out.fill_diagonal_(0)",
        "out.fill_diagonal_(1e-6)",
        "geometry/test_updates geometry/test_distances",
    ),
    # ledger
    Mutant(
        "fedguard/ledger/memory.py",
        "self._records.get(str(client), (client, Record()))[1]",
        "self._records.get(client, (client, Record()))[1]",
        "ledger/test_memory",
    ),
    Mutant(
        "fedguard/ledger/memory.py",
        "if suspect and (new or round_index not in record.strikes):",
        "if suspect:",
        "ledger/test_memory judging/test_round_numbers",
    ),
    # Flower
    Mutant(
        "fedguard/flower/replies.py",
        "if len(replies) < 2 or len(kinds) > 1",
        "if len(replies) < 1 or len(kinds) > 1",
        "exchange/test_flower_roles flower/test_flower_replies",
    ),
    # metrics
    Mutant(
        "fedguard/evaluation/metrics/scores.py",
        "positive * (positive + 1) / 2) / (positive",
        "positive * (positive - 1) / 2) / (positive",
        "evaluation/test_metric_values evaluation/test_metrics",
    ),
    # what tests with smaller inputs protect
    Mutant(
        "detectors/_search.py",
        "self.updates[stay], self.squares[stay]",
        "self.updates[stay], self.squares[: len(stay)]",
        "detectors/test_fedredefense_together",
    ),
    Mutant(
        "detectors/_search.py",
        "math.isfinite(error) or step == self.caps[i]",
        "math.isfinite(error) or step == self.caps[i] + 1",
        "detectors/test_fedredefense",
    ),
    Mutant("detectors/sklearn.py", "values[twins].max()", "values[twins].min()", "detectors/test_sklearn"),
    Mutant(
        "detectors/_impact.py",
        "0.0 if a == b else a - b",
        "a - b",
        "detectors/test_err_lfr_union detectors/test_more_detectors",
    ),
    Mutant(
        "attacks/agr_tailored.py",
        "multi_krum(table, min(m, (n - 3) // 2))",
        "multi_krum(table, min(m, (n - 3) // 2) - 1)",
        "attacks/test_agr_tailored attacks/test_tailored",
    ),
    Mutant(
        "fedguard/core/restored.py",
        "part.load_state_dict(state)",
        "part.state_dict()",
        "core/test_restored core/test_strange_states",
    ),
    Mutant("fedguard/core/restored.py", "is not int or value < 0", "is not int", "core/test_restored"),
    Mutant(
        "fedguard/core/interrupts.py",
        "signal.signal(number, signal.SIG_IGN)  #",
        "pass  #",
        "core/test_interrupts",
    ),
    Mutant(
        "fedguard/evaluation/running/task.py",
        'records, clock.before = load_records(state["records"]), float(state["seconds"])',
        'clock.before = float(state["seconds"])',
        "evaluation/test_resume",
    ),
]


class Copy:
    """A commit in a folder of its own, which its tests import from."""

    def __init__(self, ref: str, folder: Path) -> None:
        self.folder = folder
        archive = subprocess.run(["git", "archive", ref], cwd=ROOT, check=True, capture_output=True)  # noqa: S603, S607
        subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)  # noqa: S607
        for name in ("detectors", "attacks", "configs"):
            (folder / "fedguard" / name).symlink_to(folder / name)

    def test(self, paths: list[str], *options: str) -> tuple[int, str]:
        """Run tests; the exit status and what pytest printed."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            *options,
            *paths,
        ]
        env = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    def paths(self, mutant: Mutant) -> list[str]:
        """The test files of a mutant; the contract's checks come last."""
        paths = [f"tests/{name}.py" for name in mutant.tests.split()]
        kind = mutant.file.removeprefix("fedguard/").partition("/")[0]
        paths += [f"tests/{kind}/test_{kind}_contract.py"]  # as earlier versions called it
        paths = [path for path in paths if (self.folder / path).exists()]
        own = f"def test_{kind}(" in (self.folder / CHECKS).read_text(encoding="utf-8")
        return [*paths, f"{CHECKS}::test_{kind}" if own else CHECKS] if kind in SHORT else paths


def verdict(copy: Copy, mutant: Mutant, paths: list[str], skip: set[str]) -> str:
    """The first test that fails, "survived", or what went wrong.

    A test that fails without the mutant as well tells nothing: it is added to ``skip``, and left out.
    """
    target = copy.folder / mutant.file
    if not target.exists():  # before its module became a package
        target = target.parent.with_suffix(".py")
    if not target.exists():
        return "does not apply: no such file"
    text = target.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"does not apply: {text.count(mutant.old)} such places"
    while True:
        target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        try:
            code, said = copy.test(paths, "-x", "-rfE", *(f"--deselect={test}" for test in skip))
        finally:
            target.write_text(text, encoding="utf-8")
        found = re.search(r"^(?:FAILED|ERROR) (.*?\.py(?:::.*?)?)(?: - .*)?$", said, re.MULTILINE)
        if found is None:
            return "survived" if code == 0 else f"pytest ended with {code}"
        if copy.test([found[1]])[0] == 0:
            return f"killed by {found[1].replace('|', '/')}"
        skip.add(found[1])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ref", default="HEAD")
    parser.add_argument("--all", action="store_true", help="survivors against the whole suite")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="mutants of files whose path contains this")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.file]
    lines = ["| file | instead of | it says | |", "|:--|:--|:--|:--|"]
    survived, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(arguments.ref, Path(folder))
        skip: set[str] = set()
        for mutant in chosen:
            said = verdict(copy, mutant, copy.paths(mutant), skip)
            if said == "survived" and arguments.all:
                said = verdict(copy, mutant, ["tests"], skip)
            survived += not said.startswith("killed")
            old, new = (" ".join(text.split()).replace("|", "¦") for text in (mutant.old, mutant.new))
            lines.append(f"| {mutant.file} | `{old}` | `{new}` | {said} |")
            print(f"{mutant.file}: {new}: {said}", flush=True)
    lines += ["", f"{len(chosen) - survived} of {len(chosen)} killed in {time.monotonic() - started:.0f} s."]
    print(lines[-1])
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
