"""The live page in a real browser: clicked, streamed, stopped, replayed, reloaded, on a small screen."""

import json
import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no chromium here: `apt-get install chromium`", allow_module_level=True)
pytest.importorskip("playwright", reason="no playwright here: `pip install playwright`")

from playwright.sync_api import expect, sync_playwright  # noqa: E402

from genmatch.compare import Plan, Study, compare, write_report  # noqa: E402
from tests.serving import serving, until  # noqa: E402

expect.set_options(timeout=20_000)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = os.environ.get("GENMATCH_SCREENSHOTS")
"""A folder for pictures of the page, to look at."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    folder.mkdir()
    (folder / "report.html").write_text("<!doctype html><title>r</title><h1>Which process draws best</h1><img src='http://example.com/never.png'>")
    results = {"plan": {"data": "digits", "steps": 10}, "families": [{"name": "<b>mask</b>", "best": {"frechet": 1.25, "nfe": 8}}]}
    (folder / "results.json").write_text(json.dumps(results))
    return folder.parent


@pytest.fixture(scope="module")
def server(runs):
    with serving(runs=runs) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    address, jobs = server
    context = browser.new_context(viewport={"width": 1180, "height": 860})
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong, asked = [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator("#solver option").first).to_contain_text("recommended")
    page.fill("#length", "64")
    yield page
    context.close()
    until(lambda: not len(jobs))
    assert [url for url in asked if not url.startswith((address, "data:"))] in ([], ["http://example.com/never.png"])
    assert [text for text in wrong if "status of 422" not in text and "example.com" not in text] == []


def words(page):
    return page.locator("#words .tok").all_text_contents()


def finished(page):
    expect(page.locator("#text-status")).to_contain_text("tokens in")


def shoot(page, name):
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def sideways(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_text_is_written_before_ones_eyes_with_the_constraints_in_place(page):
    page.fill("#prompt", "Once ____ a time")
    page.fill("#at", "30:love,50:king")
    page.fill("#steps", "64")
    page.click("#generate")
    expect(page.locator("#words .tok:not(.empty):not(.known)").first).to_be_attached()
    assert page.locator("#words .tok.empty").count() > 0
    finished(page)
    text = words(page)
    assert len(text) == 64
    assert "".join(text[:5] + text[9:16]) == "Once  a time"
    assert "".join(text[30:34] + text[50:54]) == "loveking"
    colours = page.evaluate("new Set([...document.querySelectorAll('#words .tok:not(.known)')].map((e) => e.style.color)).size")
    assert colours > 5
    page.click("#by-confidence")
    assert page.evaluate("new Set([...document.querySelectorAll('#words .tok:not(.known)')].map((e) => e.style.color)).size") > 5
    shoot(page, "text")


def test_a_slider_replays_the_path(page):
    page.click("#generate")
    finished(page)
    last = words(page)
    page.locator("#path").fill("0")
    assert page.locator("#words .tok.empty").count() == 52
    page.locator("#path").fill("32")
    assert 0 < page.locator("#words .tok.empty").count() < 52
    page.click("#play")
    expect(page.locator("#path")).to_have_js_property("value", "64", timeout=20_000)
    assert words(page) == last


def test_a_wrong_constraint_stands_beside_its_field(page):
    page.fill("#at", "2:love")
    page.click("#generate")
    note = page.locator("#at-error")
    expect(note).to_contain_text("overlap at position 2")
    assert page.locator("#at").get_attribute("aria-invalid") == "true"
    assert page.locator(".field:has(#at) .error").count() == 1
    page.fill("#at", "")
    page.fill("#steps", "9999")
    page.click("#generate")
    expect(page.locator("#steps-error")).to_contain_text("less than or equal to 256")
    assert page.locator("#at-error").count() == 0
    page.fill("#steps", "8")
    page.fill("#prompt", "<img src=x onerror=alert(1)>")
    page.click("#generate")
    expect(page.locator("#prompt-error")).to_contain_text("unknown character '<'")
    assert page.locator("#panel-text img").count() == 0


def test_words_are_locked_masked_and_rewritten(page):
    page.fill("#steps", "16")
    page.click("#generate")
    finished(page)
    page.locator("#words .word").first.click()
    page.fill("#rewrite", "Here")
    page.press("#rewrite", "Enter")
    assert "".join(words(page)[:4]) == "Here"
    kept = page.locator("#words .word").nth(8)
    place, inside = int(kept.get_attribute("data-from")), kept.text_content().replace("\n", "")
    kept.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#words .word.lock")).to_have_count(2)
    before = words(page)
    page.locator("#words .word").nth(6).click()
    page.click("[data-do=mask]")
    masked = page.locator("#words .word.mask")
    lost = range(int(masked.get_attribute("data-from")), int(masked.get_attribute("data-to")))
    page.fill("#seed", "5")
    page.click("#refill")
    finished(page)
    after = words(page)
    assert [text for i, text in enumerate(after) if i not in lost] == [text for i, text in enumerate(before) if i not in lost]
    page.fill("#prompt", "")
    page.fill("#seed", "6")
    page.click("#generate")
    expect(page.locator("#generate")).to_be_enabled()
    finished(page)
    again = words(page)
    assert "".join(again[:4]) == "Here"
    assert "".join(again[place : place + len(inside)]).replace("\n", "") == inside
    assert again != after


def test_stop_stops_on_the_server(page, server):
    page.fill("#length", "512")
    page.fill("#steps", "256")
    page.click("#generate")
    expect(page.locator("#words .tok:not(.empty):not(.known)").first).to_be_attached()
    assert len(server[1]) == 1
    page.click("#stop", force=True)  # without waiting for two equal frames, by when the text may be done
    expect(page.locator("#text-status")).to_contain_text("stopped")
    until(lambda: not len(server[1]))
    expect(page.locator("#generate")).to_be_enabled()


def test_leaving_stops_on_the_server_and_a_reload_starts_anew(page, server):
    page.fill("#length", "512")
    page.fill("#steps", "256")
    page.click("#generate")
    expect(page.locator("#words .tok:not(.empty):not(.known)").first).to_be_attached()
    page.reload()
    until(lambda: not len(server[1]))
    expect(page.locator("#solver option").first).to_contain_text("recommended")
    page.fill("#steps", "4")
    page.click("#generate")
    finished(page)


def test_two_processes_flow_under_one_clock(page):
    page.keyboard.press("Tab")
    page.locator("#tab-text").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#data option").first).to_be_attached()
    page.select_option("#left", "flow")
    page.select_option("#right", "mask")
    page.fill("#n", "120")
    page.fill("#process-steps", "12")
    page.click("#flow")
    expect(page.locator("#time")).to_have_text("t = 1.00")
    expect(page.locator("#flow")).to_be_enabled()
    painted = "[...document.querySelectorAll('.pane canvas')].map((c) => c.toDataURL())"
    end = page.evaluate(painted)
    assert len(set(end)) == 4
    page.locator("#clock").fill("6")
    expect(page.locator("#time")).to_have_text("t = 0.50")
    half = page.evaluate(painted)
    assert all(a != b for a, b in zip(half, end, strict=True))
    page.uncheck("#show-generator")
    assert page.evaluate(painted) != half
    page.check("#show-generator")
    shoot(page, "processes")
    page.click("#process-play")
    expect(page.locator("#time")).to_have_text("t = 1.00")
    page.reload()
    expect(page.locator("#panel-processes")).to_be_visible()
    page.fill("#n", "100000")
    page.click("#flow")
    expect(page.locator("#n-error")).to_contain_text("less than or equal")


def test_reports_are_listed_and_opened(page):
    page.click("#tab-compare")
    entry = page.locator("#reports button")
    expect(entry).to_contain_text("<b>mask</b> 1.25 with 8 calls")
    entry.click()
    expect(page.frame_locator("#frame").locator("h1")).to_have_text("Which process draws best")
    shoot(page, "compare")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_screen_does_not_scroll_sideways(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.fill("#steps", "8")
    page.click("#generate")
    finished(page)
    assert sideways(page) <= 0
    shoot(page, f"phone-{scheme}")
    page.locator("#words .word").last.click()
    assert sideways(page) <= 0
    page.keyboard.press("Escape")
    page.click("#tab-processes")
    page.fill("#n", "30")
    page.fill("#process-steps", "3")
    page.click("#flow")
    expect(page.locator("#time")).to_have_text("t = 1.00")
    assert sideways(page) <= 0
    shoot(page, f"phone-processes-{scheme}")
    page.click("#tab-compare")
    page.locator("#reports button").click()
    assert sideways(page) <= 0


def test_a_report_is_read_on_any_screen(browser, tmp_path):
    plan = Plan("tests.plugins:blobs", ("flow", "diffusion"), nfe=(1, 2), steps=3, batch_size=16, width=16, depth=1)
    write_report(Study([compare(plan, tmp_path)], ["runs/blobs"]), tmp_path)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert sideways(page) <= 0
    page.set_viewport_size({"width": 1280, "height": 844})
    assert sideways(page) <= 0
    cut = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"
    assert page.evaluate(cut) == []
    page.close()


def test_the_api_page_lists_every_route(page):
    page.click("nav a")
    for name in ("POST /api/text", "POST /api/process", "GET /api/reports"):
        expect(page.locator("h2", has_text=name).first).to_be_visible()
    assert "`" not in page.locator("main").inner_text()
