"""What a person sees in MLflow's own UI, in a headless Chromium, against a real server: links that open what they promise.

On PostgreSQL where it is installed, else on SQLite. The saved view's format is the UI's own: where a new MLflow shows it
otherwise, this fails, and `tracking._VIEW_VERSIONS` stays as it is (links are then plain filters).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
              pytest.mark.filterwarnings("ignore")]
WAIT_MS = 90_000  # at most, for what a page should show
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page(viewport={"width": 2600, "height": 1400})
    page.set_default_timeout(WAIT_MS)
    yield page
    page.close()


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


def shown(page: Page, text: str) -> Locator:
    """The element that shows just this text, once the page has it."""
    element = page.get_by_text(re.compile(rf"^\s*{re.escape(text)}\s*$")).first
    expect(element).to_be_attached()
    return element


def expect_best_first(page: Page, runs: list[Any]) -> None:
    """The table's rows are these runs in this order, and no others."""
    for number, run in enumerate(runs):
        expect(page.locator(f"[row-index='{number}']").filter(has_text=run.info.run_name).first).to_be_attached()
    expect(page.locator(f"[row-index='{len(runs)}']")).to_have_count(0)


def test_the_link_opens_the_trials_best_first_with_their_columns(recorded: Any, page: Page) -> None:
    page.goto(recorded.links["compare"])
    assert len(recorded.runs) == 7
    expect_best_first(page, recorded.runs)
    columns = ["eval/bleu", "eval/chrf", "eval/chrf_high", "eval/chrf_low", "eval/chrf_vs_untuned", "select/noise_share",
               "select/pairs", "trial/minutes", "budget", "method", "n_clusters", "threshold"]
    headings = [shown(page, column) for column in columns]
    order = [int(heading.evaluate("it => it.closest('[aria-colindex]').ariaColIndex")) for heading in headings]
    assert order == sorted(order), "the score, what belongs to it, then the set, then how it was chosen"


def test_the_charts_show_the_scores(recorded: Any, page: Page) -> None:
    page.goto(recorded.links["charts"])
    shown(page, "How the trials compare")
    for title in ("select/pairs vs. eval/chrf", "eval/chrf", "finetune/dev_loss", "Parallel Coordinates"):
        shown(page, title)
    for run in recorded.runs:
        shown(page, run.info.run_name)


def test_translations_stand_side_by_side(recorded: Any, page: Page, tmp_path: Path) -> None:
    from mtselect.config import TrackingConfig
    from mtselect.tracking.server import open_mlflow

    tracker = open_mlflow(TrackingConfig(uri=recorded.uri), "browser", tmp_path, create=False)
    page.goto(tracker.links("run", "eval/chrf")["translations"])
    shown(page, "translations.json")


def test_the_promoted_version_leads_to_its_trial(recorded: Any, page: Page) -> None:
    version = recorded.client.get_model_version_by_alias("mtselect.browser", "champion")
    page.goto(f"{recorded.uri}/#/models/mtselect.browser/versions/{version.version}")
    expect(page.locator(f"a[href*='/runs/{version.run_id}']").first).to_be_visible()
    shown(page, "Gates")
    expect(page.get_by_text("beats its rivals").first).to_be_visible()


def test_the_studys_run_shows_its_note(recorded: Any, page: Page) -> None:
    page.goto(recorded.links["look"])
    expect(page.get_by_text("the best trial and its rivals on dev").first).to_be_visible()
    expect(page.get_by_text("mtselect.promote browser").first).to_be_visible()


# Of each interactive picture: texts that are cut by its frame, and whether its legend lies on what is drawn.
LAID_OUT = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => {
    const frame = plot.getBoundingClientRect(), box = part => plot.querySelector(part)?.getBoundingClientRect();
    const drawn = box('.nsewdrag'), legend = box('.legend');
    const outside = it => it.left < frame.left || it.right > frame.right || it.top < frame.top || it.bottom > frame.bottom;
    const cut = [...plot.querySelectorAll('text')].filter(text => outside(text.getBoundingClientRect()));
    const apart = !legend || legend.left >= drawn.right || legend.bottom <= drawn.top || legend.top >= drawn.bottom;
    return {cut: cut.map(text => text.textContent), apart, marks: plot.querySelectorAll('.points path').length};
})"""


def test_the_pages_of_a_study_show_all_that_they_draw(swept: Any, page: Page) -> None:
    page.set_viewport_size({"width": 1600, "height": 1000})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    parent = next(run for run in swept.runs() if run.data.tags["mtselect.kind"] == "study")
    for name in ("translation_changes.html", "study.html"):
        page.goto(swept.artifact(parent, name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 1600, "wider than the window"
    rivals, scores, *_ = laid_out = page.evaluate(LAID_OUT)
    assert [one["cut"] for one in laid_out] == [[]] * len(laid_out) and all(one["apart"] for one in laid_out)
    assert (rivals["marks"], scores["marks"]) == (3, 6), "three rivals; three trials, the best again, random, pool"
    assert not errors


def test_a_view_nobody_looked_at_becomes_a_plain_filter(recorded: Any, page: Page, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    from mtselect.config import TrackingConfig
    from mtselect.tracking.server import open_mlflow

    monkeypatch.setattr("mtselect.tracking.mlflow.VIEW_VERSIONS", ("99.",))
    link = open_mlflow(TrackingConfig(uri=recorded.uri), "browser", tmp_path, create=False).links("run", "eval/chrf")["trials"]
    assert "viewStateShareKey" not in link
    page.goto(link)
    expect_best_first(page, recorded.runs)
