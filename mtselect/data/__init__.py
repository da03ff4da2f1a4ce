"""Sentence pairs: rows of a source checked, the corpus built from them, and the prompt that a model reads. No model in sight.

`quickstart/` holds the rows of the corpus that comes with the package; `tools/quickstart` writes them.
"""
