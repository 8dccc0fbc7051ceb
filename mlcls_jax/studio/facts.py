"""What is known of the images besides their labels: sizes, and the faults that the check finds."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mlcls_jax.data.checks import check
from mlcls_jax.data.findings import KINDS
from mlcls_jax.data.images import FORMATS
from mlcls_jax.studio.dataset import Dataset
from mlcls_jax.studio.jobs import THREADS, Job


@dataclass
class Facts:
    """Columns that jobs fill."""

    dataset: Dataset
    pixels: np.ndarray  # int32 [N, 2]: width and height; 0: not known, or not readable
    # By row: kind of finding and message, of the first 1,000 of every kind.
    faults: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    twins: dict[int, set[int]] = field(default_factory=dict)  # rows with pictures that look alike

    @classmethod
    def of(cls, dataset: Dataset) -> "Facts":
        """Return a table in which nothing is known yet."""
        return cls(dataset, np.zeros((len(dataset), 2), np.int32))

    def read_sizes(self, job: Job) -> None:
        """Read the headers of all images."""
        job.total = len(self.dataset)
        for row in range(job.total):
            if job.is_stopped:
                return
            try:
                with Image.open(self.dataset.path(row), formats=FORMATS) as header:
                    self.pixels[row] = header.size
            except Exception:  # noqa: BLE001 (of Pillow's many; the check tells them)
                self.pixels[row] = 0
            job.done = row + 1

    def check(self, job: Job) -> None:
        """Look at the pixels of all images, as `mlcls check` does, and note what is wrong."""
        data = self.dataset
        report = check(data.root, data.config, pixels=True, threads=THREADS)
        faults, twins = defaultdict[int, list[tuple[str, str]]](list), defaultdict[int, set](set)
        for finding in (finding for group in report.groups for finding in group.findings):
            rows = data.rows_of.get(finding.image or "", ())
            others = data.rows_of.get(finding.twin or "", ())
            for row in rows:
                faults[row].append((finding.kind, finding.message))
                for other in others:
                    twins[row].add(other)
                    twins[other].add(row)
                    faults[other].append((finding.kind, finding.message))
        job.done = job.total = len(data)
        self.faults, self.twins = dict(faults), dict(twins)

    def kinds(self) -> list[tuple[str, str, int]]:
        """Return name, title and number of images of every kind of fault that was found."""
        counts = defaultdict[str, int](int)
        for found in list(self.faults.values()):
            for kind in {kind for kind, _ in found}:
                counts[kind] += 1
        return [(name, KINDS[name].title, counts[name]) for name in KINDS if name in counts]
