"""The report: results as one self-contained HTML file, and the data behind every picture.

``results`` selects the runs, ``scores`` and ``timeline`` read single verdicts, ``axes`` and ``pictures``
compute coordinates, ``page`` fills the templates. :mod:`fedguard.evaluation.results.plot` draws the same data
with matplotlib.
"""
