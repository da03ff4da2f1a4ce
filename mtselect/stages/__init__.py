"""From an experiment to scores, one file a stage; `lineage` says what a stage is and computes each key once.

    corpus -> base -> tokens -> warmup -> curvature -> gradients -> columns -> selection -> finetune -> evaluation
                                     \\-> losses -> gate ---------------------/

A stage is a value: its name, its version, the fields of the experiment it reads and the inputs it is given. Fields and inputs
are hashed into its key and are all it can see when it runs. What a sweep does not search is therefore computed once, and two
trials that choose the same set share its finetuning. `trial` puts them in order.
"""
