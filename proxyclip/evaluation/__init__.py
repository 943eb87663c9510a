"""How good is it? Masks against labels: mIoU and accuracies."""
