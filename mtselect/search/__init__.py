"""Which trials a study runs, in which order, and what becomes of them: the home of optuna.

Optuna proposes; its storage is the one truth about what was begun and what ended. A trial itself is run by `stages/trial.py`
and recorded by `recording.py`.
"""
