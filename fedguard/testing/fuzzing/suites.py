"""Suites: untrusted YAML and overrides, before anything is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .case import CANARY, CODE, Mutant, Rng, Step
from .files import Victim, unplain
from .values import TEXTS, any_value, at, changed, damaged, deep, pick, ways

#: The base of the suites here.
PLAIN = """
name: fuzzed
summary: a few of everything
data: digits
model: {name: mlp}
partition: {name: dirichlet, beta: 0.5}
clients: 8
malicious: 2
assumed_malicious: 2
rounds: 3
participation: 0.9
seeds: [0, 1]
mode: closed
dropout: 0.1
late: 0.1
test_every: 2
device: cpu
training:
  steps: 2
  batch_size: 16
  lr: 0.1
  momentum: 0.9
  clip: 1.0
  lr_schedule: cosine
  optimizer: {name: rmsprop, alpha: 0.9}
  scheduler: {name: step, step_size: 2, per: step}
  loss: {name: cross_entropy, label_smoothing: 0.1}
server: {validation: 20, root: 20, lr: 1.0, optimizer: adam, tau: 0.1}
names: {lie: LIE, malicious: f}
attacks:
  none: none
  noise: {name: byzantine, mode: random, schedule: {start: 1, rejoin_after: 1}}
  lie: lie
defenses:
  nothing: none
  gold: {detector: foolsgold, policy: {name: ban, duration: 1}}
  krum: {detector: {name: krum, select: m_krum}, stages: [{name: norm_clipping, bound: 5.0}]}
  both: {detector: [norm_bound, {name: dnc}], aggregator: {name: trimmed_mean}}
grid: {partition.beta: [0.1, 1.0], malicious: [1, 2]}
only: [{attack: noise}]
exclude: [{defense: both, seed: 1}]
"""
#: Most planned runs for which a mutant is checked completely; each run is set up once.
CHECKED = 40
_SCALARS = (
    "0x" + "f" * 6000, "1:" * 200 + "1", "1:2", "0b" + "1" * 9000, "1_000", "0o17", "017", "190:20:30.15",
    "1" * 9000,
    "+" * 500, "-" * 3000 + "1", "1e" + "9" * 2000, "1." + "0" * 50_000 + "x", "~",
    "!!python/object/apply:os.system [x]",
    "!!binary AAAA", "!!set {a}", "!!float x", "!!int x", "!!timestamp 2026-99-99", "2026-01-01",
    "2026-99-99", "!x y",
    "&a [*a]", "*nowhere", "<<", "? [a]\n: b", "|\n  x", '"\\0"', '"\\ud800"', "'a\u2028b'",
    "{a: 1, a: 2}", ".nan", "-.inf",
    "[" * 900 + "]" * 900, "=", "yes", "NO", "0x", "- - - -", "%TAG", "@x", "`x`", "\t", ": :", "1.5.5",
    "_", "1__0",
)  # fmt: skip


#: What leads nowhere good: code by names that are none, pipes and devices, servers, objects from Python.
_SOURCES: tuple[Any, ...] = (
    CODE, f"{CANARY}:1", f"{CANARY}: x", f"{CANARY}:", "given:x", "given:x@y", "given:", "huggingface:a/b",
    "openml:61", "openml:x", "timm:hf_hub:a/b", "torchvision:os", "torchvision:", "flwr:Partitioner", "hf:x",
    ":", "x:y:z",
)  # fmt: skip
_PATHS = (
    "/dev/zero",
    "/dev/stdin",
    "/etc/passwd",
    ".",
    "x\x00y",
    "~nobody/x",
    "suite.yaml",
    "https://x/y.csv",
)
_PARTS: dict[str, tuple[Any, ...]] = {
    "data": tuple(
        {"name": name, "path": path, **more}
        for path in _PATHS
        for name, more in (
            ("csv", {"label": "y"}),
            ("npz", {}),
            ("image_folder", {}),
            ("parquet", {"label": "y"}),
        )
    ),
    "model": (
        "resnet20",
        {"name": "mlp", "hidden": [10**9]},
        {"name": "lenet"},
        *({"name": "torchvision:resnet18", "weights": f"{path}.pt"} for path in _PATHS),
        {"name": "torchvision:mobilenet_v2", "width_mult": 1e9},
    ),
    "partition": (
        {"name": "feature_skew", "of": {"name": "feature_skew", "of": CODE}},
        {"name": "feature_skew", "of": {}},
        {"name": "shards", "per_client": 10**9},
        {"name": "k_classes", "k": 10**9},
        "natural",
        {"name": "quantity", "sigma": 1e300},
        {"name": "similarity", "gamma": -1},
    ),
    "optimizer": ("LBFGS", "SparseAdam", {"name": "sgd", "lr": 1}, {"name": "adamw", "betas": [2, "x"]}),
    "scheduler": ("LambdaLR", "ReduceLROnPlateau", "SequentialLR", {"name": "step", "step_size": 0}),
    "loss": ("mse", "huber", {"name": "cross_entropy", "label_smoothing": 9}),
    "augment": (["flip"], [{"name": "crop", "padding": 10**6}], [CODE], [[]]),
}


class Suites:
    """Mutants of a suite that uses every feature, and of the shipped ones."""

    @cached_property
    def originals(self) -> list[dict[str, Any]]:
        """Plain trees."""
        import torch.optim  # noqa: F401 - takes a second, which no case has to spare

        from ...evaluation.suites.source import shipped_suites

        texts = [path.read_text(encoding="utf-8") for path in shipped_suites().values()]
        return [yaml.safe_load(text) for text in (PLAIN, *texts) if len(text) < 4000]

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Make a mutant of one of them, as a tree or as text."""
        victim = Victim(folder)
        tree = self.originals[0] if rng.random() < 0.8 else pick(rng, self.originals)
        words, text, path = list[str](), "", folder / "suite.yaml"
        for _ in range(int(rng.integers(1, 3))):
            tree, what = pick(rng, _TREES)(rng, tree)
            words.append(what)
        try:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=bool(rng.random() < 0.5))
        except (yaml.YAMLError, UnicodeError, RecursionError):
            text = json.dumps(tree)
        if rng.random() < 0.35:
            text, what = pick(rng, _TEXTS)(rng, text)
            words.append(what)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if rng.random() < 0.1:
            path.write_bytes(damaged(rng, path.read_bytes()))
            words.append("damaged")
        if rng.random() < 0.03:
            words.append(unplain(rng, path, victim.path))
        overrides = [_override(rng, tree) for _ in range(int(rng.integers(3)))] if rng.random() < 0.3 else []
        return Mutant(_steps(path, overrides), words + overrides, is_whole(path))


def is_whole(path: Path) -> bool:
    """Whether it is a YAML mapping with the top-level keys of a suite and the right types."""
    from pydantic import ValidationError

    from ...evaluation.suites.suite import Suite

    try:
        if not path.is_file() or path.is_symlink():
            return False
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        Suite.model_validate({**data, "grid": {}, "malicious": 1})
    except ValidationError as error:  # only the schema's errors; ranges are checked by the suite itself
        return all(problem["type"] == "value_error" for problem in error.errors())
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError, AttributeError):
        return False
    return True


def _steps(path: Path, overrides: list[str]) -> list[Step]:
    from ...evaluation.suites.check import check_suite
    from ...evaluation.suites.load import load_suite
    from ...evaluation.suites.source import assignments, read
    from ...evaluation.suites.suite import resolved

    def checked() -> None:
        plan, source = load_suite(path, overrides, allow_code=False)
        resolved(plan)
        if len(plan.cells()) <= CHECKED:
            check_suite(plan, source)

    return [
        ("read", lambda: read(str(path))),
        ("assignments", lambda: assignments(overrides)),
        ("check", checked),
    ]


# --- trees


def _any(rng: Rng, tree: Any) -> tuple[Any, str]:
    return changed(rng, tree, gentle=0.75)


def _modest(rng: Rng, tree: Any) -> tuple[Any, str]:
    """Change a number slightly, or use another known name, within the schema."""
    tree = json.loads(json.dumps(tree))
    all_ways = [way for way in ways(tree) if isinstance(at(tree, way), int | float)]
    way = pick(rng, all_ways)
    old = at(tree, way)
    new = old * pick(rng, (0, 1, 2, 3, -1)) + pick(rng, (0, 1))
    at(tree, way[:-1])[way[-1]] = new
    return tree, f"{'.'.join(map(str, way))} is {new}"


def _method(rng: Rng, tree: Any) -> tuple[Any, str]:
    """Use another method, with parameters that it may not have."""
    from ...contracts.registry import REGISTRIES

    tree = json.loads(json.dumps(tree))
    kind, home = pick(rng, (("detectors", "defenses"), ("attacks", "attacks"), ("policies", "defenses"),
                            ("stages", "defenses"), ("aggregators", "defenses")))  # fmt: skip
    name = pick(rng, REGISTRIES[kind].names())
    spec: dict[str, Any] = {"name": name}
    if rng.random() < 0.6:
        parameter = pick(
            rng, ("num_malicious", "threshold", "bound", "window", "select", "rule", "seed", "x")
        )
        spec[parameter] = any_value(rng)
    if home == "defenses":
        key = {"detectors": "detector", "policies": "policy", "stages": "stages", "aggregators": "aggregator"}
        value: Any = {"detector": "norm_bound", key[kind]: [spec] if kind == "stages" else spec}
    else:
        value = spec
    if isinstance(tree.get(home), dict):
        tree[home]["new"] = value
        tree.pop("only", None)
    return tree, f"{name} {list(spec.items())[1:]}"[:80]


def _code(rng: Rng, tree: Any) -> tuple[Any, str]:
    tree = json.loads(json.dumps(tree))
    way = pick(rng, [way for way in ways(tree) if isinstance(at(tree, way), str)])
    at(tree, way[:-1])[way[-1]] = pick(rng, (CODE, CODE, {"name": CODE}, f" {CODE}", f"{CODE}.x"))
    return tree, f"{'.'.join(map(str, way))} names code"


def _part(rng: Rng, tree: Any) -> tuple[Any, str]:
    """Use another model, data set, partition or step of training, of any source."""
    tree = json.loads(json.dumps(tree))
    key = pick(rng, tuple(_PARTS))
    spec = pick(rng, (*_PARTS[key], *_SOURCES))
    if not isinstance(spec, dict) and rng.random() < 0.3:
        spec = {"name": spec, pick(rng, ("path", "weights", "of", "resize", "lr", "x")): any_value(rng)}
    home = tree if key in ("data", "model", "partition") else tree.setdefault("training", {})
    if isinstance(home, dict):
        home[key] = spec
        tree.pop("grid", None)
    return tree, f"{key} is {spec!r}"[:80]


def _recording(rng: Rng, tree: Any) -> tuple[Any, str]:
    return {
        **tree,
        "recording": pick(rng, (".", "/dev/zero", "x\x00y", "~nobody/x", *TEXTS)),
    }, "on a recording"


def _grid(rng: Rng, tree: Any) -> tuple[Any, str]:
    tree = json.loads(json.dumps(tree))
    path = ".".join(map(str, pick(rng, list(ways(tree)))))
    values = [any_value(rng) for _ in range(int(rng.integers(4)))]
    tree["grid"] = {
        pick(rng, (path, path, "x.y", ".", "", "attacks..x", "defenses.krum.detector.0.x")): values
    }
    return tree, f"grid {next(iter(tree['grid']))}"


_TREES: tuple[Callable[[Rng, Any], tuple[Any, str]], ...] = (
    _any, _any, _any, _modest, _modest, _modest, _method, _method, _code, _part, _recording,
    _grid,
)  # fmt: skip


# --- texts


def _scalar(rng: Rng, text: str) -> tuple[str, str]:
    """Replace a value by a scalar that YAML parses in an unexpected way."""
    scalar, spots = pick(rng, _SCALARS), list(re.finditer(r": ([^\s{\[].*)$", text, re.MULTILINE))
    if not spots:
        return scalar, "a scalar alone"
    spot = pick(rng, spots)
    return text[: spot.start(1)] + scalar + text[
        spot.end(1) :
    ], f"{text[spot.start() - 12 : spot.start()]!r}: {scalar[:20]}"


def _merge(rng: Rng, text: str) -> tuple[str, str]:
    many = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    head = pick(
        rng,
        (
            "anchors: &base {clients: 6, rounds: 2}\n<<: *base\n",
            "anchors: &base {clients: 6}\n<<: [*base, *base]\n",
            "anchors: &base {<<: *base}\n",
            "<<: 3\n",
            "<<: [1, {clients: 6}]\n",
            f"a0: &a0 [x, x, x]\n{many}",
            "anchors: &x [*x]\n",
            "anchors: &m {k: 1}\ntraining: {<<: [" + ", ".join(["*m"] * 3000) + "]}\n",
        ),
    )  # fmt: skip
    return head + text, f"merged: {head[:40]!r}"


def _frame(rng: Rng, text: str) -> tuple[str, str]:
    """Add text around the document."""
    before, after = pick(
        rng,
        (
            ("\ufeff", ""), ("---\n", "\n---\nx: 1\n"), ("%YAML 9.9\n---\n", ""), ("\x00", ""), ("",
            "\x00"), ("\t", ""),
            ("# " + "x" * 100_000 + "\n", ""), ("", "\n" * 200_000), ("", "x: " + "y" * 500_000), ("[",
            "]"),
            ("", f"anchors: {json.dumps(deep(rng))}\n"), ("", '? {a: b}\n: c\n'), ("", "\x85\u2028\x0c"),
            ("- ", ""),
            ("", "anchors: '" + "a''" * 50_000 + "'\n"), ("",
            "anchors: {" + "a: {" * 2000 + "}" * 2001 + "\n"),
        ),
    )  # fmt: skip
    return before + text + after, f"between {before[:10]!r} and {after[:20]!r}"


_TEXTS = (_scalar, _scalar, _scalar, _merge, _frame)


def _override(rng: Rng, tree: Any) -> str:
    keys = [".".join(map(str, way)) for way in ways(tree)]
    key = pick(rng, (*(["x", "", ".", "a..b", "attacks.0.x", "1"] if rng.random() < 0.3 else keys), "rounds"))
    value = pick(rng, (*_SCALARS, "1", "[1, 2]", "{a: 1}", "null", CODE)) if rng.random() < 0.5 else "2"
    return str(pick(rng, (f"{key}={value}", f"{key}={value}", key, f"={value}")))
