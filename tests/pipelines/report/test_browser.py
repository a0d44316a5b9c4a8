"""The report in a real browser: what people see, touch and type, at two widths and in both colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from pipelines.report.page import write_report
from pipelines.results.entry import OTHER
from pipelines.results.leaderboard import Leaderboard

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
HOSTILE = '</script><img src=x onerror="window.hacked=1">'
MOST_BYTES = 8_000_000
READY_MS = 6000
"""Lenient, since other work may share the machine; on an idle one 500 runs are ready in well under two seconds."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study_page(tmp_path_factory: pytest.TempPathFactory, builder_at: Callable[[Path], Any]) -> Path:
    """Ten rows of two heads, one failed and one pruned trial."""
    root = tmp_path_factory.mktemp("study")
    builder = builder_at(root / "runs")
    ended = [
        {"label": "K=8, wide", "state": "failed", "error": "NotFinite: the loss is nan at step 120"},
        {"label": "K=8, deep", "state": "pruned", "error": "worse than the median at rung 2"},
    ]
    folder = builder.study(10, heads=("energy", "flow"), ended=ended)
    return write_report(builder.store, [folder], root / "report.html")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory, builder_at: Callable[[Path], Any]) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    builder = builder_at(root / "runs")
    labels = [HOSTILE, "\u202egnp.exe\u202c", "L" * 300, "=cmd|' /C calc'!A0", "<svg onload=window.hacked=1>"]
    ended = [{"label": HOSTILE, "state": "failed", "error": HOSTILE + "\n" * 5 + HOSTILE}]
    folder = builder.study(5, labels=labels, text=f"{HOSTILE}\u202e\x1b[31m<!--<script>", ended=ended)
    return write_report(builder.store, [folder], root / "report.html")


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory, builder_at: Callable[[Path], Any]) -> Path:
    root = tmp_path_factory.mktemp("large")
    builder = builder_at(root / "runs")
    folder = builder.study(500, heads=("energy", "flow"), log_lines=40)
    return write_report(builder.store, [folder], root / "report.html")


LOW_CONTRAST = """() => {
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) =>
        0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const painted = colours => {
        canvas.clearRect(0, 0, 1, 1);
        for (const each of colours) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
        return luminance(canvas.getImageData(0, 0, 1, 1).data);
    };
    const below = element => {
        const found = [];
        for (let e = element; e; e = e.parentElement) found.unshift(getComputedStyle(e).backgroundColor);
        return found;
    };
    const low = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility()) continue;
        if (element.closest('svg, script, style, .skip, .unseen')) continue;
        const under = below(element);
        const both = [painted(under), painted([...under, getComputedStyle(element).color])];
        const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        if (contrast < 4.5) low.push([element.className, element.textContent.slice(0, 30), contrast]);
    }
    return low;
}"""
"""What text has less than 4.5:1 to what it stands on."""
NAMELESS = """() => [
    ...document.querySelectorAll('button, select, input, [role=region], svg[role=group]')
].filter(element => !(element.getAttribute('aria-label') || element.textContent.trim()
                 || element.closest('label')?.textContent.trim())).length"""
"""How many controls say nothing to those who do not see them."""

Opened = Callable[..., Any]


@pytest.fixture
def open_page(chromium: Browser) -> Opened:
    """Opens a report and checks at the end that nothing was asked of a network and nothing went wrong."""

    @contextmanager
    def opened(path: Path, size: dict[str, int] = WIDE, scheme: str = "light", **options: Any) -> Iterator[Page]:
        context = chromium.new_context(viewport=size, color_scheme=scheme, **options)
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if _is_network(request.url) else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        yield page
        assert wrong == []
        context.close()

    return opened


def _is_network(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def draw_everything(page: Page) -> None:
    """Go to every chart, so that it draws itself; a page that is scrolled past one may not have looked."""
    for plot in page.locator(".plot").element_handles():
        plot.scroll_into_view_if_needed()
        plot.wait_for_selector(":scope > *", state="attached")
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")


def chart(page: Page, section: str) -> Any:
    page.locator(f"#{section}").scroll_into_view_if_needed()
    svg = page.locator(f"#{section} svg[role=group]").first
    svg.wait_for()
    return svg


def tip(page: Page, section: str) -> list[str]:
    """Lines of the tip of the point that is reached; empty where none is."""
    lines = page.locator(f"#{section} .tip text > tspan").all_text_contents()
    return [line.strip("\u200b\u25a0 ") for line in lines]


def models(page: Page) -> list[str]:
    found: list[str] = page.locator("#board tbody th .name").all_inner_texts()
    return found


@pytest.mark.parametrize(
    ("size", "name", "scheme"), [(WIDE, "desktop", "light"), (WIDE, "desktop", "dark"), (PHONE, "phone", "light")]
)
def test_layout(
    open_page: Opened, study_page: Path, artifacts: Path, size: dict[str, int], name: str, scheme: str
) -> None:
    with open_page(study_page, size, scheme) as page:
        draw_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.locator(".contents").is_visible() == (name == "desktop")
        outside = """() => [...document.querySelectorAll('main *')].filter(element => {
            if (element.closest('.scroll, .pre, pre, code, .unseen, svg')) return false;
            const box = element.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 1;
        }).map(element => element.outerHTML.slice(0, 80))"""
        assert page.evaluate(outside) == []
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate(NAMELESS) == 0
        page.screenshot(path=artifacts / f"report-{name}-{scheme}.png", full_page=True)


def test_everything_asked_for_is_there(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        titles = page.locator("main section:not([hidden]) > h2").all_inner_texts()
        assert titles == [
            "Score against compute",
            "Leaderboard",
            "Score against K",
            "Components of the score",
            "Training",
            "Fidelity and diversity",
            "Autoencoders",
            "Search",
            "Samples of text",
            "Trials without a row",
            "Protocol",
            "How to reproduce",
            "Configuration and environment",
        ]
        assert page.locator("#contents a").count() == len(titles) + 1
        assert page.locator("#ended-body .card").count() == 2
        assert "NotFinite" in page.locator("#ended-body").inner_text()
        assert "the loss is nan" in page.locator("#ended-body").inner_text()
        assert "calm-bench run" in page.locator("#reproduce-body").inner_text()
        assert page.locator(".sample").count() >= 1
        assert "Temperature 0.5" in page.locator("#samples-body").inner_text()


def test_headings_have_an_order_and_the_content_can_be_skipped_to(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"


def test_the_colours_can_be_chosen(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        background = "getComputedStyle(document.documentElement).backgroundColor"
        light = page.evaluate(background)
        page.locator("#theme").click()
        assert page.evaluate(background) != light
        assert "dark" in page.locator("#theme").get_attribute("aria-label")
        page.locator("#theme").press("Enter")
        assert page.evaluate(background) == light


def test_the_leaderboard_sorts_by_mouse_and_keyboard(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        by_rank = models(page)
        button = page.locator("#board button[data-key=total_training_flops]")
        button.click()
        cheapest = models(page)
        header = page.locator("#board th:has(button[data-key=total_training_flops])")
        assert header.get_attribute("aria-sort") == "ascending"
        assert sorted(cheapest) == sorted(by_rank)
        assert cheapest != by_rank
        assert page.evaluate("document.activeElement.dataset.key") == "total_training_flops"
        page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == "descending"
        assert models(page) == cheapest[::-1]
        # What is missing is neither small nor large: the token models have no autoencoder.
        page.locator("#board button[data-key=autoencoder_accuracy]").press("Space")
        assert all(name.startswith("token") for name in models(page)[-2:])


def test_the_leaderboard_is_filtered(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        assert page.locator("#leaderboard .count").inner_text() == "10 rows"
        page.locator("#filter").fill("K=4")
        assert page.locator("#leaderboard .count").inner_text() == "2 of 10 rows"
        assert all(name.startswith("K=4") for name in models(page))
        page.locator("#filter").fill("nothing like it")
        assert "No row has these words" in page.locator("#board").inner_text()
        page.locator("#filter").fill("")
        assert len(models(page)) == 10


def test_columns_can_be_chosen(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        assert page.locator("#board button[data-key=brier_4]").count() == 0
        page.locator(".menu summary").click()
        page.get_by_label("Brier-4", exact=True).check()
        assert page.locator("#board button[data-key=brier_4]").count() == 1
        assert (
            page.locator("#board tbody tr").first.locator("td, th").count() == page.locator("#board thead th").count()
        )


def test_hovering_shows_the_run_and_a_click_opens_it(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        svg = chart(page, "compute-chart")
        svg.focus()
        page.keyboard.press("ArrowRight")
        ring = page.locator("#compute-chart .ring circle")
        box = svg.bounding_box()
        at = (box["x"] + float(ring.get_attribute("cx")), box["y"] + float(ring.get_attribute("cy")))
        page.keyboard.press("Escape")
        assert tip(page, "compute-chart") == []
        page.mouse.move(*at)
        name, *lines = tip(page, "compute-chart")
        assert name in models(page)
        assert any(line.startswith("BrierLM ") and " ± " in line for line in lines)
        assert any(re.fullmatch(r"Training FLOPs \d\.\d\d×10[⁰-⁹¹²³]+", line) for line in lines)  # noqa: RUF001
        assert "MLflow" in lines[-1]
        asked: list[str] = []

        def answer(route: Any) -> None:
            asked.append(route.request.url)
            route.fulfill(body="a run")

        page.context.route("http://tracking.example:8080/**", answer)
        with page.context.expect_page() as opened:
            page.mouse.click(*at)
        opened.value.wait_for_load_state()
        link = page.locator("#compute-chart .ring a").evaluate("a => a.href.baseVal")
        assert link.startswith("http://tracking.example:8080/#/experiments/7/runs/")
        assert opened.value.url == link
        assert asked == ["http://tracking.example:8080/"]
        opened.value.close()


def test_points_are_reached_with_keys(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        svg = chart(page, "compute-chart")
        svg.focus()
        seen = []
        for _ in range(10):
            page.keyboard.press("ArrowRight")
            seen.append(tip(page, "compute-chart")[0])
            # Those who do not see it are told the same.
            said = page.get_by_role("status").filter(has_text="BrierLM").inner_text()
            assert said.startswith(f"{seen[-1]}, Rank ")
        assert sorted(seen) == sorted(models(page))
        page.keyboard.press("Home")
        assert tip(page, "compute-chart")[0] == seen[0]
        page.keyboard.press("Escape")
        assert page.locator("#tip").inner_text() == ""


def test_keys_pass_points_that_coincide(open_page: Opened, tmp_path: Path, builder_at: Callable[[Path], Any]) -> None:
    """Two rows of equal score and price: whichever of them is shown, the others are still reached both ways."""
    builder = builder_at(tmp_path / "runs")
    folder = builder.study(5)
    board = Leaderboard.from_json((folder / "leaderboard.json").read_text())
    second = next(entry for entry in board if entry.trial == 1)
    same = {"brierlm": second.brierlm, "total_training_flops": second.total_training_flops}
    entries = [entry.model_copy(update=same) if entry.trial == 2 else entry for entry in board]
    (folder / "leaderboard.json").write_text(Leaderboard(entries).to_json())
    with open_page(write_report(builder.store, [folder], tmp_path / "report.html")) as page:
        chart(page, "compute-chart").focus()
        for key in ("ArrowRight", "ArrowLeft"):
            seen = set()
            for _ in range(5):
                page.keyboard.press(key)
                seen.add(tip(page, "compute-chart")[0])
            assert len(seen) == 4, key


def test_a_model_of_others_stands_at_no_k(open_page: Opened, tmp_path: Path, builder_at: Callable[[Path], Any]) -> None:
    """In the chart of score against K it has a place of its own with a level line, and its K is empty."""
    builder = builder_at(tmp_path / "runs")
    folder = builder.study(5)
    board = Leaderboard.from_json((folder / "leaderboard.json").read_text())
    others = {"kind": OTHER, "chunk_size": 1, "head": None, "autoencoder_accuracy": None}
    entries = [entry.model_copy(update=others | {"label": "gpt2"}) if entry.trial == 1 else entry for entry in board]
    (folder / "leaderboard.json").write_text(Leaderboard(entries).to_json())
    with open_page(write_report(builder.store, [folder], tmp_path / "report.html")) as page:
        svg = chart(page, "chunks-chart")
        places = svg.locator("[aria-label='x-axis tick label'] text").all_text_contents()
        assert places == ["token", "K=2", "K=4", "K=8", "other"]
        assert svg.locator("[aria-label='rule'] line[stroke-dasharray], [aria-label='rule'][stroke-dasharray]").count()
        svg.focus()
        page.keyboard.press("End")
        name, *lines = tip(page, "chunks-chart")
        assert name == "gpt2"
        assert not [line for line in lines if line.startswith("K") and re.search(r"\d", line)], lines
        page.locator("#chunks-chart details.data summary").click()
        row = page.locator("#chunks-chart details.data tr").filter(has_text="gpt2").inner_text()
        assert row.split()[:2] == ["gpt2", "other"]
        # The other charts draw it as they did.
        assert "gpt2" in models(page)


def test_any_two_columns_make_a_chart(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        chart(page, "compute-chart")
        page.get_by_label("Across").select_option("parameters")
        page.get_by_label("Up", exact=True).select_option("brier_2")
        label = page.locator("#compute-chart svg[role=group]").get_attribute("aria-label")
        assert label.startswith("Brier-2 against Parameters, 10 rows")
        page.locator("#compute-chart details.data summary").click()
        table = page.locator("#compute-chart details.data table")
        # Its rows are made when it is opened.
        table.locator("tbody tr").first.wait_for()
        assert table.locator("tbody tr").count() == 10
        page.get_by_role("button", name="Inference", exact=True).click()
        label = page.locator("#compute-chart svg[role=group]").get_attribute("aria-label")
        assert label.startswith("BrierLM against Inference FLOPs")


def test_every_kind_of_training_shows_its_curves(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page) as page:
        section = page.locator("#training")
        section.scroll_into_view_if_needed()
        stage = section.get_by_label("Stage")
        assert stage.locator("option").all_inner_texts() == ["Language models", "Autoencoders"]
        stage.select_option("autoencoder")
        section.get_by_label("Term").select_option("kl")
        section.locator("details.data summary").click()
        section.locator("details.data tbody tr").first.wait_for()
        runs = section.locator("details.data tbody tr td:first-child, details.data tbody tr th").all_inner_texts()
        assert sorted(dict.fromkeys(runs)) == [f"autoencoder K={size}, in training" for size in (1, 2, 4, 8)]


def test_a_finger_reads_before_it_opens(open_page: Opened, study_page: Path) -> None:
    with open_page(study_page, PHONE, has_touch=True, is_mobile=True) as page:
        svg = chart(page, "chunks-chart")
        svg.scroll_into_view_if_needed()
        page.wait_for_timeout(100)
        point = svg.locator("g[aria-label=dot] path").first.bounding_box()
        page.touchscreen.tap(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
        assert tip(page, "chunks-chart")
        assert len(page.context.pages) == 1
        shown = page.locator("#chunks-chart .tip > g").bounding_box()
        assert shown["x"] >= 0
        assert shown["x"] + shown["width"] <= PHONE["width"]


COLOURS = """svg => [...svg.querySelectorAll('[aria-label=dot] > *')].map(point => getComputedStyle(point).fill)"""


def test_a_chart_is_saved_as_it_looks(open_page: Opened, study_page: Path, tmp_path: Path) -> None:
    with open_page(study_page, accept_downloads=True, scheme="dark") as page:
        shown = chart(page, "compute-chart").evaluate(COLOURS)
        with page.expect_download() as download:
            page.locator("#compute-chart .save").first.click()
        assert re.fullmatch(r"[\w-]+\.svg", download.value.suggested_filename)
        download.value.save_as(tmp_path / "chart.svg")
    assert ElementTree.parse(tmp_path / "chart.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    (tmp_path / "alone.html").write_text(
        f"<html data-ready><body style='margin:0'>{(tmp_path / 'chart.svg').read_text(encoding='utf-8')}"
    )
    with open_page(tmp_path / "alone.html") as page:
        svg = page.locator("svg").first
        assert svg.evaluate(COLOURS) == shown
        assert len(set(shown)) > 1
        assert svg.evaluate("svg => getComputedStyle(svg).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_hostile_names_and_texts_stay_text(open_page: Opened, hostile_page: Path) -> None:
    with open_page(hostile_page) as page:
        draw_everything(page)
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main svg[onload], main iframe").count() == 0
        names = models(page)
        assert HOSTILE in names
        assert not any("\u202e" in name for name in names)
        text = page.locator("#samples-body").inner_text()
        assert HOSTILE in text
        assert "\u202e" not in text
        assert "\x1b" not in text
        assert HOSTILE in page.locator("#ended-body").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    with open_page(hostile_page, PHONE) as page:
        draw_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_five_hundred_runs(open_page: Opened, large_page: Path, artifacts: Path, record_property: Any) -> None:
    size = large_page.stat().st_size
    assert size < MOST_BYTES
    with open_page(large_page) as page:
        ready = float(page.evaluate("document.documentElement.dataset.ready"))
        record_property("ready_ms", ready)
        record_property("bytes", size)
        (artifacts / "report-500-runs.txt").write_text(f"{ready:.0f} ms until ready, {size} bytes\n")
        assert ready < READY_MS
        assert page.locator("#leaderboard .count").inner_text() == "500 rows"
        assert len(models(page)) == 100
        page.get_by_role("button", name="Show all 500 rows").click()
        assert len(models(page)) == 500
        assert chart(page, "compute-chart").locator("g[aria-label=dot] path").count() == 500


def test_printed_it_is_all_there(open_page: Opened, study_page: Path, artifacts: Path) -> None:
    with open_page(study_page) as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('svg'))")
        page.emulate_media(media="print")
        assert page.locator(".bar").is_hidden()
        page.pdf(path=artifacts / "report.pdf", format="A4")
        assert (artifacts / "report.pdf").stat().st_size > 50_000
