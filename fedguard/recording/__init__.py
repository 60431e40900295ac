"""Record on disk what a guard received and decided, round by round, and replay it.

    with Recorder("recorded") as recorder:
        guard = Guard(detector, observers=[recorder])
        ...                                   # guard.process(round), again and again
    for recorded, outcome in replay(Recording("recorded"), Guard(another_detector)):
        ...

A recording is a folder of one safetensors file per round and an index, ``recording.json``.
"""

from __future__ import annotations

from .content import Recorded
from .recorder import Recorder
from .recording import Recording
from .replay import replay

__all__ = ["Recorded", "Recorder", "Recording", "replay"]
