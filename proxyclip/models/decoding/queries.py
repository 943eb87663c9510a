"""The queries of a vocabulary, in an order in which the maxima of its classes are taken quickly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Queries that a class may have to be counted with the others of its kind.
_FEW = 4


@dataclass(frozen=True, eq=False)
class Queries:
    """The queries of a vocabulary on a device, with all that is found out about them once.

    embeddings: (Q, E) unit rows. columns: the same in the order of `Classes.columns`. twins: columns that equal an
    earlier one, with that one.
    """

    embeddings: Tensor
    columns: Tensor
    twins: list[tuple[int, int]]
    classes: Classes

    @classmethod
    def of(cls, embeddings: Tensor, query_class: Tensor) -> Queries:
        """embeddings: (Q, E) unit rows. query_class: (Q,) class of each query, ascending from 0."""
        columns = embeddings[(classes := Classes(query_class)).columns]
        first: dict[int, int] = {}
        inverse = columns.unique(dim=0, return_inverse=True)[1].tolist()
        twins = [(index, first[row]) for index, row in enumerate(inverse) if first.setdefault(row, index) != index]
        classes.ties = any(classes.column_class[one] != classes.column_class[other] for one, other in twins)
        return cls(embeddings, columns, twins, classes)


class Classes:
    """Which queries belong to which class, and an order of both in which maxima are taken over slices.

    Classes with more than `_FEW` queries come first, then by falling number of queries. columns: the first query of
    each class, the second of each that has one, and so on; then the rest of those with many, class by class.
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
        self._further: list[tuple[slice, slice]] = []  # classes in order, and the columns of their next queries
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
        """Maximum over the queries of each class: (..., Q) in the order of `columns` to (..., K) in that of `order`."""
        if self.count == logits.shape[-1]:
            return logits
        by_class = logits[..., : self.count].clone()
        for classes, queries in self._further:
            by_class[..., classes] = torch.maximum(by_class[..., classes], logits[..., queries])
        for index, queries in enumerate(self._many):
            by_class[..., index] = torch.maximum(by_class[..., index], logits[..., queries].amax(dim=-1))
        return by_class

    def winner(self, by_class: Tensor, best: Tensor, index: Tensor) -> Tensor:
        """The class behind the index of a maximum; of several with the same, the first. All (..., 1) but by_class."""
        if self.ordered:
            return index
        if self.ties:
            return torch.where(by_class == best, self.order, self.count).amin(dim=-1, keepdim=True)
        return self.order[index]

    def chunks(self, wanted: int) -> Iterator[tuple[slice, slice]]:
        """Runs of whole classes, near `wanted` queries each: their queries, and themselves."""
        start = first = stop = 0
        for index, count in enumerate(self.counts):
            if stop > start and stop + count - start > wanted:
                yield slice(start, stop), slice(first, index)
                start, first = stop, index
            stop += count
        yield slice(start, stop), slice(first, self.count)
