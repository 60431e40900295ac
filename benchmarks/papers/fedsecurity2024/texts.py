"""Write 20 Newsgroups and PubMedQA as the JSON Lines files that the suites exp8 and exp9 read.

    python benchmarks/papers/fedsecurity2024/texts.py path/to/data --news 1000 --questions 48

Reads ``20news-bydate/20news-bydate.tar.gz`` and ``pubmedqa/ori_pqal.json`` with ``test_ground_truth.json``
below the data root, and writes ``texts/20news/`` and ``texts/pubmedqa/`` (``train.jsonl``, ``test.jsonl``)
below the current folder. ``--news`` and ``--questions`` keep that many test texts, evenly spaced; all else.

A news text is the subject and the body: the other header lines name the sender's site, and with them the
group. A PubMedQA prompt is a question, and the answer is the conclusion of the abstract, its first 24 words.
Training texts are the 500 labeled questions that are not in the official test set.
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

#: A header's end: an empty line; in some copies of the archive, tabs stand for line breaks.
BREAK = re.compile(r"\r?\n|\t")


def news_text(message: str) -> str:
    """The subject of a message and its body.

    >>> news_text("From: a@b.c\\tSubject: Re: Orbits\\tLines: 2\\t\\tTwo bodies\\tattract.")
    'Re: Orbits. Two bodies attract.'
    """
    lines = BREAK.split(message)
    end = lines.index("") if "" in lines else len(lines)
    subject = next((line[8:].strip() for line in lines[:end] if line.lower().startswith("subject:")), "")
    return f"{subject}. {' '.join(' '.join(lines[end:]).split())}"


def news(archive: Path, part: str) -> list[dict[str, str]]:
    """The messages of a part, "train" or "test", sorted by group and number."""
    found = []
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
            folder, _, rest = member.name.partition("/")
            file = tar.extractfile(member) if folder == f"20news-bydate-{part}" else None
            if file is not None:
                text = news_text(file.read().decode("latin1"))
                found.append({"text": text, "label": rest.partition("/")[0]})
    return found


def questions(folder: Path, part: str) -> list[dict[str, str]]:
    """The questions of a part with their answers, in the order of the file."""
    rows = json.loads((folder / "ori_pqal.json").read_text(encoding="utf-8"))
    held = json.loads((folder / "test_ground_truth.json").read_text(encoding="utf-8"))
    return [
        {"prompt": f"Question: {row['QUESTION']} Answer:", "answer": f" {conclusion(row['LONG_ANSWER'])}"}
        for number, row in rows.items()
        if (number in held) == (part == "test")
    ]


def conclusion(text: str, words: int = 24) -> str:
    """The first words of a conclusion, so that question and answer fit 64 tokens."""
    return " ".join(text.split()[:words])


def spaced(rows: list[dict[str, str]], count: int | None) -> list[dict[str, str]]:
    """``count`` of the rows, evenly spaced; all if there are not more."""
    if count is None or count >= len(rows):
        return rows
    return [rows[i * len(rows) // count] for i in range(count)]


def write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"wrote {path}")


def main() -> None:
    """Convert both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--news", type=int, help="test messages to keep; all by default")
    parser.add_argument("--questions", type=int, help="test questions to keep; all by default")
    parser.add_argument("--out", type=Path, default=Path("texts"))
    arguments = parser.parse_args()
    archive = arguments.data_root / "20news-bydate" / "20news-bydate.tar.gz"
    for part in ("train", "test"):
        few = (arguments.news, arguments.questions) if part == "test" else (None, None)
        write(arguments.out / "20news" / f"{part}.jsonl", spaced(news(archive, part), few[0]))
        rows = questions(arguments.data_root / "pubmedqa", part)
        write(arguments.out / "pubmedqa" / f"{part}.jsonl", spaced(rows, few[1]))


if __name__ == "__main__":
    main()
