"""Boundary IoU (Cheng et al., CVPR 2021) is the IoU of the pixels near contours. Which pixels are that?"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

# The paper's distance, as a share of the image's diagonal.
SHARE_OF_DIAGONAL = 0.02


def boundary_distance(height: int, width: int) -> int:
    """How near to a contour counts, in pixels: 2 % of the diagonal, at least 1."""
    return max(1, round(SHARE_OF_DIAGONAL * math.hypot(height, width)))


def near_contour(classes: npt.NDArray[np.unsignedinteger], distance: int) -> npt.NDArray[np.bool_]:
    """Which pixels are within `distance` of the contour of their own class's mask.

    classes: (H, W) uint8 or uint16, 1 and above for each class; 0 for pixels without one, which are near no contour
    and make none; not the type's largest value. Distances are Chebyshev: a diagonal step is 1 pixel. The edge of the
    image is a contour too, as in the paper's code.

    A pixel is away from contours if the square around it holds its class only. So one minimum and one maximum over
    squares do for all classes at once.
    """
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    most = cv2.dilate(classes, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    none = classes == 0
    filled = np.where(none, classes.dtype.type(np.iinfo(classes.dtype).max), classes)
    least = cv2.erode(filled, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (least != most) & ~none
