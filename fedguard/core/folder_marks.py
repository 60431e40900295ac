"""The files that say what a folder is. What lies in such a folder may be someone else's."""

#: A results folder.
RESULTS = "results.sqlite"
#: The folder of a search (``fedguard tune``), which holds several results folders.
TUNING = "tuning.json"
#: A recording: its index, and the index before the last round.
INDEX, OLD_INDEX = "recording.json", "recording.old.json"
