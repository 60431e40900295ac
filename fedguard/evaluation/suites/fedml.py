"""FedML's configuration as a suite: its training, ``attack_args`` and ``defense_args``.

Read: FedSecurity (KDD 2024), Figure 1 and Tables 1 and 2; FedML's ``core/security`` and the example
configurations of its security experiments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.params import nearest
from ...core.yaml_values import Path_
from .fedml_methods import ATTACKS, DEFENSES, Method, Pieces
from .source import Source, read

#: Sections about where and how FedML runs, which change no result.
ELSEWHERE = ("environment_args", "device_args", "comm_args", "tracking_args")
#: Keys of other sections of which the same is true.
IDLE = {
    "training_type",
    "scenario",
    "using_mlops",
    "config_version",
    "data_cache_dir",
    "model_file_cache_folder",
    "global_model_file_path",
    "client_id_list",
}
DATA = {
    "mnist": "mnist",
    "cifar10": "cifar10",
    "fashionmnist": "fashion_mnist",
    "fashion_mnist": "fashion_mnist",
}
MODELS = {
    "lr": "logistic_regression",
    "cnn": "fedavg_cnn",
    "lenet": "lenet",
    "resnet20": "resnet20",
    "resnet56": "resnet56",
    "rnn": "lstm",
}
ALGORITHMS = {
    "fedavg": "fedavg",
    "fedsgd": "fedsgd",
    "fedprox": "fedprox",
    "fednova": "fednova",
    "fedopt": "fedavg",
}
#: FedML's key → the suite's key path, for values that need no translation.
SAME: dict[str, Path_] = {
    "client_num_in_total": ("clients",),
    "comm_round": ("rounds",),
    "epochs": ("training", "epochs"),
    "batch_size": ("training", "batch_size"),
    "client_optimizer": ("training", "optimizer"),
    "learning_rate": ("training", "lr"),
    "weight_decay": ("training", "weight_decay"),
    "momentum": ("training", "momentum"),
    "fedprox_mu": ("training", "proximal"),
    "server_optimizer": ("server", "optimizer"),
    "server_lr": ("server", "lr"),
    "frequency_of_the_test": ("test_every",),
}


def read_fedml(path: str) -> Source:
    """The suite that a FedML configuration describes, with the lines of the file for messages.

    The suite has one attack and one defense; override ``attacks`` and ``defenses`` for more.

    Raises:
        ConfigError: with file, line and key, where something has no counterpart here.
    """
    file = read(path)
    if not isinstance(file.data, dict) or not any(str(key).endswith("_args") for key in file.data):
        raise file.error((), "a FedML configuration has sections such as train_args and attack_args")
    return Translation(file, Path(path).stem).suite()


class Translation:
    """A FedML file on its way to a suite.

    Args:
        file: the parsed file.
        name: the suite's name.
    """

    def __init__(self, file: Source, name: str) -> None:
        self.file = file
        self.result = Source(file.name, {"name": name})
        self.left: dict[str, Path_] = {}  # key → where it stands
        for section, keys in file.data.items():
            if section in ELSEWHERE or section in ("attack_args", "defense_args"):
                continue
            if not isinstance(keys, dict) or not str(section).endswith("_args"):
                raise file.error((section,), "not a section of FedML's configuration")
            self.left |= {key: (section, key) for key in keys if key not in IDLE}

    def suite(self) -> Source:
        """Translate everything, and refuse what is left."""
        for key, target in SAME.items():
            if key in self.left:
                self.put(target, *self.take(key))
        self.choose("dataset", ("data",), DATA, "is not among the data sets here")
        self.choose("model", ("model",), MODELS, "is not among the models here")
        self.choose("federated_optimizer", ("training", "algorithm"), ALGORITHMS, "is not built here")
        self._partition()
        if "random_seed" in self.left:
            value, path = self.take("random_seed")
            self.put(("seeds",), [value], path)
        if "client_num_per_round" in self.left:
            value, path = self.take("client_num_per_round")
            total = self.clients()
            if not isinstance(value, int) or not 1 <= value <= total:
                raise self.file.error(path, f"is {value}; use 1 to client_num_in_total, {total}")
            self.put(("participation",), value / total, path)
        for key, path in self.left.items():
            known = [*SAME, "dataset", "model", "partition_method"]
            raise self.file.error(path, f"has no counterpart here{nearest(key, known)}; remove it")
        self._methods("attack", ATTACKS, ("attacks",))
        self._methods("defense", DEFENSES, ("defenses",))
        return self.result

    def clients(self) -> int:
        """The number of clients."""
        value = self.result.data.get("clients", 0)
        return value if isinstance(value, int) else 0

    def per_round(self) -> int:
        """The clients of a round."""
        share: float = self.result.data.get("participation", 1.0)
        return round(share * self.clients())

    def take(self, key: str) -> tuple[Any, Path_]:
        """A key's value and place; it is no longer left."""
        path = self.left.pop(key)
        return self.file.data[path[0]][key], path

    def put(self, target: Path_, value: Any, origin: Path_) -> None:
        """Set a value of the suite; messages about it name the line in FedML's file."""
        inner = self.result.data
        for part in target[:-1]:
            inner = inner.setdefault(part, {})
        inner[target[-1]] = value
        line = self.file.lines.get(origin)
        if line is not None:
            self.result.lines[target] = line

    def choose(self, key: str, target: Path_, names: dict[str, str], otherwise: str) -> None:
        """Translate a name; FedML writes it in any case."""
        if key not in self.left:
            return
        value, path = self.take(key)
        if str(value).lower() not in names:
            raise self.file.error(path, f"{value} {otherwise}; known: {', '.join(names)}")
        self.put(target, names[str(value).lower()], path)

    def _partition(self) -> None:
        alpha, place = self.take("partition_alpha") if "partition_alpha" in self.left else (0.5, ())
        if "partition_method" not in self.left:
            return
        method, path = self.take("partition_method")
        if method not in ("homo", "hetero"):
            raise self.file.error(path, f"{method} has no counterpart; known: homo, hetero")
        spec = {"name": "dirichlet", "beta": alpha} if method == "hetero" else {"name": "iid"}
        self.put(("partition",), spec, place if method == "hetero" and place else path)

    def _methods(self, kind: str, table: dict[str, Method], target: Path_) -> None:
        """Translate ``attack_args`` or ``defense_args``."""
        section = f"{kind}_args"
        given = self.file.data.get(section) or {}
        if not isinstance(given, dict):
            raise self.file.error((section,), "must be a mapping")
        label, type_key = "none" if kind == "attack" else "no_defense", f"{kind}_type"
        if not given.get(f"enable_{kind}", False):
            self.put(target, ["none"] if kind == "attack" else {label: {}}, (section,))
            return
        if type_key not in given:
            raise self.file.error((section,), f"is enabled, but has no {type_key}")
        name = str(given[type_key]).strip()
        if name not in table:
            raise self.file.error(
                (section, type_key),
                f"unknown {kind} {name!r}{nearest(name, table)}; known: {', '.join(table)}",
            )
        method = table[name]
        rest = {
            k: v for k, v in given.items() if k not in (f"enable_{kind}", type_key, "federated_optimizer")
        }
        for key in rest:
            if key not in method.keys:
                raise self.file.error(
                    (section, key), f"{name} takes {', '.join(method.keys) or 'no parameters'} here"
                )
        try:
            pieces = method.build(rest, self.clients(), self.per_round())
        except ConfigError as error:
            raise self.file.error((section, type_key), f"{name}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            missing = f"needs {error}" if isinstance(error, KeyError) else str(error)
            raise self.file.error((section, type_key), f"{name} {missing}") from None
        self._place(target, name, pieces, section)

    def _place(self, target: Path_, name: str, pieces: Pieces, section: str) -> None:
        self.put(target, [pieces.spec] if target == ("attacks",) else {name: pieces.spec}, (section,))
        for key, value in pieces.settings.items():
            self.put((key,), value, (section,))
