"""Draw pipeline.svg, the picture of the README: ``python docs/images/draw_pipeline.py``."""

from pathlib import Path

STEPS = [
    ("Clients", "updates (n, d)", "some are malicious"),
    ("Detector", "one score per client", "higher = more suspicious"),
    ("Policy", "weights, bans, reasons", "strikes in the ledger"),
    ("Aggregator", "admitted clients only", "stages clip, mix, add noise"),
    ("New model", "and an outcome", "who counted, and why"),
]
WIDE, HIGH, GAP = 196, 92, 34
STYLE = """
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #4a5560 }
.name { font-weight: 600; font-size: 16px; fill: #14304f }
rect { fill: #eef4fb; stroke: #2b6cb0; stroke-width: 1.5 }
.edge { fill: #fff; stroke: #8a96a3 }
path { fill: none; stroke: #2b6cb0; stroke-width: 2 }
.paper { fill: #fff; stroke: none }
"""


def box(i: int) -> str:
    """One step with its two lines, and the arrow to the next."""
    name, first, second = STEPS[i]
    x, middle = 10 + i * (WIDE + GAP), 10 + i * (WIDE + GAP) + WIDE / 2
    edge = ' class="edge"' if i in (0, len(STEPS) - 1) else ""
    parts = [
        f'<rect{edge} x="{x}" y="10" width="{WIDE}" height="{HIGH}" rx="8"/>',
        f'<text class="name" x="{middle}" y="40">{name}</text>',
        f'<text x="{middle}" y="64">{first}</text>',
        f'<text x="{middle}" y="84">{second}</text>',
    ]
    if i + 1 < len(STEPS):
        start, end, y = x + WIDE + 5, x + WIDE + GAP - 5, 10 + HIGH / 2
        parts.append(f'<path d="M{start} {y}H{end}M{end - 7} {y - 6}L{end} {y}L{end - 7} {y + 6}"/>')
    return "\n".join(parts)


def picture() -> str:
    """The whole SVG; on white, so that it is readable on dark pages."""
    wide, high = 20 + len(STEPS) * WIDE + (len(STEPS) - 1) * GAP, HIGH + 20
    alt = "Clients' updates go to a detector, a policy, an aggregator, and become the new model."
    boxes = "\n".join(box(i) for i in range(len(STEPS)))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" aria-label="{alt}">'
    )
    paper = f'<rect class="paper" width="{wide}" height="{high}"/>'
    return f"{head}\n<style>{STYLE}</style>\n{paper}\n{boxes}\n</svg>\n"


if __name__ == "__main__":
    Path(__file__).with_name("pipeline.svg").write_text(picture(), encoding="utf-8")
