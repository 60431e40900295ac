"""What clients may send to harm the server: each is its sender's fault, and nobody else's."""

import io

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedguard import Guard, make_policy
from fedguard.core.errors import SecureAggregationError
from fedguard.flower import GuardedStrategy
from fedguard.flower.arrays import Malformed, clean, read
from fedguard.testing.flower import MemoryGrid, arrays_record, reply

GLOBAL = {"a": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array([5.0], np.float32)}


def moved(step):
    return lambda arrays, message: reply({k: a + np.float32(step) for k, a in arrays.items()})


HONEST = {1: moved(1), 2: moved(2), 3: moved(3)}


class Watched(FedAvg):
    """Notes what it is given."""

    def __init__(self, **settings):
        super().__init__(fraction_evaluate=0.0, **settings)
        self.seen = []

    def aggregate_train(self, server_round, replies):
        self.seen.append(sorted(m.metadata.src_node_id for m in replies))
        return super().aggregate_train(server_round, replies)


def verdict_on(client, **settings):
    """What a round says of node 9, with three honest clients beside it; they must not suffer."""
    strategy = GuardedStrategy(inner := Watched(), Guard(policy=make_policy("ban", strikes=2)), **settings)
    grid = MemoryGrid({9: client, **HONEST})
    result = strategy.start(grid, arrays_record(GLOBAL), num_rounds=1, timeout=5)
    assert inner.seen == [[1, 2, 3]]
    assert result.arrays["b"].numpy() == pytest.approx([7.0])
    rows = {row.node: row for row in strategy.verdicts}
    assert all(rows[n].weight == 1 and not rows[n].suspect for n in HONEST)
    return rows.get(9)


def with_arrays(**changes):
    return lambda arrays, message: reply({**arrays, **changes})


def without(name):
    return lambda arrays, message: reply({k: a for k, a in arrays.items() if k != name})


def with_metrics(**changes):
    def client(arrays, message):
        content = reply(arrays)
        content["metrics"] = MetricRecord({"num-examples": 10, "loss": 0.5, **changes})
        return content

    return client


def with_record(change):
    def client(arrays, message):
        content = reply(arrays)
        change(content)
        return content

    return client


def raw(data=None, **fields):
    """Array b with other bytes, or with a label that lies."""
    good = Array(GLOBAL["b"])
    fake = {
        "dtype": good.dtype,
        "shape": good.shape,
        "stype": good.stype,
        "data": data or good.data,
        **fields,
    }

    def change(content):
        content["arrays"]["b"] = Array(**fake)

    return with_record(change)


def npy(array, **settings):
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def header(text):
    """A .npy file of one float32 whose header says ``text``."""
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + b"\x00" * 4


def shaped(shape, padding=0):
    """A .npy file of float32 whose header claims a shape."""
    return header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}" + " " * padding)[:-4]


BIG = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
SIXTY_FIVE = clean((1,) * 65) + ", not (1,)"
DEEP = "(" * 5000 + ")" * 5000

CASES = {
    "an array is missing": (without("b"), "array 'b' is missing"),
    "everything is missing": (lambda a, m: reply({}), "array 'a' is missing (2 are)"),
    "an extra array": (with_arrays(c=np.zeros(1)), "array 'c' does not belong to the model"),
    "a wrong shape": (with_arrays(a=np.zeros((4, 1), np.float32)), "array 'a' has shape (4, 1), not (2, 2)"),
    "one number too many": (with_arrays(b=np.zeros(2, np.float32)), "array 'b' has shape (2,), not (1,)"),
    "complex numbers": (with_arrays(b=np.zeros(1, complex)), "array 'b' has dtype complex128"),
    "texts": (with_arrays(b=np.array(["x"])), "array 'b' has dtype <U1"),
    "nan": (with_arrays(b=np.array([np.nan], np.float32)), "array 'b' holds NaN or Inf"),
    "inf": (with_arrays(a=np.full((2, 2), -np.inf, np.float32)), "array 'a' holds NaN or Inf"),
    "beyond float32": (with_arrays(b=np.array([1e300])), "array 'b' holds NaN or Inf"),
    "no examples": (with_metrics(**{"num-examples": 0}), "claims 0 examples"),
    "fewer than none": (with_metrics(**{"num-examples": -5}), "claims -5 examples"),
    "far too many": (with_metrics(**{"num-examples": 10**12}), "claims 1e+12 examples, more than 1e+09"),
    "more than a float holds": (
        with_metrics(**{"num-examples": 10**400}),
        "metric 'num-examples' is not finite",
    ),
    "nan examples": (with_metrics(**{"num-examples": np.nan}), "metric 'num-examples' is not finite"),
    "a list of examples": (
        with_metrics(**{"num-examples": [1, 2]}),
        "no number 'num-examples' in its metrics",
    ),
    "a nan metric": (with_metrics(loss=float("nan")), "metric 'loss' is not finite"),
    "an extra metric": (with_metrics(more=1.0), "its metrics are not those that the other clients report"),
    "a list for a number": (
        with_metrics(loss=[0.5]),
        "its metrics are not those that the other clients report",
    ),
    "no metrics": (with_record(lambda c: c.pop("metrics")), "no metrics"),
    "two metric records": (
        with_record(lambda c: c.__setitem__("more", MetricRecord({"x": 1}))),
        "2 metric records instead of one",
    ),
    "no arrays": (with_record(lambda c: c.pop("arrays")), "no arrays"),
    "two array records": (
        with_record(lambda c: c.__setitem__("more", ArrayRecord())),
        "2 array records instead of one",
    ),
    "another record name": (
        with_record(lambda c: c.__setitem__("model", c.pop("arrays"))),
        "its array record has another name than those of the other clients",
    ),
    "an empty reply": (lambda a, m: RecordDict(), "empty reply"),
    "an error": (lambda a, m: Error(0, "out of\nmemory \x1b[31m"), "error reply: out of memory [31m"),
    "no reply": (lambda a, m: None, "no reply in time"),
    "no NumPy bytes": (raw(b"rubbish"), "array 'b' is no NumPy array"),
    "a zip": (raw(b"PK\x03\x04" + b"\x00" * 60), "array 'b' is no NumPy array"),
    "pickled objects": (
        raw(npy(np.array([{}], object), allow_pickle=True)),
        "array 'b' has dtype object",
    ),
    "a header for terabytes": (
        raw(header(BIG), shape=(10**12,)),
        "array 'b' has shape (1000000000000,), not (1,)",
    ),
    "a header to choke on": (raw(header(DEEP)), "array 'b' is no NumPy array"),
    "cut short": (raw(npy(GLOBAL["b"])[:-1]), "array 'b' is cut short or too long"),
    "too long": (raw(npy(GLOBAL["b"]) + b"\x00" * 4), "array 'b' is cut short or too long"),
    "a lying shape": (raw(shape=(2,)), "array 'b' has shape (2,), not (1,)"),
    "a lying header": (
        raw(npy(np.zeros(2, np.float32))),
        "array 'b' is announced with another shape or dtype than it has",
    ),
    "65 dimensions": (raw(shaped((1,) * 65), shape=(1,) * 65), f"array 'b' has shape {SIXTY_FIVE}"),
    "65 dimensions in the header": (
        raw(shaped((1,) * 65)),
        "array 'b' is announced with another shape or dtype than it has",
    ),
    "nothing times very much": (
        raw(shaped((0, 2**62)), shape=(0, 2**62)),
        "array 'b' has shape (0, 4611686018427387904), not (1,)",
    ),
    "nothing times far too much": (
        raw(shaped((0, 10**30)), shape=(0, 10**30)),
        "array 'b' has shape (0, 1000000000000000000000000000000), not (1,)",
    ),
    "a long header": (raw(shaped((1,), padding=5000)), "array 'b' is no NumPy array"),
    "an unknown version": (raw(b"\x93NUMPY\x09\x00" + npy(GLOBAL["b"])[8:]), "array 'b' is no NumPy array"),
    "integers": (with_arrays(b=np.array([5], np.int8)), "array 'b' has dtype int8, not float32"),
    "truth": (with_arrays(b=np.array([True])), "array 'b' has dtype bool, not float32"),
    "next to no examples": (with_metrics(**{"num-examples": 5e-324}), "claims 4.94066e-324 examples"),
    "a lying dtype": (raw(dtype="float64"), "array 'b' is announced with another shape or dtype than it has"),
    "another format": (raw(stype="pickle"), "array 'b' is serialized as pickle, not as a NumPy array"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_reply_is_its_senders_fault_alone(case):
    client, fault = CASES[case]
    row = verdict_on(client)
    assert (row.suspect, row.weight, row.score) == (True, 0.0, np.inf)
    assert row.reason == f"excluded, strike 1 of 2: {fault}"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_another_floating_point_dtype_is_no_fault(dtype):
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=0.0), Guard())
    half = lambda arrays, message: reply({k: (a + 1).astype(dtype) for k, a in arrays.items()})  # noqa: E731
    result = strategy.start(MemoryGrid({1: half, 2: half}), arrays_record(GLOBAL), num_rounds=2, timeout=5)
    assert result.arrays["b"].numpy() == pytest.approx([7.0])
    assert not any(row.suspect for row in strategy.verdicts)


def test_integers_do_not_take_fractions():
    start = {**GLOBAL, "n": np.array([3])}
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=0.0), Guard())
    clients = {**HONEST, 9: lambda arrays, message: reply({**arrays, "n": np.array([0.5])})}
    strategy.start(MemoryGrid(clients), arrays_record(start), num_rounds=1, timeout=5)
    assert {row.node: row.reason for row in strategy.verdicts}[9].endswith("dtype float64, not int64")


def test_arrays_in_another_order_are_put_right():
    inner = Watched()
    order = []
    inner.train_metrics_aggr_fn = lambda contents, key: (
        order.extend(list(next(iter(c.array_records.values()))) for c in contents) or MetricRecord()
    )
    reverse = lambda arrays, message: reply(dict(reversed((arrays | {}).items())))  # noqa: E731
    grid = MemoryGrid({9: reverse, **HONEST})
    GuardedStrategy(inner, Guard()).start(grid, arrays_record(GLOBAL), num_rounds=1, timeout=5)
    assert order == [["a", "b"]] * 4


def test_how_many_examples_are_believed_is_a_setting():
    assert verdict_on(with_metrics(**{"num-examples": 500}), max_examples=100).suspect


def test_a_late_client_can_be_ignored_instead():
    assert verdict_on(lambda arrays, message: None, silent="ignore") is None
    assert verdict_on(lambda a, m: Error(0, "x"), silent="ignore").suspect, "an error is an answer"


# --- replies in another's name


def forged(content, message, **fields):
    made = Message(content, reply_to=message)
    made.metadata.__dict__.update({f"_{name}": value for name, value in fields.items()})
    return made


def test_a_reply_that_names_another_sender_harms_its_sender():
    row = verdict_on(lambda arrays, message: forged(reply(arrays), message, src_node_id=1))
    assert row.reason.endswith("its reply names another node as its sender")


def test_an_answer_to_what_nobody_asked_is_dropped():
    answer = lambda arrays, message: forged(reply(arrays), message, reply_to_message_id="x")  # noqa: E731
    assert verdict_on(answer).reason.endswith("no reply in time")


def test_a_late_answer_to_an_earlier_round_counts_for_nothing():
    strategy = GuardedStrategy(inner := Watched(), Guard())
    kept = []

    def late(arrays, message):
        kept.append(message)
        return forged(reply(arrays), message, reply_to_message_id=kept[0].metadata.message_id)

    strategy.start(MemoryGrid({9: late, **HONEST}), arrays_record(GLOBAL), num_rounds=2, timeout=5)
    assert inner.seen == [[1, 2, 3, 9], [1, 2, 3]]
    assert {row.node: row.reason for row in strategy.verdicts}[9].endswith("no reply in time")


def test_two_replies_in_one_name_count_for_nothing_and_ban_nobody():
    strategy = GuardedStrategy(inner := Watched(), Guard(policy=make_policy("ban")))
    first = {}

    def victim(arrays, message):
        first["message"] = message
        return reply(arrays)

    def forger(arrays, message):
        wanted = first["message"].metadata
        fields = {"src_node_id": wanted.dst_node_id, "reply_to_message_id": wanted.message_id}
        return forged(reply(arrays), message, **fields)

    strategy.inner.configure_train = lambda *args: sorted(
        FedAvg.configure_train(inner, *args), key=lambda m: m.metadata.dst_node_id
    )
    grid = MemoryGrid({1: victim, 2: moved(1), 9: forger})
    strategy.start(grid, arrays_record(GLOBAL), num_rounds=1, timeout=5)
    rows = {row.node: row for row in strategy.verdicts}
    assert 1 not in rows
    assert rows[9].banned
    assert inner.seen == [[2]]


# --- secure aggregation, evaluation


def test_secure_aggregation_in_replies_is_refused_but_one_client_cannot_claim_it():
    masked = with_record(lambda c: c.__setitem__("secaggplus_configs", ConfigRecord({"pk1": b"x"})))
    strategy = GuardedStrategy(FedAvg(fraction_evaluate=0.0), Guard())
    with pytest.raises(SecureAggregationError):
        strategy.start(MemoryGrid({1: masked, 2: masked, 3: moved(1)}), arrays_record(GLOBAL), num_rounds=1)
    result = strategy.start(MemoryGrid({9: masked, **HONEST}), arrays_record(GLOBAL), num_rounds=1)
    assert result.arrays["b"].numpy() > 5


def test_evaluation_leaves_out_what_cannot_be_used_and_who_is_banned():
    def client(loss=0.5, step=1.0, **more):
        def answer(arrays, message):
            content = reply({k: a + np.float32(step) for k, a in arrays.items()})
            if message.metadata.message_type == "evaluate":
                content = RecordDict({"metrics": MetricRecord({"num-examples": 4, "loss": loss, **more})})
            return content

        return answer

    grid = MemoryGrid(
        {1: client(0.2), 2: client(0.4), 3: client(0.6), 4: client(float("nan")), 5: client(step=np.nan),
         6: client(0.1, extra=1), 7: client(0.4)}
    )  # fmt: skip
    strategy = GuardedStrategy(FedAvg(), Guard(policy=make_policy("ban")))
    result = strategy.start(grid, arrays_record(GLOBAL), num_rounds=1, timeout=5)
    assert set(grid.asked[1]) == {1, 2, 3, 4, 6, 7}
    assert result.evaluate_metrics_clientapp[1]["loss"] == pytest.approx(0.4)


# --- reading


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(1.5),
     np.arange(3, dtype=">f4"), np.zeros((0, 2)), np.array([True, False])],
)  # fmt: skip
def test_reading_gives_what_numpy_gives_without_a_copy(array):
    sent = Array(array)
    np.testing.assert_array_equal(read(sent), sent.numpy())
    assert read(sent).dtype == array.dtype
    assert not read(sent).flags.owndata


def test_reading_refuses_what_is_malformed():
    sent = Array(np.zeros(3))
    sent.data = sent.data[:-8]
    with pytest.raises(Malformed):
        read(sent)


def test_strangers_texts_are_made_fit_for_a_log():
    assert clean("a\nb\x1b[31m\u202e c") == "a b [31m c"
    assert len(clean("x" * 10**6)) == 120
