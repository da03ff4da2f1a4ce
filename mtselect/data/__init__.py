"""Sentence pairs: the corpus, the prompt that a model reads, and the generated quickstart corpus."""
