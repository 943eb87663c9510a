"""How good is it? Figures of masks against labels."""

from proxyclip.evaluation.confusion import ConfusionMatrix, confusion_matrix, reduce_zero_label

__all__ = ["ConfusionMatrix", "confusion_matrix", "reduce_zero_label"]
