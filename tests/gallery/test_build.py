"""A gallery's folder: what is in it, where it may lie, and that it leaves the output alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gallery_data import Corpus, arguments, read_gallery, read_numbers

from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.gallery.build import gallery
from proxyclip.gallery.options import GalleryOptions
from proxyclip.images.listing import list_images
from proxyclip.storage.store import Storage

NAMES = ["sky", "tree", "horse", "lynx"]
URIS = [f"folder/{number:03d}.jpg" for number in range(10)]


def files(place):
    storage = Storage(place)
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


def test_masks_and_figures_are_those_of_the_output(corpus):
    output = corpus.label("labels", URIS, NAMES, failed=["bad.jpg"])
    built = gallery(GalleryOptions(output))
    assert (built.shown, built.num_images, built.gone) == (10, 10, 0)
    about, classes, images = read_gallery(f"{output}/gallery")
    assert images["uri"] == URIS
    assert classes["name"] == NAMES
    assert about["outputs"][0]["finished"]
    for number, uri in enumerate(URIS):
        mask = corpus.masks[f"labels/{uri}"]
        numbers, confidence = read_numbers(f"{output}/gallery", number)
        assert (numbers == mask).all()  # all classes occur, and the image is smaller than a thumbnail
        assert (confidence == corpus.confidences[f"labels/{uri}"]).all()
        for index, share, _ in images["classes"][number]:
            assert share == pytest.approx((mask == index).mean(), abs=1e-5)
    (failures,) = arguments(Storage(output).read("gallery/data/failures.js"))
    assert failures["count"] == 1
    assert failures["rows"][0][:3] == ["bad.jpg", "decode", "decode_failed"]


def test_margins_are_kept_where_they_are_known(corpus):
    output, other = (corpus.label(name, URIS, NAMES) for name in ("labels", "other"))
    known = {uri: 255 - corpus.confidences[f"labels/{uri}"] for uri in URIS[:4]}
    gallery(GalleryOptions(output, compare=other, margin=True), known.get)
    for number, uri in enumerate(URIS):
        numbers = read_numbers(f"{output}/gallery", number)
        assert len(numbers) == (5 if uri in known else 4)
        assert uri not in known or (numbers[4] == known[uri]).all()


def test_masks_of_large_images_are_sampled(corpus):
    output = corpus.label("labels", URIS[:1], NAMES)
    gallery(GalleryOptions(output, size=84))
    (numbers, _) = read_numbers(f"{output}/gallery", 0)
    assert numbers.shape == (60, 84)
    assert (numbers == corpus.masks[f"labels/{URIS[0]}"][1::2, 1::2]).all()


def test_more_classes_than_a_byte_holds(corpus):
    names = [f"class {number}" for number in range(1000)]
    output = corpus.label("labels", URIS, names)
    gallery(GalleryOptions(output))
    about, classes, _ = read_gallery(f"{output}/gallery")
    assert about["wide"]
    index = np.array([each[0] for each in classes["outputs"][0]] + [65535])
    for number in (0, 3):
        numbers = read_numbers(f"{output}/gallery", number)[0].astype(int)
        read = numbers[..., 0] * 256 + numbers[..., 1]
        mask = corpus.masks[f"labels/{URIS[number]}"]
        assert (index[np.minimum(read, len(index) - 1)] == mask).all()


def test_two_outputs_are_compared_by_the_names_of_classes(corpus):
    one = corpus.label("one", URIS, NAMES)
    two = corpus.label("two", URIS[2:], ["Horse", "sky", "fern"], seed=1)
    built = gallery(GalleryOptions(one, compare=two))
    assert built.compared == 8
    _, classes, images = read_gallery(f"{one}/gallery")
    assert classes["name"] == [*NAMES, "fern"]
    assert len(set(classes["colour"])) == 5
    assert [each and each[0] for each in classes["outputs"][1]] == [1, None, 0, None, 2]
    assert images["changed"][:2] == [None, None]
    numbers = {0: 2, 1: 0, 2: 4, 255: 255}  # of two
    pixels = 0
    for number, uri in enumerate(URIS[2:], 2):
        before = corpus.masks[f"one/{uri}"]
        after = np.vectorize(numbers.get)(corpus.masks[f"two/{uri}"])
        assert images["changed"][number] == pytest.approx((before != after).mean(), abs=1e-5)
        assert (read_numbers(f"{one}/gallery", number)[2] == after).all()
        pixels += int((before != after).sum())
    (changes,) = arguments(Storage(one).read("gallery/data/changes.js"))
    assert changes["changed"] == sum(count for _, _, count in changes["rows"]) == pixels
    assert changes["pixels"] == 8 * 120 * 168


def test_the_same_command_gives_the_same_bytes_and_removes_what_is_left_over(corpus):
    output = corpus.label("labels", URIS, NAMES)
    gallery(GalleryOptions(output, limit=5))
    few = files(f"{output}/gallery")
    gallery(GalleryOptions(output))
    many = files(f"{output}/gallery")
    assert len([key for key in many if key.startswith("thumbnails")]) == 10
    gallery(GalleryOptions(output, limit=5))
    assert files(f"{output}/gallery") == few


def test_the_output_stays_as_it_is_and_upkeep_takes_no_notice(corpus):
    output = corpus.label("labels", URIS, NAMES)
    before = files(output)
    gallery(GalleryOptions(output))
    after = files(output)
    assert {key: data for key, data in after.items() if not key.startswith("gallery/")} == before
    assert verify(Storage(output)).problems == []
    assert clean(Storage(output), 0).orphans == ()
    assert files(output) == after
    # A corpus whose output lies inside it does not get the thumbnails as images.
    inside = corpus.label("images/labels", URIS, NAMES)
    gallery(GalleryOptions(inside))
    assert [image.uri for image in list_images(corpus.images.uri, exclude=inside)] == URIS


def test_images_that_are_gone_show_their_mask(corpus):
    output = corpus.label("labels", URIS, NAMES)
    corpus.images.delete(URIS[4])
    assert gallery(GalleryOptions(output)).gone == 1
    *_, images = read_gallery(f"{output}/gallery")
    assert "no such file" in images["gone"][4]
    assert not Storage(output).exists("gallery/thumbnails/00004.jpg")
    assert read_numbers(f"{output}/gallery", 4)[0].shape == (120, 168)


def test_an_unfinished_output_says_so(corpus):
    output = corpus.label("labels", URIS, NAMES, shards=2)
    assert gallery(GalleryOptions(output)).shown == 8
    about, *_ = read_gallery(f"{output}/gallery")
    assert not about["outputs"][0]["finished"]
    assert about["outputs"][0]["shards"] == [2, 3]


def test_an_output_of_failures_alone_has_a_gallery(corpus):
    output = corpus.label("labels", [], NAMES, failed=["a.jpg", "b.jpg"])
    assert gallery(GalleryOptions(output)).shown == 0
    (failures,) = arguments(Storage(output).read("gallery/data/failures.js"))
    assert failures["statuses"] == [["decode_failed", 2]]


def test_what_has_no_masks_is_refused(corpus, tmp_path):
    output = corpus.label("labels", URIS, NAMES, shards=0)
    with pytest.raises(ValueError, match="has no masks yet"):
        gallery(GalleryOptions(output))
    Storage(output).delete("vocabulary.json")
    with pytest.raises(ValueError, match="only keeps features"):
        gallery(GalleryOptions(output))
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        gallery(GalleryOptions(str(tmp_path / "nowhere")))
    assert not Storage(output).exists("gallery/gallery.json")


def test_destinations_that_hold_something_else_are_refused(corpus):
    output, other = corpus.label("labels", URIS, NAMES), corpus.label("other", URIS, NAMES)
    taken = Storage(f"{corpus.root}/taken")
    taken.write("letter.txt", b"mine")
    gallery(GalleryOptions(other))
    before = files(corpus.root)
    for to, message in [
        (taken.uri, r"holds something else \(letter.txt\)"),
        (f"{other}/gallery", "holds the gallery of .*other"),
        (output, "belongs to the output itself"),
        (f"{output}/masks/x", "belongs to the output itself"),
        (f"{corpus.images.uri}/gallery", "the next run would label the thumbnails"),
    ]:
        with pytest.raises(ValueError, match=message):
            gallery(GalleryOptions(output, to=to))
    with pytest.raises(ValueError, match="is the same output"):
        gallery(GalleryOptions(output, compare=output))
    assert files(corpus.root) == before


def test_scores_of_an_evaluation_get_a_page(corpus):
    output = corpus.label("labels", URIS, NAMES)
    scores = {
        **dict.fromkeys(("miou", "aacc"), 40.5),
        "macc": float("nan"),
        "num_images": 3,
        "classes": [{"name": "sky", "iou": 50, "accuracy": 60, "boundary_iou": None, "pixels": 7}],
        "confusion": [[5, 2]],
        "worst": [{"uri": URIS[7], "miou": 1.5, "accuracy": 2}],
    }
    place = Storage(f"{corpus.root}/scores")
    place.write("evaluation.json", json.dumps(scores).encode())
    for given in (place.uri, f"{place.uri}/evaluation.json"):
        gallery(GalleryOptions(output, evaluation=given, limit=4))
        (found,) = arguments(Storage(output).read("gallery/data/evaluation.js"))
        assert (found["miou"], found["macc"], found["confusion"]) == (40.5, None, [[5, 2]])
        assert URIS[7] in read_gallery(f"{output}/gallery")[2]["uri"]
    place.write("evaluation.json", json.dumps({**scores, "confusion": [[1]]}).encode())
    with pytest.raises(ValueError, match="confusion is not 1 rows of 2 counts"):
        gallery(GalleryOptions(output, evaluation=place.uri))
    with pytest.raises(FileNotFoundError, match="give what `proxyclip evaluate` wrote"):
        gallery(GalleryOptions(output, evaluation=f"{corpus.root}/nothing"))


def test_output_and_gallery_may_lie_in_a_bucket(s3, corpus):
    remote = Corpus(s3.uri("gallery/corpus"))
    output = remote.label("labels", URIS[:6], NAMES)
    built = gallery(GalleryOptions(output))
    assert built.index == f"{output}/gallery/index.html"
    here = f"{corpus.root}/here"
    gallery(GalleryOptions(output, to=here))
    assert files(here) == files(f"{output}/gallery")


@pytest.mark.parametrize(("wrong", "message"), [({"limit": 0}, "at least 1 image"), ({"size": 7}, "32 to 4096")])
def test_options_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GalleryOptions("out", **wrong)
