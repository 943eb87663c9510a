"""The losses of CLIP-RC against values of its public implementation (facts, section 11)."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from reference import SHARED, load_module

from proxyclip.models.cliprc.encoder import Tokens
from proxyclip.models.cliprc.head import Head
from proxyclip.training.cliprc.losses import IGNORE, Losses, Weights, losses_of, pseudo_labelled, seen_only

GOLDEN = SHARED / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden weights are not here")

# K, focal, dice, recovered queries, recovered patches, pixels of each label.
VALUES = {
    "inductive": (3, 0.34315, 0.60944, 0.26970, 0.21922, {0: 8192, 2: 1600, 3: 8192, IGNORE: 14784}),
    "transductive": (4, 0.37806, 0.64614, 0.26808, 0.21907, {0: 8192, 2: 1600, 3: 8192, 5: 2588, IGNORE: 12196}),
    "fully": (5, 0.30369, 0.71358, 0.26808, 0.21907, {0: 8192, 2: 1600, 3: 8192, 4: 2048, 5: 540, IGNORE: 12196}),
}


def labels_of_the_facts() -> torch.Tensor:
    labels = torch.full((2, 128, 128), IGNORE)
    labels[0, :64] = 0
    labels[0, 64:96, :50] = 2
    labels[0, 96:, 64:] = 4
    labels[0, 110:, :30] = 5
    labels[1, :, :64] = 3
    return labels


def golden_head(weights) -> Head:
    """The tiny head with the weights of the golden cases, dropout off."""
    head = Head(32, recovery=True).eval()
    name = next(path for path in sorted((GOLDEN / "cases").glob("cliprc_*.json")))
    meta = json.loads(name.read_text())
    filled = weights.fill(head.state_dict(), meta["seeds"]["head"], meta["qkv_gain"]["head"])
    head.load_state_dict({key: value * 0.25 if ".norm3." in key else value for key, value in filled.items()})
    return head


def golden_tokens(unit) -> Tokens:
    def both(count, seeds):
        return torch.stack([torch.from_numpy(unit(count, 32, seed)) for seed in seeds])

    patches, cls, regions = both(64, (1, 4)), both(1, (2, 5)), both(16, (3, 6))
    as_map = patches.transpose(1, 2).unflatten(2, (8, 8)), regions.transpose(1, 2).unflatten(2, (4, 4))
    return Tokens(cls[:, 0], *as_map)


@needs_golden
@pytest.mark.parametrize("mode", VALUES)
def test_losses_are_those_of_the_public_implementation(mode):
    weights = load_module(GOLDEN / "weights.py")
    head, tokens = golden_head(weights), golden_tokens(weights.unit_features)
    text, labels = torch.from_numpy(weights.unit_features(6, 32, 55)), labels_of_the_facts()
    with torch.no_grad():
        found = head(tokens, text[:4] if mode == "inductive" else text)
        logits = F.interpolate(found.logits, size=(128, 128), mode="bilinear", align_corners=False)
        if mode == "inductive":
            labels = seen_only(labels, (0, 1, 2, 3))
        elif mode == "transductive":
            labels = pseudo_labelled(labels, logits, (4, 5))
        losses = losses_of(logits, labels, found, head.recovery_decoder(found), tokens.patches)
    pairs, focal, dice, queries, patches, counts = VALUES[mode]
    assert int(losses.pairs) == pairs
    measured = (losses.focal / pairs, losses.dice / pairs, losses.recovered_queries, losses.recovered_patches)
    assert [round(float(value), 5) for value in measured] == pytest.approx([focal, dice, queries, patches], abs=1.1e-5)
    values, pixels = labels.unique(return_counts=True)
    assert dict(zip(values.tolist(), pixels.tolist(), strict=True)) == counts
    expected = 100 * focal + dice + 2 * (queries + patches)
    assert float(losses.total(Weights(), losses.pairs)) == pytest.approx(expected, abs=2e-3)


def made_losses(labels: torch.Tensor, logits: torch.Tensor, **changes) -> Losses:
    head = Head(8, recovery=True).eval()
    tokens = Tokens(torch.ones(len(labels), 8), torch.ones(len(labels), 8, 2, 2), torch.ones(len(labels), 8, 2, 2))
    found = head(tokens, torch.eye(8)[: logits.shape[1]])
    return losses_of(logits, labels, found, head.recovery_decoder(found), tokens.patches, **changes)


def test_ignored_pixels_are_negatives_unless_told_otherwise():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4)
    labels = torch.full((1, 4, 4), IGNORE)
    labels[:, :2] = 1
    changed = logits.clone()
    changed[..., 3, :] += 5  # where there is no label
    for name in ("focal", "dice"):
        assert getattr(made_losses(labels, logits), name) < getattr(made_losses(labels, changed), name)
        same = [getattr(made_losses(labels, x, ignored_are_negatives=False), name) for x in (logits, changed)]
        torch.testing.assert_close(*same)
    half = made_losses(labels[:, :2], logits[:, :, :2])
    torch.testing.assert_close(made_losses(labels, logits, ignored_are_negatives=False).focal, half.focal)


def test_a_batch_without_a_label_has_finite_losses():
    losses = made_losses(torch.full((2, 4, 4), IGNORE), torch.zeros(2, 3, 4, 4), ignored_are_negatives=False)
    assert (float(losses.pairs), float(losses.focal), float(losses.dice)) == (0, 0, 0)
    assert losses.total(Weights(), losses.pairs).isfinite()


def test_seen_classes_may_stand_in_any_order():
    labels = torch.tensor([[[0, 1, 2, 3, 4, IGNORE]]])
    assert seen_only(labels, (3, 1)).tolist() == [[[IGNORE, 1, IGNORE, 0, IGNORE, IGNORE]]]
