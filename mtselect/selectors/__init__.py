"""How a set is chosen from the candidates: one selector a file, named by it (`base` says what a selector is).

numpy and scikit-learn only; what they compute with is in `selection/`. A selector says what it needs to look at, and nothing
else is computed for it.
"""
