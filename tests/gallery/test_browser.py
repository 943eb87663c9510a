"""The gallery in a real browser, opened from a disk: what a person can do and see there."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic

import numpy as np
import pytest
from gallery_data import Corpus

from proxyclip.gallery.build import gallery
from proxyclip.gallery.options import GalleryOptions
from proxyclip.storage.store import Storage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium`: apt-get install chromium")

SCRIPT = "<script>document.title='taken'</script>"
NAMES = ["sky", SCRIPT, "tree & \"bush\" 'x'", "lynx"]
OTHER = ["fern", "sky", "Lynx"]
ODD = "<img src=x onerror=\"document.title='taken'\">.jpg"
URIS = [*(f"folder/{number:03d}.jpg" for number in range(59)), ODD]
URIS_SORTED = sorted(URIS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus with two outputs, and the gallery that compares them."""
    corpus = Corpus(str(tmp_path_factory.mktemp("corpus")))
    output = corpus.label("labels", URIS, NAMES, failed=["bad <b>.jpg"])
    other = corpus.label("other", URIS, OTHER, seed=1)
    corpus.images.delete(URIS[5])
    scores = {
        **dict.fromkeys(("miou", "aacc", "boundary_iou"), 40.5),
        "macc": None,
        "num_images": 3,
        "classes": [{"name": name, "iou": 50, "accuracy": 60, "boundary_iou": None, "pixels": 7} for name in NAMES],
        "confusion": [[5, 2, 0, 0, 1]] * 4,
        "worst": [{"uri": ODD, "miou": 1.5, "accuracy": 2}],
    }
    Storage(corpus.root).write("evaluation.json", json.dumps(scores).encode())
    scored = f"{corpus.root}/evaluation.json"
    options = GalleryOptions(output, compare=other, evaluation=scored, title=SCRIPT, margin=True)
    margins = {uri: corpus.confidences[f"labels/{uri}"] // 2 for uri in URIS if uri != ODD}
    return corpus, gallery(options, margins.get).index


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(made, browser):
    """The gallery. Afterwards: nothing was written to the console as an error, and nothing else was asked for."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    wrong, asked = [], []
    opened.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("requestfailed", lambda request: wrong.append(f"{request.url}: {request.failure}"))
    opened.goto(f"file://{made[1]}")
    opened.wait_for_selector("#content[data-shown]")
    yield opened
    assert opened.title() == f"{SCRIPT} - gallery"
    context.close()
    assert [each for each in wrong if not each.endswith("ERR_ABORTED")] == []  # that is: left before it was loaded
    folder = f"file://{made[1].removesuffix('index.html')}"
    assert [url for url in asked if not url.startswith((folder, "data:"))] == []


def cards(page):
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.image.uri)")


def style(page, selector, name):
    return page.eval_on_selector(selector, f"element => getComputedStyle(element)['{name}']")


def go(page, name):
    page.evaluate("name => { location.hash = name; }", name)
    page.wait_for_selector(f"#content[data-shown='{name.split('/')[0]}']")


def until(page, true):
    """Wait until an expression is true. Playwright's own waiting evaluates text in the page, which the page forbids."""
    deadline = monotonic() + 20
    while not page.evaluate(true):
        assert monotonic() < deadline, true
        page.wait_for_timeout(20)


def open_image(page, uri):
    page.evaluate("uri => Viewer.open(Gallery.images.find(image => image.uri === uri), Gallery.images, false)", uri)
    page.wait_for_selector(f"#viewer[data-drawn='{URIS_SORTED.index(uri)}']")


def test_masks_are_drawn_in_the_colours_of_their_classes(made, page):
    corpus, _ = made
    page.wait_for_selector(".card[data-drawn]")
    drawn = page.evaluate(
        """() => { const canvas = document.querySelector(".card[data-drawn] canvas");
        const card = canvas.closest(".card");
        return [card.image.uri, [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]; }"""
    )
    mask = corpus.masks[f"labels/{drawn[0]}"]
    pixels = np.array(drawn[1]).reshape(*mask.shape, 4)
    colours = page.evaluate("Gallery.classes.map(each => each.colour)")
    inside = np.zeros(mask.shape, bool)  # borders are darker
    inside[:-1, :-1] = (mask[:-1, :-1] == mask[1:, :-1]) & (mask[:-1, :-1] == mask[:-1, 1:])
    for index in np.unique(mask[mask != 255]):
        expected = [*bytes.fromhex(colours[index][1:]), 255]
        assert (pixels[inside & (mask == index)] == expected).all()
    assert (pixels[mask == 255][:, 3] == 0)[:1].all()


def test_the_numbers_that_scripts_read_are_those_of_the_mask(made, page):
    corpus, _ = made
    for uri in (URIS[0], URIS[3], ODD):
        number = URIS_SORTED.index(uri)
        classes, confidence = page.evaluate(
            "async number => { const [mask] = await Masks.get(number);"
            "return [[...mask.classes], [...mask.confidence.data].filter((_, at) => at % 4 === 0)]; }",
            number,
        )
        assert classes == corpus.masks[f"labels/{uri}"].ravel().tolist()
        assert confidence == corpus.confidences[f"labels/{uri}"].ravel().tolist()


def test_the_slider_sets_the_opacity_and_a_key_toggles_the_masks(page):
    page.wait_for_selector(".card[data-drawn]")
    page.locator(".opacity").first.fill("30")
    until(page, "getComputedStyle(document.querySelector('.card canvas')).opacity === '0.3'")
    page.keyboard.press("m")
    until(page, "getComputedStyle(document.querySelector('.card canvas')).opacity === '0'")
    assert page.locator(".toggle").first.text_content() == "Show masks"
    page.keyboard.press("m")
    page.keyboard.press("]")
    until(page, "getComputedStyle(document.querySelector('.card canvas')).opacity === '0.4'")
    # An image that is gone is its mask alone, and the slider leaves that alone.
    page.locator(".order").select_option("name")
    page.wait_for_selector(".picture.gone")
    assert style(page, ".picture.gone canvas", "opacity") == "1"
    assert page.locator(".card", has=page.locator(".gone")).locator(".badge").text_content() == "image gone"


def test_the_legend_filters_and_highlights_and_says_how_large_each_class_is(made, page):
    corpus, _ = made
    assert page.locator("#classes button").count() == len(NAMES)
    assert page.locator("#classes .name").all_text_contents()[-1] == "lynx"
    masks = [corpus.masks[f"labels/{uri}"] for uri in URIS]
    share = sum((mask == 0).sum() for mask in masks) / sum((mask != 255).sum() for mask in masks)
    sky = page.locator("#classes button", has_text="sky")
    assert sky.locator(".figure").text_content() == f"{100 * share:.0f} %"
    lynx = page.locator("#classes button", has_text="lynx")
    lynx.click()
    assert lynx.get_attribute("aria-pressed") == "true"
    with_lynx = {uri for uri in URIS if (corpus.masks[f"labels/{uri}"] == 3).any()}
    assert with_lynx <= set(cards(page))
    page.mouse.move(700, 5)
    until(page, "Gallery.state.highlighted === null")
    assert page.evaluate("[...Selection.classes()]") == [3]
    page.keyboard.press("c")
    until(page, "document.querySelectorAll('.card').length > 40")
    sky.hover()
    until(page, "Gallery.state.highlighted === 0")
    until(
        page,
        """(() => { const canvas = document.querySelector(".card[data-drawn] canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const [r, g, b] = [1, 3, 5].map(at => parseInt(Gallery.classes[0].colour.slice(at, at + 2), 16));
        for (let at = 0; at < data.length; at += 4)
          if (data[at + 3] && (data[at] > r || data[at + 1] > g || data[at + 2] > b)) return false;
        return true; })()""",
    )
    page.locator("#search").fill("TREE")
    assert page.locator("#classes .name").all_text_contents() == [NAMES[2]]


def test_orders(page):
    images = page.evaluate("Gallery.images")
    confidence = {image["uri"]: image["confidence"] for image in images}
    changed = {image["uri"]: image["changed"] for image in images}
    least = cards(page)
    assert len(least) == 48  # the others come while one scrolls
    assert [confidence[uri] for uri in least] == sorted(confidence.values())[:48]
    page.locator(".order").select_option("most")
    assert [confidence[uri] for uri in cards(page)][:3] == sorted(confidence.values(), reverse=True)[:3]
    page.locator(".order").select_option("changed")
    assert [changed[uri] for uri in cards(page)][:5] == sorted(changed.values(), reverse=True)[:5]
    page.locator("#classes button", has_text="sky").click()
    page.locator(".order").select_option("share")
    shares = [next(part["share"] for part in image["classes"] if part["of"] == 0) for image in images]
    first = page.evaluate("document.querySelector('.card').image.classes.find(part => part.of === 0).share")
    assert first == max(shares)
    page.keyboard.press("c")
    page.locator(".order").select_option("random")
    shuffled = cards(page)
    assert shuffled not in (least, URIS_SORTED[:48])
    page.reload()
    page.wait_for_selector("#content[data-shown]")
    page.locator(".order").select_option("random")
    assert cards(page) == shuffled
    page.locator(".end").scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('.card').length === 60")


def test_the_pointer_reads_class_confidence_and_margin_of_the_pixel_below_it(made, page):
    corpus, _ = made
    uri = URIS[13]
    mask, confidence = corpus.masks[f"labels/{uri}"], corpus.confidences[f"labels/{uri}"]
    open_image(page, uri)
    box = page.locator(".stage .picture").bounding_box()
    for row, column in [(3, 5), (60, 80), (118, 166), (90, 20), (33, 120)]:
        page.mouse.move(
            box["x"] + (column + 0.5) * box["width"] / mask.shape[1],
            box["y"] + (row + 0.5) * box["height"] / mask.shape[0],
        )
        found = page.locator(".readout")
        assert found.get_attribute("data-at") == f"{column},{row}"
        name = "no class" if mask[row, column] == 255 else NAMES[mask[row, column]]
        assert found.get_attribute("data-class") == name
        assert found.locator(".name").text_content() == name
        certain = int(confidence[row // 4, column // 4])
        assert found.locator(".measure").all_text_contents() == [
            f"confidence {100 * certain / 255:.0f} %",
            f"margin {100 * (certain // 2) / 255:.0f} %",
        ]
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator(".readout").get_attribute("data-at") == "124,33"
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer .top .name").text_content() == URIS_SORTED[URIS_SORTED.index(uri) + 1]
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    open_image(page, ODD)  # its margin is not known
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(".measure")
    assert page.locator(".measure").count() == 1


def test_images_open_by_keys_alone(page):
    page.keyboard.press("ArrowRight")
    first = page.evaluate("document.activeElement.image.uri")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.image.uri") == first
    page.keyboard.press("Enter")
    assert page.locator("#viewer .top .name").text_content() == first
    page.keyboard.press("Escape")
    until(page, "document.activeElement.classList.contains('card')")
    page.keyboard.press("?")
    assert "show or hide the masks" in page.locator("#help").text_content()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.wait_for_selector("#content[data-shown='classes']")


def test_two_outputs_are_compared(made, page):
    corpus, _ = made
    go(page, "compare")
    assert page.locator("#classes button").count() == len(NAMES) + 1  # with the other output's
    changed = page.evaluate("Gallery.images.map(image => image.changed)")
    shown = page.eval_on_selector_all(".card", "cards => cards.map(card => card.image.changed)")
    assert shown == sorted(changed, reverse=True)[: len(shown)]
    page.locator(".wipe").first.fill("25")
    assert style(page, ".picture.both .before", "clip-path") == "inset(0px 75% 0px 0px)"
    assert style(page, ".picture.both .after", "clip-path") == "inset(0px 0px 0px 25%)"
    page.locator(".number").click()
    page.keyboard.press("x")
    assert page.locator(".wipe").first.input_value() == "100"
    # The table has the counts of the masks, most first.
    numbers = {0: 4, 1: 0, 2: 3, 255: -1}
    pairs, pixels = {}, 0
    for uri in URIS:
        before, after = (corpus.masks[f"{name}/{uri}"].ravel().tolist() for name in ("labels", "other"))
        for one, two in zip(before, after, strict=True):
            pair = (-1 if one == 255 else one, numbers[two])
            pairs[pair] = pairs.get(pair, 0) + 1
            pixels += 1
    names = [*NAMES, "fern", "no class"]
    (one, two), count = max(((pair, n) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda each: each[1])
    row = page.locator("details tbody tr").first
    assert row.locator(".name").all_text_contents() == [names[one], names[two]]
    assert abs(float(re.sub(r"[^\d.]", "", row.locator(".figure").text_content())) - 100 * count / pixels) < 0.51
    row.locator("button").click()
    assert page.evaluate("Gallery.state.transition") == [one, two]
    for uri in cards(page)[:5]:
        before, after = (corpus.masks[f"{name}/{uri}"] for name in ("labels", "other"))
        assert ((before == one) & (np.vectorize(numbers.get)(after) == two)).any()
    page.locator(".card").first.click()
    box = page.locator(".stage .picture").bounding_box()
    page.wait_for_selector("#viewer[data-drawn]")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator(".readout .name").count() == 2


def test_names_stay_text_on_every_page(page):
    for name in ("images", "classes", "class/1", "compare", "evaluation", "failures"):
        go(page, name)
        assert page.locator("main img:not([src^='thumbnails/'])").count() == 0
        assert page.evaluate("document.title") == f"{SCRIPT} - gallery"
    assert page.locator("td", has_text="bad <b>.jpg").count() >= 1
    go(page, "class/1")
    assert SCRIPT in page.locator("h2").all_text_contents()
    assert page.locator(".card").count() > 2
    go(page, "evaluation")
    assert page.locator(".card .caption").text_content().startswith(ODD)
    assert page.locator(".confusion td.strong").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(made, browser, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(f"file://{made[1]}")
    for name in ("images", "classes", "class/0", "compare", "evaluation", "failures"):
        go(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        tab = page.locator("#tabs [aria-current]").bounding_box()
        assert tab["x"] >= 0
        assert tab["x"] + tab["width"] <= 390
    ink, paper = (page.evaluate(f"getComputedStyle(document.body)['{name}']") for name in ("color", "backgroundColor"))
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in (ink, paper)]
    assert abs(light[0] - light[1]) > 180
    assert (light[0] < light[1]) == (scheme == "light")
    context.close()


def test_an_unfinished_output_says_so_on_its_page(tmp_path, browser):
    corpus = Corpus(str(tmp_path))
    index = gallery(GalleryOptions(corpus.label("labels", URIS[:12], NAMES, shards=1))).index
    page = browser.new_page()
    page.goto(f"file://{index}")
    assert page.locator("#notice").text_content() == "labels is not finished: 1 of 3 shards are labelled."
    page.close()


def test_it_opens_from_a_web_server(made, browser):
    handler = partial(SimpleHTTPRequestHandler, directory=made[1].removesuffix("index.html"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector(".card[data-drawn]")
        assert len(cards(page)) == 48
        page.close()
        server.shutdown()
