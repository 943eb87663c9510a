"""The layouts of the ten benchmarks: folders, suffixes, splits, and what label values mean."""

from __future__ import annotations

from dataclasses import dataclass

from proxyclip.evaluation.labels.coding import Coding


@dataclass(frozen=True)
class LabelForm:
    """One way in which a benchmark's labels may lie there.

    folder: below the root. suffix: replaces the image's suffix. made_by: the step that makes the files. correct: what
    the values mean where that differs from `coding`, which is what the published figures count.
    """

    folder: str
    suffix: str
    coding: Coding
    made_by: str
    correct: Coding | None = None


@dataclass(frozen=True)
class Layout:
    """A benchmark in a user's own copy.

    root: the usual folder; all paths are below it. images: folder. split: file with one stem a line; None: all images
    of the folder. split_made_by: where it comes from. num_images: of the published split. forms: the first one that
    is there is read.
    """

    root: str
    images: str
    image_suffix: str
    split: str | None
    split_made_by: str
    num_images: int
    forms: tuple[LabelForm, ...]


# COCO category ids, less one, that COCO-Stuff never uses: street sign, hat, shoe, eye glasses, plate, mirror, window,
# desk, door, blender, hair brush.
_COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_USED = [value for value in range(182) if value not in _COCO_UNUSED]
_COCO_THINGS = 91  # values below are things

# labelId -> trainId of Cityscapes.
_CITYSCAPES = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
_CITYSCAPES_VOID = frozenset({*range(7), 9, 10, 14, 15, 16, 18, 29, 30})

_COCO_HINT = "Values 11, 25 and others of that kind belong to no class: is this the map of COCO-Stuff 164k?"
_SHIFTED = "A file with 255 has been shifted already: give the labels as {} ships them."


def _sixteen_bits(num_classes: int) -> tuple[Coding, Coding]:
    """What is counted for 16-bit labels: as published, and what is right.

    The published figures ignore 255, so the class of that index has no labels, and do not ignore 65535: a prediction
    there is a false alarm.
    """
    all_classes = {index: index for index in range(num_classes)}
    hint = f"Classes are 0 to {num_classes - 1}, and 65535 is void."
    without_255 = {value: index for value, index in all_classes.items() if value != 255}
    published = Coding(without_255, ignored=frozenset({255}), outside=frozenset({65535}), hint=hint)
    return published, Coding(all_classes, ignored=frozenset({65535}), hint=hint)


def _voc(coding: Coding) -> Layout:
    made_by = "download VOC 2012 (VOCtrainval_11-May-2012.tar), which contains it"
    form = LabelForm("SegmentationClass", ".png", coding, made_by)
    return Layout("VOCdevkit/VOC2012", "JPEGImages", ".jpg", "ImageSets/Segmentation/val.txt", made_by, 1449, (form,))


def _context(form: LabelForm) -> Layout:
    split = "ImageSets/SegmentationContext/val.txt"
    made_by = "mmsegmentation's tools/dataset_converters/pascal_context.py makes it"
    return Layout("VOCdevkit/VOC2010", "JPEGImages", ".jpg", split, made_by, 5104, (form,))


def _context_form(coding: Coding) -> LabelForm:
    made_by = (
        "mmsegmentation's tools/dataset_converters/pascal_context.py makes it from trainval_merged.json of the Detail "
        "API"
    )
    return LabelForm("SegmentationClassContext", ".png", coding, made_by)


def _coco(form: LabelForm, raw: Coding) -> Layout:
    folder = "annotations/val2017"
    as_shipped = LabelForm(folder, ".png", raw, "unpack stuffthingmaps_trainval2017.zip of COCO-Stuff there")
    made_by = "unpack val2017.zip of COCO there"
    return Layout("coco_stuff164k", "images/val2017", ".jpg", None, made_by, 5000, (form, as_shipped))


_CONTEXT459, _CONTEXT459_CORRECT = _sixteen_bits(459)
_ADE847, _ADE847_CORRECT = _sixteen_bits(847)

LAYOUTS: dict[str, Layout] = {
    "voc21": _voc(Coding.indices(21, {255})),
    "voc20": _voc(Coding.from_one(20, {255})),
    "context60": _context(_context_form(Coding.indices(60))),
    "context59": _context(_context_form(Coding.from_one(59, hint=_SHIFTED.format("pascal_context.py")))),
    "context459": _context(
        LabelForm(
            "annotations_detectron2/pc459_val",
            ".tif",
            _CONTEXT459,
            "CAT-Seg's datasets/prepare_pascal_context_459.py makes it",
            _CONTEXT459_CORRECT,
        )
    ),
    "cityscapes": Layout(
        "cityscapes",
        "leftImg8bit/val",
        "_leftImg8bit.png",
        None,
        "unpack leftImg8bit_trainvaltest.zip of Cityscapes there",
        500,
        (
            LabelForm(
                "gtFine/val",
                "_gtFine_labelTrainIds.png",
                Coding.indices(19, {255}, hint="Values 19 to 33 are labelIds: name such files X_gtFine_labelIds.png."),
                "cityscapesScripts' csCreateTrainIdLabelImgs makes it",
            ),
            LabelForm(
                "gtFine/val",
                "_gtFine_labelIds.png",
                Coding(_CITYSCAPES, _CITYSCAPES_VOID, hint="labelIds are 0 to 33."),
                "unpack gtFine_trainvaltest.zip of Cityscapes there",
            ),
        ),
    ),
    "ade20k": Layout(
        "ade/ADEChallengeData2016",
        "images/validation",
        ".jpg",
        None,
        "unpack ADEChallengeData2016.zip there",
        2000,
        (
            LabelForm(
                "annotations/validation",
                ".png",
                Coding.from_one(150, hint=_SHIFTED.format("ADEChallengeData2016.zip")),
                "unpack ADEChallengeData2016.zip there",
            ),
        ),
    ),
    "ade847": Layout(
        "ADE20K_2021_17_01",
        "images_detectron2/validation",
        ".jpg",
        "validation.txt",
        "list the names in images_detectron2/validation there, one a line, without .jpg",
        2000,
        (
            LabelForm(
                "annotations_detectron2/validation",
                ".tif",
                _ADE847,
                "CAT-Seg's datasets/prepare_ade20k_full.py makes it",
                _ADE847_CORRECT,
            ),
        ),
    ),
    "coco_stuff": _coco(
        LabelForm(
            "annotations/val2017",
            "_labelTrainIds.png",
            Coding.indices(171, {255}, hint="Values 171 to 181 belong to the map as shipped, which is named X.png."),
            "mmsegmentation's tools/dataset_converters/coco_stuff164k.py makes it",
        ),
        Coding({value: index for index, value in enumerate(_COCO_USED)}, frozenset({255}), hint=_COCO_HINT),
    ),
    "coco_object": _coco(
        LabelForm(
            "annotations/val2017",
            "_instanceTrainIds.png",
            Coding.indices(81),
            "the converter cvt_coco_object.py of the reference implementations makes it",
        ),
        Coding(
            {value: index + 1 if value < _COCO_THINGS else 0 for index, value in enumerate(_COCO_USED)} | {255: 0},
            hint=_COCO_HINT,
        ),
    ),
}
