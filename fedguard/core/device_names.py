"""The names of devices. Settings check them without torch, whose import takes most of a second."""

#: For settings and their schema.
PATTERN = r"^(auto|cpu|mps|cuda(:\d+)?)$"
