"""The saved view of MLflow's UI: trials and baselines without their parent, best first, the columns that a person reads."""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any

from mtselect.config import Sweep
from mtselect.metrics.base import direction

VIEW = "mtselect"  # its key, one per experiment
VIEW_VERSIONS = ("3.17.",)  # of MLflow, whose UI shows it as it should (tests/test_browser.py)
FILTER = "tags.`mtselect.kind` != 'study'"


def view_state(sweep: Sweep) -> str:
    """As the UI keeps it.

    The format is the UI's own (mlflow 3.17) and undocumented: JSON, deflated, in base64.
    """
    score = sweep.study.objectives[0]
    beside = [score + end for end in ("_low", "_high", "_vs_untuned")] if score.startswith("eval/") else []
    metrics = [*(f"eval/{name}" for name in sweep.experiment.evaluation.metrics), *beside, "select/pairs", "select/noise_share",
               "trial/minutes"]
    searched = [path.removeprefix("selection.") for path in sweep.search]
    params = sorted({"method", *searched})
    def chart(number: int, kind: str, title: str, **what: Any) -> dict[str, object]:
        return {"uuid": f"{VIEW}-{number}", "type": kind, "displayName": title, "metricSectionId": VIEW, "deleted": False,
                "isGenerated": False, "runsCountToCompare": 100, **what}

    charts = [
        chart(0, "SCATTER", "score against pairs selected", xaxis={"key": "select/pairs", "type": "METRIC"},
              yaxis={"key": score, "type": "METRIC"}),
        chart(1, "BAR", f"{score} of every trial and baseline", metricKey=score),
        chart(2, "LINE", "dev loss while finetuning", metricKey="finetune/dev_loss", selectedMetricKeys=["finetune/dev_loss"],
              xAxisKey="step", selectedXAxisMetricKey="", xAxisScaleType="linear", scaleType="linear", lineSmoothness=0,
              range={}),
        chart(3, "PARALLEL", "settings and score", selectedParams=searched,
              selectedMetrics=[score], showAllRuns=False)]
    section = {"uuid": VIEW, "name": "How the trials compare", "display": True, "isReordered": False, "columns": 2,
               "cardHeight": 300}
    state = {"compareRunSections": [section], "compareRunCharts": charts, "isAccordionReordered": True,
             "searchFilter": FILTER, "orderByKey": f"metrics.`{score}`", "orderByAsc": direction(score) == "minimize",
             "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
             "selectedColumns": [*(f"metrics.`{name}`" for name in metrics), *(f"params.`{name}`" for name in params)],
             "runsExpanded": {}, "runsPinned": [], "runsHidden": [], "runsHiddenMode": "SHOWALL"}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    return json.dumps({"name": "mtselect: trials, best first", "createdAt": now, "updatedAt": now,
                       "state": f"deflate;{packed}"})
