"""The sweep file, in sections of frozen values. This folder imports only errors and the names of parts, and nothing heavy.

    experiment:   every stage's section; decides results, so it enters the stage keys
    search:       dotted field of the experiment -> range that Optuna searches
    study:        name, trials, objectives, sampler, pruner, storage, baselines
    runtime:      devices, batch size, threads; cannot change a result, so never enters a key
    tracking:     who records, and where

`load` reads one, with the command line's overrides, and says all that is wrong with it before any work.
"""

from mtselect.config.experiment import (
    AttributionConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    FinetuneConfig,
    ModelConfig,
    SelectionConfig,
    TrainConfig,
    WarmupConfig,
    budget_pairs,
    decided,
    with_fields,
)
from mtselect.config.file import load, to_yaml
from mtselect.config.search import OPTIONS, cross_faults, field_type, most_clusters, range_type
from mtselect.config.section import validated
from mtselect.config.sweep import Range, RuntimeConfig, StudyConfig, Sweep, TrackingConfig

__all__ = [
    "OPTIONS", "AttributionConfig", "DataConfig", "EvaluationConfig", "Experiment", "FinetuneConfig", "ModelConfig", "Range",
    "RuntimeConfig", "SelectionConfig", "StudyConfig", "Sweep", "TrackingConfig", "TrainConfig", "WarmupConfig", "budget_pairs",
    "cross_faults", "decided", "field_type", "load", "most_clusters", "range_type", "to_yaml", "validated", "with_fields",
]
