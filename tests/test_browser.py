"""What a person sees in MLflow's own UI, in a headless Chromium, against a real server: links that open what they promise.

On PostgreSQL where it is installed, else on SQLite. The saved view's format is the UI's own: where a new MLflow shows it
otherwise, this fails, and `tracking._VIEW_VERSIONS` stays as it is (links are then plain filters).
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
              pytest.mark.filterwarnings("ignore")]
VIRTUAL_MS = 30_000  # of the page's own clock, which runs ahead while nothing is loaded


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest, warm_lab: Callable[..., Any]) -> Any:
    """A sweep at a server, its printed links, and its best set promoted by force."""
    installed = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    server = request.getfixturevalue("postgres_server" if installed else "mlflow_server")
    lab = warm_lab(study__name="browser", tracking__uri=server.uri)
    log = lab.folder / "printed.txt"
    process = lab.start("sweep", "sweep.yaml", log=log.name)
    process.join()
    assert process.exitcode == 0, lab.log(log.name)
    links = dict(re.findall(r"^(compare|charts|look) +(\S+)", lab.log(log.name), re.MULTILINE))
    assert lab.run("promote", "browser", "--force", "--licence", "mit", "--tracking.uri", server.uri) == 0
    import mlflow

    client = mlflow.MlflowClient(server.uri, server.uri)
    experiment = client.get_experiment_by_name("browser").experiment_id
    runs = client.search_runs([experiment], "tags.`mtselect.kind` != 'study'", order_by=["metrics.`eval/chrf` DESC"])
    return SimpleNamespace(links=links, runs=runs, client=client, uri=server.uri, experiment=experiment)


def page(url: str, folder: Path, size: str = "2600,1400") -> str:
    """The page's elements after its scripts ran."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", f"--user-data-dir={folder}/chromium", f"--window-size={size}",
               f"--virtual-time-budget={VIRTUAL_MS}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return html.unescape(done.stdout)


def places(texts: list[str], where: str, attribute: str) -> list[int]:
    """Row (`row-index`) or column (`aria-colindex`) in which a table shows each text; its elements come in any order."""
    found = []
    for text in texts:
        match = re.search(rf">\s*{re.escape(text)}\s*<", where)
        assert match, f"the page does not show {text!r}"
        found.append(int(re.findall(rf'{attribute}="(\d+)"', where[: match.start()])[-1]))
    return found


def test_the_link_opens_the_trials_best_first_with_their_columns(recorded: Any, tmp_path: Path) -> None:
    shown = page(recorded.links["compare"], tmp_path)
    names = [run.info.run_name for run in recorded.runs]
    assert len(names) == 7
    rows = places(names, shown, "row-index")
    assert rows == list(range(7)), "not in the order of the score, or with the study's own run"
    columns = ["eval/bleu", "eval/chrf", "eval/chrf_high", "eval/chrf_low", "eval/chrf_vs_random", "eval/chrf_vs_untuned",
               "select/noise_share", "select/pairs", "trial/minutes", "budget", "method", "n_clusters", "threshold"]
    headings = places(columns, shown, "aria-colindex")
    assert headings == sorted(headings), "the score, what belongs to it, then the set, then how it was chosen"


def test_the_charts_show_the_scores(recorded: Any, tmp_path: Path) -> None:
    shown = page(recorded.links["charts"], tmp_path)
    assert "How the trials compare" in shown
    for title in ("select/pairs vs. eval/chrf", "eval/chrf", "eval/chrf_vs_random", "Parallel Coordinates"):
        assert re.search(rf">\s*{title}\s*<", shown), title
    assert {run.info.run_name for run in recorded.runs} & set(re.findall(r">\s*([\w-]+)\s*<", shown))


def test_translations_stand_side_by_side(recorded: Any, tmp_path: Path) -> None:
    from mtselect.config import TrackingConfig
    from mtselect.tracking import open_tracker

    tracker = open_tracker(TrackingConfig(uri=recorded.uri), "browser", tmp_path, create=False)
    shown = page(tracker.links("eval/chrf")["translations"], tmp_path)
    assert "translations.json" in shown


def test_the_promoted_version_leads_to_its_trial(recorded: Any, tmp_path: Path) -> None:
    version = recorded.client.get_model_version_by_alias("mtselect.browser", "champion")
    shown = page(f"{recorded.uri}/#/models/mtselect.browser/versions/{version.version}", tmp_path)
    assert f"/runs/{version.run_id}" in shown
    assert "Gates" in shown and "beats random" in shown, "the card"


def test_the_studys_run_shows_its_note(recorded: Any, tmp_path: Path) -> None:
    shown = page(recorded.links["look"], tmp_path)
    assert "trials and baselines on dev, best first" in shown
    assert "mtselect.promote browser" in shown


def test_a_view_nobody_looked_at_becomes_a_plain_filter(recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtselect.config import TrackingConfig
    from mtselect.tracking import open_tracker

    monkeypatch.setattr("mtselect.tracking._VIEW_VERSIONS", ("99.",))
    link = open_tracker(TrackingConfig(uri=recorded.uri), "browser", tmp_path, create=False).links("eval/chrf")["trials"]
    assert "viewStateShareKey" not in link
    shown = page(link, tmp_path)
    assert places([run.info.run_name for run in recorded.runs], shown, "row-index") == list(range(7))
