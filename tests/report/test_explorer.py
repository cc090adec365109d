"""The data map of a page: what is packed, and in a real browser what the slider, the filters and the pointer show."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_fixture import header, header_text, ids_of, kept_at, unpacked, values_of
from report_fixture import make_run

pytest.importorskip("bokeh", reason="bokeh is not installed: no page can be written")
pytest.importorskip("jinja2", reason="jinja2 is not installed: no page can be written")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")

from dualfast import Scores, select
from dualfast.data import beton
from dualfast.data.index_list import save_keep
from dualfast.data.inventory import Files
from dualfast.data.names import Names
from dualfast.report import explorer
from dualfast.runs import commands
from dualfast.runs.rundir import RunDir

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
N = 300
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
TURNED = "invoice\u202egnp.exe\x00\n\u2066"


def page(run_dir: RunDir) -> str:
    return commands.report(run_dir.path).read_text(encoding="utf-8")


def name_samples(run_dir: RunDir, names: list[str]) -> None:
    import pyarrow as pa

    table = pa.table({"id": np.arange(len(names)), "name": names})
    Names(table, Files.none()).save(run_dir.train_beton, beton.open_beton(run_dir.train_beton).fingerprint)


def rescore(run_dir: RunDir, **columns: Any) -> Scores:
    """Changes columns of the scores of seed 0."""
    old = Scores.load(run_dir.scores_path(0))
    own = {name: getattr(old, name) for name in ("dual", "mean", "dyn_unc", "aum", "el2n")} | columns
    scores = Scores(**{name: column for name, column in own.items() if column is not None})
    fingerprint = beton.open_beton(run_dir.train_beton).fingerprint
    scores.save(run_dir.scores_path(0), labels=np.arange(len(scores)) % 3, fingerprint=fingerprint)
    return scores


# ---- what is packed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dual+beta", "dual+beta:c_d=auto", "ccs:mis_ratio=0.1", "random"])
@pytest.mark.parametrize("per_class", [False, True])
def test_what_is_kept_at_each_ratio_is_what_select_keeps(tmp_path: Path, method: str, per_class: bool) -> None:
    run_dir = make_run(tmp_path / "run", n=N, methods=(method,), seeds=(3, 0))
    config = run_dir.path / "config.yaml"
    config.write_text(config.read_text().replace("per_class: false", f"per_class: {str(per_class).lower()}"))
    scores = Scores.load(run_dir.scores_path(3))
    if method.startswith("ccs"):
        method = "ccs:score=aum,mis_ratio=0.1"
        run_dir = make_run(tmp_path / "ccs", n=N, methods=(method,), seeds=(3, 0))
        per_class = False
    text = page(run_dir)
    name, _, given = method.partition(":")
    options: dict[str, Any] = dict(option.split("=") for option in given.split(",") if option)
    options = {key: float(value) if key == "mis_ratio" else value for key, value in options.items()}
    ratios = [about["ratio"] for about in header(text)["ratios"]]
    assert ratios == sorted({*explorer.RATIOS, 0.5, 0.8})
    for ratio in ratios:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = select(scores, ratio, method=name, seed=3, labels=np.arange(N) % 3, per_class=per_class, **options)
        assert kept_at(text, ratio) == kept.tolist()
    assert [about["kept"] for about in header(text)["ratios"]] == [round(N * (1 - ratio)) for ratio in ratios]


def test_at_the_ratios_of_the_run_its_own_lists_are_shown(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, ratios=(0.5, 0.83), seeds=(0,))
    about: dict[str, Any] = {"method": "dual+beta", "seed": 0, "per_class": False, "n_samples": N}
    own = np.arange(1, 52)  # no selection makes this list
    save_keep(run_dir.keep_path(0.83, "dual+beta", 0), own, prune_ratio=0.83, c_d=6.5, **about)
    text = page(run_dir)
    assert kept_at(text, 0.83) == own.tolist()
    told = {about["ratio"]: about for about in header(text)["ratios"]}
    assert {ratio for ratio, about in told.items() if about["listed"]} == {0.83}
    assert told[0.83]["c_d"] == 6.5
    assert told[0.5]["c_d"] == told[0.1]["c_d"] == 4.0
    scores = Scores.load(run_dir.scores_path(0))
    mu = scores.mean[np.argsort(-scores.dual)[:10]].mean()
    b = 15 * (1 - mu) * (1 - 0.5**4)
    assert (told[0.5]["a"], told[0.5]["b"]) == pytest.approx((16 - b, b))
    assert header(text)["start"] == list(told).index(0.83)


def test_scores_names_and_labels_are_those_of_the_samples(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,), ratios=(0.5,))
    about: dict[str, Any] = {"method": "dual+beta", "seed": 0, "per_class": False, "c_d": 4.0, "n_samples": N}
    save_keep(run_dir.keep_path(0.5, "dual+beta", 0), np.arange(150), prune_ratio=0.5, **about)
    name_samples(run_dir, [f"train/é{i}.png" for i in range(N)])
    forgetting = np.where(np.arange(N) == 7, np.nan, np.arange(N) % 9)
    dual = np.where(np.arange(N) == 5, np.nan, Scores.load(run_dir.scores_path(0)).dual)
    scores = rescore(run_dir, dual=dual, forgetting=forgetting)
    text = page(run_dir)
    points = np.delete(np.arange(N), 5)
    assert ids_of(text).tolist() == points.tolist()
    assert unpacked(text)["labels"].tolist() == (points % 3).tolist()
    assert unpacked(text)["names"].tobytes().decode().split("\0") == [f"train/é{i}.png" for i in points]
    for name, levels in (("mean", 4094), ("dual", 4094), ("dyn_unc", 4094), ("aum", 254), ("el2n", 254)):
        exact = getattr(scores, name)[points]
        np.testing.assert_allclose(values_of(text, name), exact, atol=0.5001 * np.ptp(exact) / levels)
    np.testing.assert_array_equal(values_of(text, "forgetting"), forgetting[points])
    assert "Shown are the 299 of 300 images that have these scores." in text
    # One sample has no score, so that nothing can be drawn; the run's own list is there.
    assert [about["ratio"] for about in header(text)["ratios"]] == [0.5]
    assert kept_at(text, 0.5) == [id_ for id_ in range(150) if id_ != 5]


def test_there_is_an_image_for_each_part_of_the_map(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,), size=80)
    text = page(run_dir)
    tiled, tiles = unpacked(text)["tiled"], header(text)["tiles"]
    mean, spread = (values_of(text, name) for name in ("mean", "dyn_unc"))

    def cells(where: Any) -> set[tuple[int, int]]:
        sides = [np.floor((v - v.min()) / np.ptp(v) * explorer.CELLS * 0.999)[where] for v in (mean, spread)]
        return set(zip(*(side.astype(int).tolist() for side in sides), strict=True))

    assert len(cells(tiled) ^ cells(slice(None))) <= 2  # scores are rounded
    assert len(tiled) < explorer.CELLS**2
    assert tiles["source"].startswith("data:image/jpeg;base64,")
    assert tiles["size"] == 48


def test_names_that_are_too_many_are_left_out_but_for_those_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,))
    name_samples(run_dir, [f"{i} " + "long" * 5000 for i in range(N)])
    names = unpacked(page(run_dir))["names"].tobytes().decode().split("\0")
    assert {len(name) for name in names} == {explorer.NAME_LENGTH}
    monkeypatch.setattr(explorer, "NAME_BYTES", 20)
    text = page(run_dir)
    names = unpacked(text)["names"].tobytes().decode().split("\0")
    assert [i for i, name in enumerate(names) if name] == unpacked(text)["tiled"].tolist() != list(range(N))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,), class_names=[HOSTILE, TURNED, "plain"])
    name_samples(run_dir, [HOSTILE + TURNED] * N)
    text = page(run_dir)
    assert "</script" not in header_text(text)
    assert header(text)["classes"] == [HOSTILE, "invoice\\u202egnp.exe\\u0000\n\\u2066", "plain"]
    names = unpacked(text)["names"].tobytes().decode()
    assert not re.search("[\u202e\u2066]", text + names)
    assert len(names.split("\0")) == N
    assert text.count("<script>window.broken") == 0


# ---- in a browser ---------------------------------------------------------------------------------------------------


@contextmanager
def opened(run_dir: RunDir, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """The page of a run in a browser, its map drawn; an error in its scripts fails the test."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page can be driven")
    if BROWSER is None:
        pytest.skip("no Chromium to open the page in")
    page(run_dir)
    errors: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else errors.append(asked.url))
        tab.goto(run_dir.report_path.as_uri())
        tab.wait_for_selector("#explorer [data-part=count]:not(:empty)")  # the page's policy forbids wait_for_function
        tab.wait_for_selector("#ratio .bk-Figure")
        yield tab
        browser.close()
    assert not errors


def part(tab: Any, name: str) -> Any:
    return tab.locator(f"#explorer [data-part={name}]")


def at_ratio(tab: Any, ratio: float) -> str:
    """Moves the slider with the arrow keys; what the page says then."""
    slider = part(tab, "ratio")
    for _ in range(40):
        now = float(slider.get_attribute("aria-valuetext"))
        if now == ratio:
            break
        slider.press("ArrowRight" if now < ratio else "ArrowLeft")
        tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert part(tab, "ratio-value").text_content() == str(ratio)
    return str(part(tab, "count").text_content())


def pixels(tab: Any) -> str:
    return str(part(tab, "canvas").evaluate("canvas => canvas.toDataURL()"))


def rates(tab: Any) -> dict[str, str]:
    """kept / of, by class, as shown."""
    rows = (
        part(tab, "rates")
        .locator("tr:visible")
        .evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.textContent))")
    )
    return {name: f"{kept} / {of}" for name, kept, of, _ in rows}


def test_the_slider_and_the_filters_move_everything(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,), class_names=["ant", "bee", HOSTILE])
    with opened(run_dir) as tab:
        text = run_dir.report_path.read_text(encoding="utf-8")
        assert at_ratio(tab, 0.5) == "150 of 300 kept, 50.0%"
        before, curve = pixels(tab), part(tab, "curve").get_attribute("d")
        assert at_ratio(tab, 0.8) == "60 of 300 kept, 20.0%"
        assert pixels(tab) != before
        assert part(tab, "curve").get_attribute("d") != curve
        kept = np.array(kept_at(text, 0.8))
        of_class = np.bincount(kept % 3, minlength=3).tolist()
        assert rates(tab) == {name: f"{n} / 100" for name, n in zip(["ant", "bee", HOSTILE], of_class, strict=True)}
        part(tab, "class").select_option(label="bee")
        tab.wait_for_selector("#explorer [data-part=count]:has-text(' of 100 ')")
        assert part(tab, "count").text_content() == f"{of_class[1]} of 100 kept, {of_class[1]:.1f}%"
        assert rates(tab) == {"bee": f"{of_class[1]} / 100"}
        # The bars of the histogram are those of the class.
        scores = Scores.load(run_dir.scores_path(0))
        most = int(np.histogram(scores.mean[1::3], bins=50, range=(0, 1))[0].max())
        assert abs(int(part(tab, "label-most").text_content()) - most) <= 1  # scores are rounded
        part(tab, "column").select_option("aum")
        tab.wait_for_selector("#explorer [data-part=curve][d='']", state="attached")
        assert not part(tab, "beta").text_content()


def test_the_curve_is_the_beta_density(tmp_path: Path) -> None:
    with opened(make_run(tmp_path / "run", n=N, seeds=(0,))) as tab:
        at_ratio(tab, 0.6)
        about = next(about for about in header(tab.content())["ratios"] if about["ratio"] == 0.6)
        drawn = part(tab, "curve").get_attribute("d")
        x, y = np.array([point.split() for point in drawn[1:].split("L")], float).T
        mean = (np.arange(200) + 0.5) / 200
        log = (about["a"] - 1) * np.log(mean) + (about["b"] - 1) * np.log1p(-mean)
        expected = np.exp(log - log.max())
        height = y.max() - y.min()
        np.testing.assert_allclose((y[0] - y) / height, (expected - expected[0]), atol=0.15 / height + 1e-9)
        assert (np.diff(x) > 0).all()


def test_a_point_shows_whose_it_is(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,), class_names=["ant", "bee", "cat"])
    name_samples(run_dir, [f"{HOSTILE}{TURNED} {i}.png"[-90:] for i in range(N)])
    with opened(run_dir) as tab:
        canvas = part(tab, "canvas")
        canvas.scroll_into_view_if_needed()
        box, tip = canvas.bounding_box(), part(tab, "tip")
        assert not tip.is_visible()
        seen = set()
        for across in np.linspace(0.1, 0.9, 30):
            tab.mouse.move(box["x"] + across * box["width"], box["y"] + 0.5 * box["height"])
            if not tip.is_visible():
                continue
            found = re.search(
                r"(\d+)\.png(ant|bee|cat)(?: · looks wrong)? · (kept|removed)id (\d+)mean ([\d.]+), dual",
                tip.text_content(),
            )
            assert found is not None, tip.text_content()
            assert found[1] == found[4]
            assert found[2] == ["ant", "bee", "cat"][int(found[1]) % 3]
            scores = Scores.load(run_dir.scores_path(0))
            assert float(found[5]) == pytest.approx(scores.mean[int(found[1])], abs=2e-3)
            assert (int(found[1]) in kept_at(tab.content(), 0.5)) == (found[3] == "kept")
            seen.add(int(found[1]))
            assert tip.locator("img, .tile").count() <= 1
        assert len(seen) > 5
        assert tip.locator("script").count() == 0
        canvas.focus()
        for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
            canvas.press(key)
        assert re.search(
            r"\d+\.png, (ant|bee|cat), (looks wrong, )?(kept|removed), mean", part(tab, "spoken").text_content()
        )
        assert tip.is_visible()
        canvas.press("Escape")
        assert not tip.is_visible()
        assert tab.evaluate("window.broken") is None
        assert not re.search("[\u202e\u2066]", tab.inner_text("body") + part(tab, "spoken").text_content())


def test_images_are_shown_for_points_that_have_one(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", n=N, seeds=(0,))
    with opened(run_dir) as tab:
        # Each of these is in a gallery or a tile, and is found again at its place on the map.
        text = tab.content()
        tiled = set(ids_of(text)[unpacked(text)["tiled"]].tolist())
        in_gallery = set(map(int, re.findall(r'data-image="(\d+)"', text)))
        canvas, tip = part(tab, "canvas"), part(tab, "tip")
        canvas.focus()
        kinds = set()
        for step in range(40):
            canvas.press("ArrowRight" if step % 8 < 6 else "ArrowUp")
            id_ = int(re.search(r"id (\d+)", tip.text_content())[1])
            shown = "img" if tip.locator("img").count() else "tile" if tip.locator(".tile").count() else ""
            assert shown == ("img" if id_ in in_gallery else "tile" if id_ in tiled else "")
            kinds.add(shown)
        assert kinds >= {"img", "tile"}


def test_a_page_that_is_not_laid_out_is_drawn_when_it_is(tmp_path: Path) -> None:
    with opened(make_run(tmp_path / "run", n=N, seeds=(0,))) as tab:
        before = pixels(tab)
        for hidden in ("true", "false"):
            part(tab, "body").evaluate(f"body => {{ body.hidden = {hidden} }}")
            tab.wait_for_timeout(200)
        assert pixels(tab) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_width(tmp_path: Path, width: int, scheme: str) -> None:
    long = "a" * 200
    with opened(make_run(tmp_path / "run", n=N, seeds=(0,), class_names=[long, "b", "c"]), width, scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        box = part(tab, "canvas").bounding_box()
        tab.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.5 * box["height"])
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.set_viewport_size({"width": 1670 - width, "height": 900})
        tab.wait_for_timeout(100)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1670 - width
