"""Made-up sentences about topics: texts that need no file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .base import Dataset
from .table import wrong
from .tokens import Texts, Tokenized, answered_texts, labeled_texts

#: Topic → its own words.
TOPICS = {
    "cooking": "oven flour butter recipe garlic simmer dough kitchen salt taste spoon bake soup onion sauce",
    "music": "melody guitar chord rhythm singer concert piano drum album tune lyric stage violin tempo choir",
    "sports": "goal match referee stadium coach league score run tennis champ medal team penalty ball race",
    "weather": "rain cloud storm wind forecast snow sunny thunder fog breeze wet frost hail drizzle degrees",
}
#: Words that belong to no topic.
COMMON = (
    "the a we they you it was is had were will can today again later here there very quite really some many "
    "people time day week place thing way part and but so then now just about with after before over still"
)
#: The seed of the sentences, which are the same for every experiment.
SEED = 0


def load_topics(
    samples: int = 1200,
    form: Literal["label", "answer"] = "label",
    share: float = 0.3,
    test: float = 0.25,
    tokenizer: str = "words",
    max_length: int = 32,
) -> Dataset:
    """Made-up sentences about cooking, music, sports or weather; synthetic, for demonstrations and tests.

    A sentence has 8 to 20 words, each drawn from the 15 words of its topic with probability ``share``, else
    from 40 common words. The classes are equally frequent.

    Args:
        samples: how many sentences, training and test together.
        form: "label" gives sentences of four classes; "answer" asks for the topic in words, for a causal
            language model.
        share: of words that belong to the topic.
        test: the share of test sentences.
        tokenizer: see ``text``.
        max_length: the most tokens of a sentence.

    Raises:
        ParameterError: a parameter is out of range.
    """
    if not 40 <= samples <= 10**6:
        raise wrong("samples", f"{samples} sentences; use 40 to 1,000,000")
    if not 0 < share <= 1:
        raise wrong("share", f"{share:g} is not a share of words; use more than 0 and at most 1")
    if not 0.01 <= test <= 0.9:
        raise wrong("test", f"{test:g} is not a share of test sentences; use 0.01 to 0.9")
    names = list(TOPICS)
    rng = np.random.default_rng(SEED)
    about = [names[i % len(names)] for i in range(samples)]
    sentences = [_sentence(name, share, rng) for name in about]
    order, held = rng.permutation(samples), max(1, round(test * samples))
    how = Tokenized(tokenizer, 1000, max_length)
    if form == "label":
        parts = [_texts(sentences, about, rows) for rows in (order[held:], order[:held])]
        return labeled_texts("topics", parts[0], parts[1], how)
    prompts = [f"{sentence} ? topic :" for sentence in sentences]
    answers = [f"this is about {name}" for name in about]
    parts = [_texts(prompts, answers, rows) for rows in (order[held:], order[:held])]
    return answered_texts("topics", parts[0], parts[1], how)


def _sentence(topic: str, share: float, rng: np.random.Generator) -> str:
    count = int(rng.integers(8, 21))
    own, common = TOPICS[topic].split(), COMMON.split()
    words = [
        own[int(rng.integers(len(own)))] if rng.random() < share else common[int(rng.integers(len(common)))]
        for _ in range(count)
    ]
    return " ".join(words)


def _texts(texts: Sequence[str], labels: Sequence[str], rows: NDArray[np.int64]) -> Texts:
    whole = Texts("topics", texts, labels, None, lambda i: f"topics: sentence {i + 1}")
    return whole.take(rows)
