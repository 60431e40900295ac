"""``fedguard rollback``: the model of a recording without the clients that were banned too late."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ...contracts.aggregator import Aggregator
from ...contracts.data import LabeledData
from ...contracts.registry import make_aggregator
from ...core.errors import ConfigError, ParameterError, ResultsError, RoundError
from ...core.files import not_written, save_tensors, write_atomically
from ...core.ids import ClientId
from ...core.named_code import find_here, refuse_code
from ...core.threads import single_thread
from ...recording import Recording
from ...recording.index import INDEX
from ...recording.removal import applied_again, banned_in, entry_of, known_among
from ...simulation.build import build_aggregator
from ...simulation.recorded import Roster, cell_of
from ...simulation.removal import final_model, measured, optimizer_of, retrained
from ...simulation.settings import Cell
from ...simulation.setup import setup_for
from ...training.parameters import error_and_loss, fitting, flat_statistics, load_parameters
from ..terminal import plain

#: From this deviation on, the result says that the server moved its model by another rule.
NOTICED = 1e-3


@dataclass(frozen=True, eq=False)
class RolledBack:
    """A model without some clients.

    Attributes:
        exact: True if the run was repeated without them; False if the recorded updates were applied again.
        without: their ids.
        entered: the first recorded round in which one of them took part.
        last: the last recorded round.
        params: (d,) the model.
        model: its architecture, with these parameters; None if it is unknown.
        accuracy: (before, after) on test data, as fractions; NaN if there are none.
        success: (before, after) the attack success rate, likewise.
        notes: what limits the result, in words.
    """

    exact: bool
    without: tuple[ClientId, ...]
    entered: int
    last: int
    params: Tensor
    model: nn.Module | None
    accuracy: tuple[float, float]
    success: tuple[float, float]
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """How the model was made, in words."""
        if self.exact:
            return f"exact: retrained without them from round {self.entered} on"
        return f"approximate: the recorded updates from round {self.entered} on, applied again without theirs"

    def save(self, path: Path | str) -> None:
        """Write the model as a safetensors file, atomically and never through a link.

        With a known architecture the tensors have the names of its state dict, otherwise there is one,
        ``parameters``. The metadata say who was left out and how.

        Raises:
            ConfigError: the name does not end in .safetensors, or the file cannot be written.
        """
        out = Path(path)
        if out.suffix != ".safetensors":
            raise ConfigError(f"cannot write {out}: use a name that ends in .safetensors")
        named = {"parameters": self.params} if self.model is None else self.model.state_dict()
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in named.items()}
        about = {
            "exact": self.exact,
            "without": list(self.without),
            "entered": self.entered,
            "last": self.last,
        }
        try:
            metadata = {"fedguard rollback": json.dumps(about)}
            write_atomically(out, lambda fresh: save_tensors(tensors, fresh, metadata))
        except OSError as error:
            raise ConfigError(not_written(out, error)) from None

    def __str__(self) -> str:
        """The lines that the command prints."""
        names = " ".join(plain(str(name)) for name in self.without)
        count = len(self.without)
        lines = [f"without {count} client{'s' * (count != 1)}: {names}", self.method]
        for what, (before, after) in (("accuracy", self.accuracy), ("attack success", self.success)):
            if not math.isnan(after):
                lines.append(f"{what}: {100 * before:.1f} % before, {100 * after:.1f} % after")
        return "\n".join([*lines, *self.notes])


def rollback(
    recording: Recording | Path | str,
    without: Sequence[ClientId] | None = None,
    approximate: bool = False,
    aggregator: Aggregator | str | None = None,
    model: nn.Module | None = None,
    test: LabeledData | None = None,
    triggered: LabeledData | None = None,
    allow_code: bool = False,
) -> RolledBack:
    """The model of a recorded run without some clients: exact in a simulation, approximate otherwise.

    Exact: the run is repeated from its settings, and the clients are banned from the round on in which they
    entered. Approximate: from the global model of that round on, the recorded updates are applied again
    without theirs (:func:`fedguard.recording.removal.applied_again`).

    Args:
        recording: what a recorder wrote, or its folder.
        without: ids of clients; those whose latest recorded verdict is a ban if absent.
        approximate: apply recorded updates again in a simulation, too.
        aggregator: the server's rule, for the approximation; if absent a simulation's own, or the mean.
        model: the architecture, of a recording that does not come from a simulation.
        test: data to measure such a model's accuracy on.
        triggered: inputs that carry the attacker's trigger, with the attacker's labels, to measure attack
            success on.
        allow_code: import classes that the recording names.

    Raises:
        ConfigError: nobody is banned, or the recording names code that may not be imported.
        ParameterError: a client is unknown, or an argument does not go with this recording.
        ResultsError: the recording is damaged, or its run is another one when it is repeated here.

    Example:
        >>> import tempfile
        >>> import fedguard
        >>> from fedguard.recording import Recorder
        >>> sent = [[1.0, 0.0], [3.0, 0.0], [0.0, 9.0]]
        >>> round = fedguard.Round(sent, ["a", "b", "c"], global_params=[0, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Recorder(folder) as recorder:
        ...         outcome = fedguard.Guard(observers=[recorder]).process(round)
        ...     fedguard.rollback(folder, without=["c"]).params
        tensor([2., 0.])
    """
    own = recording if isinstance(recording, Recording) else Recording(recording)
    _check(own)
    cell = _permitted(own, allow_code)
    if cell is not None and not (model is None and test is None and triggered is None):
        raise ParameterError("model, test and triggered belong to live recordings; a simulation has its own")
    with single_thread():
        clients = _clients(own, without, cell)
        if cell is not None and not approximate:
            if aggregator is not None:
                raise ParameterError("aggregator goes with the approximation; the repeated run has its own")
            return _exact(own, clients, cell)
        rule = make_aggregator(aggregator) if isinstance(aggregator, str) else aggregator
        return _approximate(own, clients, cell, rule, (model, test, triggered))


def _check(recording: Recording) -> None:
    problems = recording.check()
    if recording.whole < len(recording.index.rounds) or len(recording) == 0:
        raise ResultsError("; ".join(problems) or f"{recording.folder} holds no round")


def _permitted(recording: Recording, allow_code: bool) -> Cell | None:
    """The settings of the recorded simulation, refused if they name code."""
    cell = cell_of(recording)
    if cell is not None:
        settings = cell.model_dump(mode="json")
        if not allow_code:
            refuse_code(settings, recording.folder / INDEX, ("about", "cell"))
        find_here(settings)
    return cell


def _clients(
    recording: Recording, without: Sequence[ClientId] | None, cell: Cell | None
) -> tuple[ClientId, ...]:
    found = banned_in(recording) if without is None else known_among(recording, without)
    if not found:
        raise ConfigError(f"{recording.folder}: nobody is banned at its end; name clients with --without")
    if cell is None:
        return tuple(found)
    roster = Roster(recording)  # an attacker that came back has several ids
    numbers = sorted({roster.number(name) for name in found})
    seen = {str(name) for at in range(len(recording)) for name in recording.words(at)["client_ids"]}
    return tuple(name for number in numbers for name in roster.names[number] if str(name) in seen)


def _exact(recording: Recording, clients: tuple[ClientId, ...], cell: Cell) -> RolledBack:
    if recording.index.rotated or recording.index.missed:
        raise ResultsError(
            f"{recording.folder} lacks rounds, so the round that they entered in is unknown; remove them "
            "approximately"
        )
    roster, rounds = Roster(recording), recording.index.rounds
    entered = rounds[entry_of(recording, clients)].index
    before = final_model(recording)
    after = retrained(recording, {roster.number(name) for name in clients}, entered)
    return _of_simulation(cell, True, clients, (entered, rounds[-1].index), (before, after), ())


def _approximate(
    recording: Recording,
    clients: tuple[ClientId, ...],
    cell: Cell | None,
    rule: Aggregator | None,
    given: tuple[nn.Module | None, LabeledData | None, LabeledData | None],
) -> RolledBack:
    if cell is not None:
        rule = rule or build_aggregator(cell)
    found = applied_again(recording, clients, rule, optimizer_of(cell) if cell else None)
    notes, last = _notes(recording, found.entered, found.deviation), recording.index.rounds[-1].index
    span, models = (found.entered, last), (found.before, found.params)
    if cell is not None:
        return _of_simulation(cell, False, clients, span, models, notes)
    model, test, triggered = given
    if model is None and (test is not None or triggered is not None):
        raise ParameterError("test and triggered data need the model")
    rates = [_rates(model, data, models) for data in (test, triggered)]
    own = None if model is None else _loaded(model, found.params, recording)
    if own is not None and len(flat_statistics(own)):
        notes = (*notes, "statistics of BatchNorm are not recorded: the model keeps those that it came with")
    return RolledBack(False, clients, *span, found.params, own, rates[0], rates[1], notes)


def _notes(recording: Recording, entered: int, deviation: float) -> tuple[str, ...]:
    notes = []
    if recording.index.rotated and entered == recording.index.rounds[0].index:
        notes.append(
            f"{recording.index.rotated} older rounds were dropped to save space: what these clients did in "
            "them remains in the model"
        )
    if recording.index.missed:
        notes.append(f"{len(recording.index.missed)} rounds were not recorded: what they did remains")
    if recording.index.dtype == "float16":
        notes.append("the updates were recorded with 11 significant bits")
    if deviation > NOTICED:
        notes.append(
            f"the server moved its model by another rule than assumed (up to {100 * deviation:.2g} % off): "
            "see --aggregator"
        )
    return tuple(notes)


def _of_simulation(
    cell: Cell,
    exact: bool,
    clients: tuple[ClientId, ...],
    span: tuple[int, int],
    models: tuple[Tensor, Tensor],
    notes: tuple[str, ...],
) -> RolledBack:
    before, after = (measured(cell, params) for params in models)
    model = copy.deepcopy(setup_for(cell).model)
    load_parameters(model, models[1])
    accuracy, success = zip(before, after, strict=True)
    return RolledBack(exact, clients, *span, models[1], model, accuracy, success, notes)


def _rates(
    model: nn.Module | None, data: LabeledData | None, models: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    if model is None or data is None:
        return math.nan, math.nan
    before, after = (1 - error_and_loss(model, params, data)[0] for params in models)
    return before, after


def _loaded(model: nn.Module, params: Tensor, recording: Recording) -> nn.Module:
    own = copy.deepcopy(model)
    try:
        fitting(own, len(params))
    except RoundError as error:
        raise ResultsError(f"{recording.folder} was recorded with another model: {error}") from None
    load_parameters(own, params)
    return own
