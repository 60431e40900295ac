"""The report: results as one HTML file with its pictures in it, and the data behind every picture.

``results`` selects what is shown, ``scores`` and ``timeline`` read single verdicts, ``axes`` and
``pictures`` place things, ``page`` fills the templates. :mod:`fedguard.evaluation.results.plot` draws the same data
with matplotlib.
"""
