"""Accuracy per round, one small panel per attack and one line per defense.

    python benchmarks/accuracy_by_round.py RESULTS_FOLDER PICTURE.png

needs matplotlib (pip install "fedguard[plot]").
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

from fedguard.evaluation.results.store import Store

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(folder: Path, picture: Path) -> None:
    store = Store(folder)
    runs = store.table("runs")[["run", "attack", "defense", "mode"]]
    table = store.table("rounds").merge(runs, on="run")
    attacks, defenses = list(dict.fromkeys(runs["attack"])), list(dict.fromkeys(runs["defense"]))
    columns = 6
    rows = -(-len(attacks) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 1.9 * rows), sharex=True, sharey=True)
    for axis in axes.flat[len(attacks) :]:
        axis.set_axis_off()
    for axis, attack in zip(axes.flat, attacks, strict=False):
        for defense in defenses:
            lines = table[(table["attack"] == attack) & (table["defense"] == defense)]
            mean = lines.groupby("round")["tacc"].mean() * 100
            axis.plot(mean.index + 1, mean, label=defense, linewidth=1.4)
        asr = table[(table["attack"] == attack) & (table["defense"] == defenses[0])]["asr"]
        title = f"{attack} (ASR {100 * asr.iloc[-1]:.0f} %)" if asr.notna().any() else attack
        axis.set_title(title, fontsize=8)
        axis.set_ylim(0, 100)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.supxlabel("round")
    figure.supylabel("test accuracy (%)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=len(labels), fontsize=9)
    figure.tight_layout(rect=(0.01, 0.01, 1, 0.96))
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
