"""MLflow's pages in a browser: the printed address leads to the methods, which are compared with bars and curves."""

import re

import pytest
from support.mlflow_pages import free_port, pages

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECONDS = 120_000  # milliseconds that a page may take on a busy machine
CARDS = "[data-testid=experiment-view-compare-runs-card]"


@pytest.fixture
def opened(browser, project):
    """The page at the address that `bcd track --ui` prints, wide enough for its charts."""
    with pages(free_port()) as process:
        address = re.search(r"runs: (\S+)", process.stdout.readline())[1]
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(SECONDS)
        page.goto(address)
        yield page
        page.close()


def test_methods_are_compared_with_bars_and_curves(opened):
    row = opened.get_by_role("row").filter(has_text=re.compile("cwd mean of 2 seeds semantic"))
    row.first.wait_for(state="attached")
    opened.locator("input[name=runs-view-mode][value=CHART]").dispatch_event("click")
    opened.locator(CARDS).first.wait_for(state="attached")
    shown = opened.locator(f"{CARDS} svg .bars .point")
    shown.first.wait_for(state="attached")
    assert shown.count() >= 2
    search = opened.get_by_placeholder("Search metric charts")
    search.fill("train/loss")
    opened.locator(f"{CARDS} svg .scatterlayer .js-line").first.wait_for(state="attached")


def test_two_methods_are_chosen_and_compared(opened):
    for method in ("cwd", "none"):
        row = opened.get_by_role("row").filter(has_text=re.compile(f"{method} mean of 2 seeds semantic")).first
        row.wait_for(state="attached")
        row.get_by_role("checkbox").first.dispatch_event("click")
    opened.get_by_role("button", name="Compare", exact=True).first.dispatch_event("click")
    opened.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for(state="attached")
