"""The site of `make docs` is built without a warning, opens from files without a network, and lacks nothing."""

import csv
import os
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import pytest
from support.project import ROOT

from bcd.losses import TERMS

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
pytestmark = pytest.mark.slow
METHODS = (ROOT / "docs/reference/methods.md").read_text()
TABLES = sorted((ROOT / "results/reference").glob("*/*.csv"))
RESOURCE = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)="?([^"\s>]+)')
SCRIPT = re.compile(r"(<script\b[^>]*>).*?(?=</script>)", re.DOTALL)
LINK = re.compile(r'\bhref="?([^"\s>]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def texts(site):
    """The text of each page by its address, without what scripts hold; not of the one that is shown for none."""
    pages = {path.relative_to(site).as_posix(): SCRIPT.sub(r"\1", path.read_text()) for path in site.rglob("*.html")}
    del pages["404.html"]
    return pages


def local(page: str, address: str) -> tuple[str, str]:
    """The file within the site that an address on a page leads to, and the anchor there."""
    path, _, anchor = unquote(unescape(address)).partition("#")
    return os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page, anchor


def test_pages_are_made_of_nothing_that_is_not_in_the_site(site, texts):
    wanted = {(page, address) for page, text in texts.items() for address in RESOURCE.findall(text)}
    assert len(wanted) > len(texts)
    elsewhere = [one for one in wanted if ":" in one[1] or not (site / local(*one)[0]).exists()]
    assert not elsewhere
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?!data:)[a-z]*:?//|@import", styles)


def test_links_lead_somewhere(site, texts):
    """Those that MkDocs does not look at as well: in docstrings, between symbols, and to what is no page."""
    anchors = {page: set(re.findall(r'\bid="?([^"\s>]+)', text)) for page, text in texts.items()}
    links = {(page, one) for page, text in texts.items() for one in LINK.findall(text) if not re.match("[a-z]+:", one)}
    broken = []
    for page, address in links:
        file, anchor = local(page, address)
        if not (site / file).exists() or (anchor and file in anchors and anchor not in anchors[file]):
            broken.append((page, address))
    assert len(links) > 1000 and not broken


@pytest.mark.parametrize("name", TERMS)
def test_each_loss_has_its_formula_and_its_code(texts, name):
    page = texts["reference/api/losses.html"]
    loss = TERMS[name].loss
    section = page[page.index(f'<h2 id="{name}"') :].split("<h2 ")[1]
    formula = re.search(rf"^## {re.escape(name)}\n(?:.*\n)*?    (\S.*)$", METHODS, re.MULTILINE)[1]
    assert "".join(formula.split()) in "".join(unescape(re.sub("<[^>]*>", "", section)).split())
    assert f'id="{loss.__module__}.{loss.__qualname__}"' in section
    assert f'href="../methods.html#{name}"' in section
    assert f'href="api/losses.html#{name}"' in texts["reference/methods.html"]


def test_shorthands_of_docstrings_are_read(texts):
    """Arguments of one description, and fields in two columns."""
    loss = texts["reference/api/losses.html"].split('<h2 id="cwd"')[1].split("<h2 ")[0]
    assert all(f"<b><code>{name}</code></b>" in loss for name in ("student", "teacher", "temperature"))
    spec = texts["reference/api/runs.html"].split('id="bcd.runs.spec.RunSpec"')[1].split("<h3 ")[0]
    assert "Attributes:" in spec and all(
        f'title="bcd.runs.spec.RunSpec.{name}"' in spec for name in ("data_sha256", "teacher", "version")
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_reference_table_is_on_the_page_of_its_suite(texts, table):
    page = texts[f"results/reference/{table.parent.name}/index.html"]
    section = page.split(f'<h2 id="{table.stem}"')[1].split("<h2 ")[0]
    with table.open(newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert methods <= set(re.findall(r"<tr>\s*<td[^>]*>([^<]*)</td>", section))
    assert f'href="{table.name}"' in section
    assert (f'src="{table.stem}.png"' in section) == table.with_suffix(".png").exists()


@pytest.mark.parametrize("suite", sorted({table.parent.name for table in TABLES}))
def test_each_suite_of_reference_tables_has_its_report(texts, suite):
    assert 'href="report.html"' in texts[f"results/reference/{suite}/index.html"]
    assert f"<h1>{suite}</h1>" in texts[f"results/reference/{suite}/report.html"]


@pytest.fixture
def phone(browser):
    """A page of a telephone without a network; fails if it asks for anything beyond files, or complains."""
    complaints = []
    context = browser.new_context(viewport={"width": 390, "height": 844}, offline=True)
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else complaints.append(asked.url))
    yield page
    context.close()
    assert not complaints


@pytest.mark.browser
def test_a_wide_table_scrolls_and_its_page_does_not(site, phone):
    phone.goto((site / "results/reference/scenes/index.html").as_uri())
    wrap = phone.locator(".md-typeset__scrollwrap").first
    wrap.wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert wrap.evaluate("one => one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX == 'auto'")


@pytest.mark.browser
def test_a_report_draws_its_charts_and_opens_traces(site, phone):
    phone.goto((site / "results/reference/scenes/report.html").as_uri())
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    chart = phone.locator("#table-1 .forest")
    chart.scroll_into_view_if_needed()
    chart.locator("svg").wait_for()
    phone.locator("#table-1").get_by_role("button", name="bcd, Δ bIoU:", exact=False).first.click()
    said = phone.get_by_role("dialog").inner_text()
    assert "+5.95 [+4.30, +7.60]" in said and "They were not kept." in said and "n/a" not in said


@pytest.mark.browser
def test_the_search_finds_a_loss_in_files(site, phone):
    phone.goto((site / "index.html").as_uri())
    phone.locator("label.md-header__button[for=__search]").click()
    phone.locator("input.md-search__input").press_sequentially("posterior_boundary")
    phone.locator("a.md-search-result__link").first.wait_for()
    found = phone.locator("a.md-search-result__link").evaluate_all("all => all.map(one => one.href)")
    assert any("reference/methods.html" in address for address in found)
