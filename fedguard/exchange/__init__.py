"""Models as engines exchange them: arrays, state dicts, and what the server may learn from each."""
