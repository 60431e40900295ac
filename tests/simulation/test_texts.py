"""Texts and instructions as token tensors; expected tokens are written out by hand."""

import json

import pytest
import torch

from fedguard.core.errors import DataError, ParameterError
from fedguard.simulation.datasets import load_dataset
from fedguard.simulation.datasets.tokenizers import Bytes, Words
from fedguard.testing.datasets import check_dataset

ROWS = [("Good, good day", "fine"), ("bad day", "poor")] * 5


@pytest.fixture
def folder(tmp_path):
    lines = ["text,mood,who"] + [f'"{text}",{mood},{"ab"[i % 2]}' for i, (text, mood) in enumerate(ROWS)]
    (tmp_path / "texts.csv").write_text("\n".join(lines))
    pairs = [{"prompt": f"{k}+1=", "answer": str(k + 1)} for k in range(8)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    for part in ("train", "test"):
        for mood, text in (("fine", "sun"), ("poor", "rain")):
            (tmp_path / "moods" / part / mood).mkdir(parents=True)
            for k in range(2):
                (tmp_path / "moods" / part / mood / f"{k}.txt").write_text(f"{text} {part} ä", "latin1")
    return tmp_path


def test_words_are_numbered_by_how_frequent_they_are():
    own = Words(["b a b", "c, a B"], 6)  # b 3, a 2, then "," before c; three special tokens
    assert own.numbers == {"b": 3, "a": 4, ",": 5}
    assert own.encode(["a B c"]) == [[4, 3, 0]]
    assert Bytes().encode(["aé"]) == [[97, 195, 169]]


def test_a_file_of_texts(folder):
    data = load_dataset("text", path=str(folder / "texts.csv"), label="mood", client="who")
    # Of the training part, four texts each: day and good 8 times, "," and bad 4 times.
    fine, poor = (data.train.pixels[data.train.labels == k] for k in (0, 1))
    assert fine.tolist() == [[1, 4, 5, 4, 3, 2]] * 4
    assert poor.tolist() == [[1, 6, 3, 2, -1, -1]] * 4
    assert len(data.test.labels) == 2
    assert data.client_names == ("a", "b")
    assert torch.equal(data.training_set.inputs, data.train.pixels)


def test_long_texts_are_cut_and_keep_their_end(folder):
    data = load_dataset("text", path=str(folder / "texts.csv"), label="mood", tokenizer="bytes", max_length=6)
    fine = data.train.pixels[data.train.labels == 0][0]
    assert fine.tolist() == [256, *b"Good", 257]


def test_folders_of_texts(folder):
    path = str(folder / "moods")
    data = load_dataset("text", path=path, tokenizer="bytes", encoding="latin1")
    first = data.train.pixels[0].int().tolist()
    assert first[:14] == [256, *"sun train ä".encode(), 257]
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1, 1], [0, 0, 1, 1])
    with pytest.raises(ParameterError, match="leave `test` out"):
        load_dataset("text", path=path, test=0.5)
    with pytest.raises(ParameterError, match="no encoding 'utf-99'"):
        load_dataset("text", path=path, encoding="utf-99")
    with pytest.raises(DataError, match=r"0\.txt cannot be read.*set `encoding`"):
        load_dataset("text", path=path)


def test_answers_are_what_is_to_be_predicted(folder):
    data = load_dataset("instructions", path=str(folder / "sums.jsonl"), test=0.25)
    assert (data.task, data.num_classes) == ("causal", 258)
    inputs, labels = data.train.pixels[0].int().tolist(), data.train.labels[0].tolist()
    k = inputs[1] - ord("0")
    assert inputs == [256, *f"{k}+1={k + 1}".encode()]
    assert labels == [-1] * 4 + [ord("0") + k + 1, 257]


def test_a_prompt_that_is_too_long_loses_its_beginning(folder):
    data = load_dataset("instructions", path=str(folder / "sums.jsonl"), max_length=4)
    inputs, labels = data.train.pixels[0].int().tolist(), data.train.labels[0].tolist()
    assert (inputs[:3], labels[:2], labels[3]) == ([256, *b"1="], [-1, -1], 257)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("text", {"label": "moud"}, "no column 'moud', did you mean 'mood'"),
        (
            "text",
            {"label": "mood", "tokenizer": "letters"},
            "no tokenizer 'letters'; use words, bytes or hf:",
        ),
        ("text", {"label": "mood", "max_length": 2}, "2 tokens; use 4 to"),
        ("text", {"label": "mood", "vocabulary": 3}, "3 words; use 4 to"),
        ("instructions", {}, "no column 'prompt'"),
    ],
)
def test_mistakes_are_named(folder, name, params, message):
    with pytest.raises(ParameterError, match=message):
        load_dataset(name, path=str(folder / "texts.csv"), **params)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", r"bad.jsonl:2: a list; write one object per line"),
        ("{", r"bad.jsonl:2: not JSON"),
        ('{"prompt": "x"}', r"bad.jsonl:2: its keys are not those of line 1; see 'answer'"),
        ('{"prompt": "x", "answer": " "}', r"bad.jsonl:2: column 'answer' is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        load_dataset("instructions", path=str(tmp_path / "bad.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["label", "answer"])
def test_the_made_up_sentences_keep_the_contract(form):
    check_dataset("topics", {"samples": 200, "form": form}).raise_for_failures()


def test_the_made_up_sentences_answer_for_themselves():
    data = load_dataset("topics", samples=200)
    assert data.train.labels.bincount().sum() + data.test.labels.bincount().sum() == 200
    assert torch.cat([data.train.labels, data.test.labels]).bincount().tolist() == [50] * 4
    with pytest.raises(ParameterError, match="3 sentences; use 40"):
        load_dataset("topics", samples=3)
