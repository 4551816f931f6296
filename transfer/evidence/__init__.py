"""What the runs allow one to say.

Statistics: scores (a measure as a score for each image), stats (intervals and tests), results (the
runs' scores). The choice: choices (settings ranked, label errors), calibration (of confidence). The
paper: published (its tables), claims. Similarity: measures (their names), similarity (computed).
compare makes of them the records that evidence.json holds; plots is for `dvc plots`.
"""
