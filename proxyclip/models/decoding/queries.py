"""The queries of a vocabulary, in an order that makes the maximum over the queries of each class fast."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Classes with more queries than this take their maximum one by one, the others together.
_FEW = 4


@dataclass(frozen=True, eq=False)
class Queries:
    """The queries of a vocabulary on a device, prepared once for all images.

    embeddings: (Q, E), unit rows if they are text embeddings. columns: the same rows in the order of
    `Classes.columns`. twins: pairs of a column and the first column that equals it. bias: (Q,), added to the cosines,
    and column_bias in the order of the columns; None: 0.
    """

    embeddings: Tensor
    columns: Tensor
    twins: list[tuple[int, int]]
    classes: Classes
    bias: Tensor | None = None
    column_bias: Tensor | None = None

    @classmethod
    def of(cls, embeddings: Tensor, query_class: Tensor, bias: Tensor | None = None) -> Queries:
        """embeddings: (Q, E). query_class: (Q,) class of each query, ascending from 0. bias: (Q,)."""
        classes = Classes(query_class)
        columns = embeddings[classes.columns]
        column_bias = None if bias is None else bias[classes.columns]
        all_of = columns if column_bias is None else torch.cat([columns, column_bias[:, None]], dim=1)
        row_of: list[int] = all_of.unique(dim=0, return_inverse=True)[1].tolist()  # equal columns have the same row
        first: dict[int, int] = {}
        twins = [(column, first[row]) for column, row in enumerate(row_of) if first.setdefault(row, column) != column]
        classes.ties = any(classes.column_class[one] != classes.column_class[other] for one, other in twins)
        return cls(embeddings, columns, twins, classes, bias, column_bias)

    def of_classes(self, chosen: Sequence[int]) -> Queries:
        """The queries of some classes, which are numbered anew in the order of `chosen`, ascending."""
        firsts = [0, *itertools.accumulate(self.classes.counts)]
        rows = [row for index in chosen for row in range(firsts[index], firsts[index + 1])]
        counts = torch.tensor([self.classes.counts[index] for index in chosen])
        query_class = torch.arange(len(chosen)).repeat_interleave(counts).to(self.embeddings.device)
        return Queries.of(self.embeddings[rows], query_class, None if self.bias is None else self.bias[rows])

    def projected(self, basis: Tensor) -> Queries:
        """The same queries for coefficients of a basis (R, E) instead of features."""
        return replace(self, embeddings=self.embeddings @ basis.T, columns=self.columns @ basis.T)


class Classes:
    """The classes of the queries, and an order of both in which the queries of a maximum are slices.

    order: classes with more than `_FEW` queries first, then those with fewer, by falling number of queries.
    columns: the first query of each class in that order; then the second query of each class with two to `_FEW`
    queries, then the third, and so on; then the other queries of the classes with many, class by class.
    ties: whether two classes share a query.
    """

    def __init__(self, query_class: Tensor) -> None:
        self.counts: list[int] = torch.bincount(query_class).tolist()
        self.count = len(self.counts)
        self.ties = False
        firsts = [0, *itertools.accumulate(self.counts)]
        order = sorted(range(self.count), key=lambda index: -self.counts[index])  # stable
        num_many = sum(count > _FEW for count in self.counts)
        columns = [firsts[index] for index in order]
        self._further: list[tuple[slice, slice]] = []  # of classes in `order`, and of their next queries in `columns`
        for rank in range(1, _FEW):
            more = [index for index in order[num_many:] if self.counts[index] > rank]
            self._further.append((slice(num_many, num_many + len(more)), slice(len(columns), len(columns) + len(more))))
            columns += [firsts[index] + rank for index in more]
        self._many: list[slice] = []
        for index in order[:num_many]:
            self._many.append(slice(len(columns), len(columns) + self.counts[index] - 1))
            columns += range(firsts[index] + 1, firsts[index + 1])
        self.columns = torch.tensor(columns, device=query_class.device)
        self.column_class: list[int] = query_class[self.columns].tolist()
        self.ordered = order == sorted(order)
        self.order = torch.tensor(order, dtype=torch.int32, device=query_class.device)

    def maximum(self, logits: Tensor) -> Tensor:
        """The maximum over each class's queries: (..., Q) ordered as `columns` to (..., K) ordered as `order`."""
        if self.count == logits.shape[-1]:
            return logits
        by_class = logits[..., : self.count].clone()
        for classes, queries in self._further:
            by_class[..., classes] = torch.maximum(by_class[..., classes], logits[..., queries])
        for index, queries in enumerate(self._many):
            by_class[..., index] = torch.maximum(by_class[..., index], logits[..., queries].amax(dim=-1))
        return by_class

    def winner(self, by_class: Tensor, best: Tensor, index: Tensor) -> Tensor:
        """The class of a maximum; of several equal ones, the first class.

        by_class: (..., K) from `maximum`. best, index: (..., 1), its maximum and that maximum's index.
        """
        if self.ordered:
            return index
        if self.ties:
            return torch.where(by_class == best, self.order, self.count).amin(dim=-1, keepdim=True)
        return self.order[index]

    def chunks(self, wanted: int) -> Iterator[tuple[slice, slice]]:
        """Split the queries into runs of whole classes, about `wanted` queries each: slices of queries and classes."""
        start = first = stop = 0
        for index, count in enumerate(self.counts):
            if stop > start and stop + count - start > wanted:
                yield slice(start, stop), slice(first, index)
                start, first = stop, index
            stop += count
        yield slice(start, stop), slice(first, self.count)
