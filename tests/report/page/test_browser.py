"""The page in a browser without a network: it opens from a file, and its widgets work by mouse and keyboard."""

import pytest

pytestmark = pytest.mark.browser
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def opened(browser, paged):
    """Opens the page in a window of some size and scheme; fails if it asks for anything or complains."""
    complaints, contexts = [], []

    def open_(size=WIDE, scheme="light"):
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else complaints.append(asked.url)
        )
        page.goto((paged / "results/smoke/report.html").resolve().as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


def viewer(page):
    """That of the first table, once it shows something: it starts when it comes near the screen."""
    part = page.locator("#table-1 .viewer")
    part.scroll_into_view_if_needed()
    part.locator(".compared figure").nth(1).wait_for()
    return part


def methods(page):
    return page.locator("#table-1 .results tbody th").evaluate_all("heads => heads.map(one => one.dataset.sort)")


def values(page, column):
    cells = page.locator(f"#table-1 .results tbody td:nth-child({column})")
    return [float(text) for text in cells.evaluate_all("cells => cells.map(one => one.dataset.sort)") if text]


def test_a_table_is_sorted_by_its_heads(opened):
    page = opened()
    before = methods(page)
    head = page.locator("#table-1 .results thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    students = values(page, 2)[1:]
    assert students == sorted(students, reverse=True) and methods(page)[0] == "teacher"
    assert methods(page) != before and sorted(methods(page)) == sorted(before)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and values(page, 2)[1:] == sorted(students)
    page.locator("#table-1 .results thead th").nth(2).get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"


def test_other_metrics_are_shown_when_asked_for(opened):
    page = opened()
    other = page.locator("#table-1 .results thead").get_by_role("button", name="Frag")
    assert not other.is_visible()
    page.locator("#table-1").get_by_role("button", name="All metrics").click()
    assert other.is_visible()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_cell_opens_its_trace_and_escape_closes_it(opened, size):
    page = opened(size)
    cell = page.locator("#table-1").get_by_role("button", name="bcd, Δ bIoU:", exact=False).first
    cell.focus()
    cell.press("Enter")
    dialog = page.get_by_role("dialog", name="bcd")
    assert dialog.is_visible()
    said = dialog.inner_text()
    assert "significantly better" in said and "bcd evaluate --suite smoke" in said
    dialog.get_by_text("Files of s0").click()
    assert "record.json" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert cell.evaluate("cell => cell === document.activeElement"), "who reads by keyboard goes on where they were"


def test_a_chart_is_svg_with_a_row_for_each_method_and_opens_traces(opened):
    page = opened()
    chart = page.locator("#table-1 .forest")
    chart.scroll_into_view_if_needed()
    chart.locator("svg").wait_for()
    texts = chart.locator("svg text").all_text_contents()
    assert {"kd", "cwd", "bcd", "pbd", "Δ mIoU"} <= set(texts)
    chart.locator(".mark-symbol path[aria-label*='bcd']").first.click()
    assert page.get_by_role("dialog").is_visible()


def test_the_slider_goes_through_the_images_that_differ_most_first(opened):
    part = viewer(opened())
    said, slider = part.locator(".said"), part.get_by_role("slider")
    shares = []
    for step in range(6):
        assert said.inner_text().startswith(f"Image {step + 1} of 6")
        shares.append(float(said.inner_text().split("differ in ")[1].split(" ")[0]))
        slider.press("ArrowRight")
    assert shares == sorted(shares, reverse=True) and shares[0] > 0


def test_any_two_methods_are_compared_with_their_boundary_errors(opened):
    part = viewer(opened())
    part.get_by_label("Left").select_option("cwd")
    part.get_by_label("Right").select_option("pbd")
    assert "cwd and pbd differ" in part.locator(".said").inner_text()
    assert part.locator(".compared figcaption b").all_text_contents() == ["cwd", "pbd"]
    assert part.locator(".compared img.over").count() == 2
    part.get_by_label("Boundary errors in white").uncheck()
    assert part.locator("img.over").count() == 0
    part.get_by_text("All 6 images side by side").click()
    part.locator(".panels tbody tr").nth(5).wait_for()
    assert part.locator(".panels tbody tr").count() == 6


def test_curves_are_drawn_for_the_chosen_methods(opened):
    page = opened()
    part = page.locator("#table-1 details.curves")
    part.locator("summary").click()
    part.locator("svg").wait_for()
    lines = part.locator("svg .mark-line path").count()
    assert lines == 4  # none and bcd, two seeds each
    part.get_by_label("cwd", exact=True).check()
    page.wait_for_function("() => document.querySelectorAll('#table-1 .curves .mark-line path').length === 6")
    part.get_by_label("Quantity").select_option("lr")
    part.locator("svg text", has_text="lr").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_fits_the_screen_and_has_nothing_that_axe_finds_serious(opened, size, scheme):
    page = opened(size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    for details in page.locator("details").all():
        details.evaluate("one => one.open = true")
    for part in page.locator(".forest, .viewer").all():
        part.scroll_into_view_if_needed()
    page.locator("#table-4 .forest svg").wait_for()
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]
    assert not serious, "\n".join(serious)
