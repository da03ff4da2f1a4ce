"""Who keeps the record of a study: what its runs scored, selected and looked like. The only home of mlflow.

`base` says what a tracker is, `choose` opens the one that `tracking.kind` names. What is recorded is for `recording.py` to say.
"""
