"""COMET, which needs older libraries than ours: installed into an environment of its own and spoken to through a pipe.

    python -m mtselect.comet install
"""
