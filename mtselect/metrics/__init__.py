"""Scores of translations: one metric a file, named by it (`base` says what a metric is).

A metric turns each sentence into statistics; `mtselect/significance.py` draws sentences and finetuning seeds, sums, and gives
intervals and p. sacreBLEU's are thin classes over `_sacrebleu`; COMET's model runs in an environment of its own (`_comet/`).
"""
