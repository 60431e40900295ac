"""The texts of FedSecurity's Exp 8 and 9, from small archives of the same form."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2] / "benchmarks" / "papers" / "fedsecurity2024"
MESSAGE = "From: a@b.c{0}Subject: Re: Orbits{0}Lines: 2{0}{0}Two bodies{0}attract.{0}"


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.syspath_prepend(str(HOME))
    import texts

    return texts


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\t"])
def test_a_message_is_its_subject_and_body(texts, line_break):
    assert texts.news_text(MESSAGE.format(line_break)) == "Re: Orbits. Two bodies attract."


def archive(root):
    (root / "20news-bydate").mkdir()
    with tarfile.open(root / "20news-bydate" / "20news-bydate.tar.gz", "w:gz") as tar:
        for part, count in (("train", 2), ("test", 4)):
            for k in range(count):
                data = MESSAGE.format("\n").replace("Two", str(k)).encode("latin1")
                member = tarfile.TarInfo(f"20news-bydate-{part}/sci.space/{k}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (root / "pubmedqa").mkdir()
    rows = {str(k): {"QUESTION": f"Is it {k}?", "LONG_ANSWER": f"It  is {k}." + " x" * 40} for k in range(5)}
    (root / "pubmedqa" / "ori_pqal.json").write_text(json.dumps(rows))
    (root / "pubmedqa" / "test_ground_truth.json").write_text(json.dumps({"1": "yes", "3": "yes"}))


def test_the_files_hold_all_training_texts_and_some_test_texts(texts, tmp_path, monkeypatch):
    archive(tmp_path)
    out = tmp_path / "texts"
    monkeypatch.setattr(sys, "argv", ["texts.py", str(tmp_path), "--news", "2", "--out", str(out)])
    texts.main()
    found = {
        f"{p.parent.name}/{p.stem}": [json.loads(line) for line in p.read_text().splitlines()]
        for p in out.rglob("*.jsonl")
    }
    assert [row["text"] for row in found["20news/train"]] == [
        f"Re: Orbits. {k} bodies attract." for k in (0, 1)
    ]
    assert [row["text"][12] for row in found["20news/test"]] == ["0", "2"]
    assert {row["label"] for row in found["20news/test"]} == {"sci.space"}
    assert [row["prompt"] for row in found["pubmedqa/train"]] == [
        f"Question: Is it {k}? Answer:" for k in (0, 2, 4)
    ]
    assert found["pubmedqa/test"][0] == {
        "prompt": "Question: Is it 1? Answer:",
        "answer": " It is 1." + " x" * 21,
    }
