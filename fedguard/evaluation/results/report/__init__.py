"""The report: results as one self-contained HTML file, and the data behind every picture.

``results`` selects the runs, ``scores`` and ``timeline`` read single verdicts, ``page`` fills the templates.
:mod:`fedguard.evaluation.results.figures` describes and draws the pictures.
"""
