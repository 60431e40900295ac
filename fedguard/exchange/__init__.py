"""Models as FL engines exchange them: arrays, state dicts, and the role of each array."""
