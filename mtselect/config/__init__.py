"""The sweep file, in sections of frozen values. This folder imports only errors and names of parts, and nothing heavy.

`experiment` decides results, so stage keys hash it; `search` names what of it is searched; `study`, `runtime` and `tracking`
say how, and enter no key. `load` reads a file and the command line's overrides, and tells all that is wrong before any work.
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
from mtselect.config.file import load, parse, to_yaml
from mtselect.config.search import OPTIONS, cross_faults, field_type, most_clusters, range_type
from mtselect.config.section import validated
from mtselect.config.sweep import Range, RuntimeConfig, StudyConfig, Sweep, TrackingConfig

__all__ = [
    "OPTIONS", "AttributionConfig", "DataConfig", "EvaluationConfig", "Experiment", "FinetuneConfig", "ModelConfig", "Range",
    "RuntimeConfig", "SelectionConfig", "StudyConfig", "Sweep", "TrackingConfig", "TrainConfig", "WarmupConfig", "budget_pairs",
    "cross_faults", "decided", "field_type", "load", "most_clusters", "parse", "range_type", "to_yaml", "validated",
    "with_fields",
]
