"""The control room: a web page for the operator of a live guard, and the same as one file."""
