"""Flower replies: arrays, their headers and labels, metrics, other records, errors, metadata."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from ...flower import GuardedStrategy
from ..flower import Answer, Arrays, MemoryGrid, arrays_record, reply
from .case import Mutant, Rng
from .flower import DETECTORS, GLOBAL, HONEST, guard, honest, inner, played, step, unharmed
from .values import TEXTS, damaged, floats, pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The node that sends mutants.
HOSTILE = 9
ROUNDS = 2
DTYPES = (
    "f2", "f4", "f8", "f16", ">f4", ">f8", "i1", "i2", "i4", "i8", "u1", "u8", "bool", "c8", "c16", "S4",
    "U2", "V8",
    "M8[s]", "m8[ns]",
)  # fmt: skip
SHAPES = (
    (3, 4), (4, 3), (12,), (1, 3, 4), (), (0,), (3, 0), (3,), (1,), (2**62,), (10**30,), (0, 2**62),
    (0, 10**30), (1,) * 65, (1,) * 40, (-1,), (3, -4), (2**32, 2**32),
)  # fmt: skip
HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }", "{'descr': '<f4'}", "{}", "", "(" * 200,
    "[" * 9000,
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "{'descr': '<f4', 'fortran_order': 2, 'shape': (3, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3)}", "1" * 6000,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 900 + ")}",
    "{'descr': ('<f4', (3, 4)), 'fortran_order': False, 'shape': ()}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,)}", "{'a': 1, 'a': 2}", "\x00" * 90, "b'x'",
    "{'descr': ',' * 9}",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 10**9, 2**62, 2**63 - 1, -(2**63), 0.0, -0.0, 1e-320, 1e308, -1e308, math.nan, math.inf,
    -math.inf, 0.5,
    [], [1], [1.0, math.nan], [2**62] * 50,
)  # fmt: skip
CONFIGS: tuple[Any, ...] = (1, "x", b"\x00", True, [1], ["\x1b"], [b"x"], [])


class FlowerReplies:
    """Mutants of one node's replies, with five honest nodes, for two rounds."""

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Make a federation with one hostile node."""
        detector = pick(rng, DETECTORS)
        state = folder / "state" if rng.random() < 0.1 else None
        refusal, silent = pick(rng, ("keep", "keep", "pass")), pick(rng, ("suspect", "suspect", "ignore"))
        strategy = GuardedStrategy(
            inner(rng, bool(rng.random() < 0.4)),
            guard(rng, detector),
            state=state,
            on_refusal=refusal,
            silent=silent,
            patience=0.0,
        )
        changes = [pick(rng, CHANGES) for _ in range(1 + int(rng.random() < 0.4))]
        start, again = int(rng.integers(2**31)), rng.random() < 0.5

        def hostile(arrays: Arrays, message: Message) -> Answer:
            """Apply the same mutation in every round, with other numbers in some."""
            draw = np.random.default_rng(start if again else (start, len(grid.asked)))
            evaluating = message.metadata.message_type == "evaluate"
            return mutated(draw, changes, arrays, message, evaluating)

        grid = MemoryGrid({**{node: honest(rng, node) for node in HONEST}, HOSTILE: hostile})
        probe = _Probe(np.random.default_rng(start if again else (start, 1)), changes)

        def check() -> None:
            if not detector:
                unharmed(strategy)

        return Mutant(
            [("start", lambda: played(strategy, grid, ROUNDS))],
            [change.__name__.strip("_") for change in changes] + [detector or "no detector"],
            probe.whole(),
            check,
            lambda: any(row.node == HOSTILE and row.weight == 0 for row in strategy.verdicts),
        )


def mutated(rng: Rng, changes: list[Change], arrays: Arrays, message: Message, evaluating: bool) -> Answer:
    """Return an ordinary reply after these changes."""
    content = reply(step(rng, arrays), examples=12)
    if evaluating:
        content = RecordDict({"metrics": MetricRecord({"num-examples": 12, "loss": 0.5})})
    answer: Answer = content
    for change in changes:
        if isinstance(answer, RecordDict):
            answer = change(rng, answer, message)
    return answer


class _Probe:
    """The first reply, to check whether it is well-formed."""

    def __init__(self, rng: Rng, changes: list[Change]) -> None:
        self.rng = rng
        self.changes = changes

    def whole(self) -> bool:
        """Whether headers, labels, names, shapes and the example count are as expected."""
        record = RecordDict({"arrays": arrays_record(GLOBAL)})
        message = Message(record, dst_node_id=HOSTILE, message_type="train")
        message.metadata.__dict__["_message_id"] = "x"
        content = mutated(self.rng, self.changes, GLOBAL, message, False)
        if isinstance(content, Message) and content.has_content():
            content = content.content
        return isinstance(content, RecordDict) and well_formed(content)


def well_formed(content: RecordDict) -> bool:
    """Whether a reply looks like an ordinary client's, except for its numbers."""
    records, metrics = list(content.array_records.values()), list(content.metric_records.values())
    if len(records) != 1 or len(metrics) != 1 or set(records[0]) != set(GLOBAL):
        return False
    count = metrics[0].get("num-examples")
    if not isinstance(count, int | float) or not 0 < count < 1e9:
        return False
    return all(_readable(records[0][name], old) for name, old in GLOBAL.items())


def _readable(array: Array, old: NDArray[Any]) -> bool:
    try:
        read = np.load(io.BytesIO(array.data), allow_pickle=False)
    except Exception:  # anything may be raised
        return False
    told = (tuple(array.shape), array.dtype, array.stype)
    return told == (read.shape, str(read.dtype), "numpy.ndarray") and read.shape == old.shape


# --- changes of a reply

Change = Callable[[Rng, RecordDict, Message], Answer]


def _with(content: RecordDict, name: str, array: Array) -> RecordDict:
    ((key, record),) = list(content.array_records.items())[:1] or [("arrays", ArrayRecord())]
    record[name] = array
    content[key] = record
    return content


def _one(rng: Rng, content: RecordDict) -> str:
    return str(pick(rng, list(GLOBAL)))


def _numbers(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Change the numbers in one array, or in all."""
    for name in GLOBAL if rng.random() < 0.5 else [_one(rng, content)]:
        old = GLOBAL[name]
        if old.dtype.kind == "i":
            new: Any = np.full_like(old, pick(rng, (0, -1, 2**62, -(2**63))))
        else:
            new = floats(rng, old.shape)
        content = _with(content, name, Array(new))
    return content


def _dtype(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Change the dtype, announced correctly, of one array or of all."""
    dtype = pick(rng, DTYPES)
    for name in GLOBAL if rng.random() < 0.4 else [_one(rng, content)]:
        with np.errstate(all="ignore"):
            array = np.zeros(GLOBAL[name].shape, dtype) if dtype[0] in "SUVMm" else GLOBAL[name].astype(dtype)
        content = _with(content, name, _as_sent(array))
    return content


def _as_sent(
    array: NDArray[Any], shape: Any = None, dtype: str | None = None, stype: str = "numpy.ndarray"
) -> Array:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    shape = array.shape if shape is None else shape
    return Array(dtype=dtype or str(array.dtype), shape=shape, stype=stype, data=file.getvalue())


def _shape(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Change the shape in the header and the announcement, but not the number of bytes."""
    shape, name = pick(rng, SHAPES), _one(rng, content)
    text = f"{{'descr': '<f4', 'fortran_order': {bool(rng.random() < 0.3)}, 'shape': {shape!r}, }}"
    size = min(math.prod(shape), 12) if rng.random() < 0.7 else 12
    return _with(content, name, _headed(text, b"\0" * max(0, 4 * size), shape, "float32"))


def _headed(text: str, body: bytes, shape: Any, dtype: str, version: tuple[int, int] = (1, 0)) -> Array:
    header = text.encode("latin1", "replace")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    length = (
        len(header).to_bytes(2 if version[0] == 1 else 4, "little") if len(header) < 2**16 else b"\xff\xff"
    )
    data = b"\x93NUMPY" + bytes(version) + length + header + body
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)


def _header(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Replace the header by a wrong or unreadable one."""
    version = pick(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    array = _headed(pick(rng, HEADERS), b"\0" * 48, (3, 4), "float32", version)
    return _with(content, "fc.weight", array)


def _label(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Announce something else than the bytes hold."""
    shape = pick(rng, SHAPES) if rng.random() < 0.5 else None
    dtype = pick(rng, (*TEXTS, "float64", "object")) if rng.random() < 0.5 else None
    stype = pick(rng, ("numpy.ndarray", "numpy.ndarray", "torch", "", *TEXTS))
    name = _one(rng, content)
    return _with(content, name, _as_sent(GLOBAL[name], shape, dtype, stype))


def _bytes(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Damaged bytes."""
    name = _one(rng, content)
    old = _as_sent(GLOBAL[name])
    data = damaged(rng, old.data) if rng.random() < 0.8 else pick(rng, (b"", b"\x93NUMPY", b"\x80\x04." * 9))
    return _with(content, name, Array(dtype=old.dtype, shape=old.shape, stype=old.stype, data=data))


def _names(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Remove, add or rename an array, or reorder all."""
    arrays = {name: array for record in content.array_records.values() for name, array in record.items()}
    names = list(arrays)
    if not names:
        return content
    how, name = int(rng.integers(4)), pick(rng, names)
    if how == 0:
        names = [names[i] for i in rng.permutation(len(names))]
    elif how == 1:
        names.remove(name)
    else:
        arrays[new := pick(rng, TEXTS).encode(errors="replace").decode()] = arrays[name]
        names = [*(n for n in names if n != name or how == 3), new]
    content["arrays"] = ArrayRecord({n: arrays[n] for n in names})
    return content


def _metrics(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Change numbers, keys or lists in the metrics."""
    numbers = dict(next(iter(content.metric_records.values()), MetricRecord()))
    key = pick(rng, ("num-examples", "num-examples", "loss", *TEXTS)).encode(errors="replace").decode()
    if key in numbers and rng.random() < 0.3:
        del numbers[key]
    else:
        numbers[key] = pick(rng, NUMBERS)
    content["metrics"] = MetricRecord(numbers)
    return content


def _records(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Add, remove or rename records."""
    name = pick(rng, TEXTS).encode(errors="replace").decode()
    records: dict[str, Any] = dict(content)
    how = int(rng.integers(5))
    if how == 0 and records:
        del records[pick(rng, list(records))]
    elif how == 1 and records:
        records[name] = records.pop(pick(rng, list(records)))
    elif how == 2:
        records[name] = pick(
            rng, (MetricRecord({"x": 1}), arrays_record(GLOBAL), ArrayRecord(), MetricRecord())
        )
    else:
        secure = rng.random() < 0.3
        records["secaggplus_configs" if secure else name] = ConfigRecord({name: pick(rng, CONFIGS)})
    return RecordDict(records)


def _error(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Reply with an error, or not at all."""
    if rng.random() < 0.2:
        return None
    reason = pick(rng, TEXTS).encode(errors="replace").decode()
    return Error(int(pick(rng, (0, 1, -1, 2**31 - 1, 7))), pick(rng, (reason, reason, None)))


def _metadata(rng: Rng, content: RecordDict, message: Message) -> Answer:
    """Change the message's metadata."""
    made = Message(content, reply_to=message)
    text = pick(rng, TEXTS)
    values: dict[str, Any] = {
        "src_node_id": pick(rng, (1, 2, 0, -1, 2**63, HOSTILE)),
        "dst_node_id": pick(rng, (0, 1, 2**64)),
        "reply_to_message_id": pick(rng, ("message-1", "message-2", text)),
        "message_id": text,
        "group_id": text,
        "ttl": pick(rng, (0.0, -1.0, 1e300, math.nan)),
        "message_type": pick(rng, ("train", "evaluate", "query", text)),
        "created_at": pick(rng, (0.0, -1e300, math.nan)),
        "run_id": pick(rng, (0, 2**63)),
    }
    key = pick(rng, list(values))
    made.metadata.__dict__[f"_{key}"] = values[key]
    return made


CHANGES: tuple[Change, ...] = (
    _numbers, _numbers, _numbers, _dtype, _dtype, _shape, _header, _label, _bytes, _names, _metrics,
    _metrics,
    _records, _error, _metadata, _metadata,
)  # fmt: skip
