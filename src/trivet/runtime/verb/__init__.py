"""The verbs of `trivet-runtime`, one per file: `add` declares the arguments, `run` does it and gives the exit code."""
