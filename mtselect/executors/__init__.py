"""Who does the pieces of a study's work: stages that all trials share, trials, finetunings ahead of time.

`base` says what an executor is. None decides anything: the search proposes and records, and a piece leaves an entry of the
stage store, the same whoever computed it.
"""
