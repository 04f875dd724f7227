"""Forward passes of many cells in full batches: nothing lost, nothing repeated, an error ends its own cell alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import Capturing, Pixelwise, draw
from torch.utils._python_dispatch import TorchDispatchMode

import xai_assert as xa
from xai_assert import table
from xai_assert.metrics import FaithfulnessCell, FidelityCell
from xai_assert.packing import Job, Packer


def values(images, output):
    return output.flatten().tolist()


def measurement(numbers, rounds=1):
    """Ten times each number, in so many rounds of jobs; each job has two pictures."""
    found = []
    for _ in range(rounds):
        found += yield [Job(lambda n=n: torch.tensor([[float(n)], [-float(n)]]), values) for n in numbers]
    return found


class Forward:
    def __init__(self, broken=()):
        self.sizes, self.broken = [], broken

    def __call__(self, images):
        if any(n in images for n in self.broken):
            raise ValueError("broken")
        self.sizes.append(len(images))
        return 10 * images


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=6),
    st.integers(1, 7),
)
@settings(max_examples=100, deadline=None)
def test_every_job_is_run_once_and_its_reader_gets_its_own_pictures(plan, size):
    forward, found = Forward(), {}
    packer = Packer(forward, size)
    for key, (jobs, rounds) in enumerate(plan):
        numbers = [100 * key + i for i in range(jobs)]
        packer.add(measurement(numbers, rounds), lambda what, key=key: found.update({key: what}), pytest.fail)
    packer.finish()
    for key, (jobs, rounds) in enumerate(plan):
        assert found[key] == [[10.0 * (100 * key + i), -10.0 * (100 * key + i)] for i in range(jobs)] * rounds
    assert sum(forward.sizes) == 2 * sum(jobs * rounds for jobs, rounds in plan)
    assert max(forward.sizes, default=0) <= 2 * size


def test_passes_are_full_but_the_last():
    forward = Forward()
    packer = Packer(forward, 4)
    for numbers in (range(3), range(3), range(5)):
        packer.add(measurement(numbers), lambda found: None, pytest.fail)
    packer.finish()
    assert forward.sizes == [8, 8, 6]


def test_pictures_are_made_when_their_pass_is_due():
    alive = []

    def steps():
        yield [
            Job(lambda i=i: alive.append(i) or torch.ones(1, 1), lambda images, output: len(alive)) for i in range(6)
        ]

    seen = []
    packer = Packer(lambda images: seen.append(len(alive)) or images, 2)
    packer.add(steps(), lambda found: None, pytest.fail)
    packer.finish()
    assert seen == [2, 4, 6]


def test_an_error_ends_its_own_measurement_alone():
    found, failed = {}, {}
    packer = Packer(Forward(broken=[11.0]), 4)
    for key, numbers in enumerate(([1, 2, 3], [10, 11, 12], [20, 21])):
        packer.add(
            measurement(numbers),
            lambda what, key=key: found.update({key: what}),
            lambda e, k=key: failed.update({k: e}),
        )
    packer.finish()
    assert sorted(found) == [0, 2]
    assert [str(error) for error in failed.values()] == ["broken"]
    assert list(failed) == [1]


def test_an_error_between_its_jobs_too():
    def steps():
        yield [Job(lambda: torch.ones(1, 1), values)]
        raise KeyError("mine")

    failed = []
    packer = Packer(Forward(), 1)
    packer.add(steps(), pytest.fail, failed.append)
    assert isinstance(failed[0], KeyError)


def test_out_of_memory_is_raised():
    def forward(images):
        raise torch.OutOfMemoryError("full")

    packer = Packer(forward, 1)
    with pytest.raises(torch.OutOfMemoryError):
        packer.add(measurement([1]), pytest.fail, pytest.fail)


class TestTable:
    """A whole table on two images: 2 + 2 + 8 jobs beside the clean pass."""

    def table(self, batch_size):
        model = Capturing(Pixelwise(draw(3, 8, 8)))
        ev = xa.Evaluation(model, draw(2, 3, 8, 8, seed=1), task="depth", batch_size=batch_size)
        noise, shuffle = xa.perturbation("gaussian_noise"), xa.perturbation("shuffle")
        cells = [FidelityCell(noise), FidelityCell(shuffle), FaithfulnessCell(noise, 8)]
        ev.plan("edges", cells)
        scores = [
            ev.attribution_fidelity("edges"),
            ev.attribution_fidelity("edges", perturbation="shuffle"),
            ev.faithfulness_estimate("edges", groups=8),
        ]
        return [len(images) for images in model.seen], [score.values for score in scores]

    def test_all_its_passes_are_packed(self):
        assert self.table(12)[0] == [2, 12, 12]
        assert self.table(2)[0] == [2] * 13

    def test_packing_changes_no_score(self):
        for packed, alone in zip(self.table(12)[1], self.table(2)[1], strict=True):
            assert torch.allclose(packed, alone, atol=1e-6)  # of [-1, 1]; sums of float32 in another order


class Waits(TorchDispatchMode):
    """Counts how often a tensor's value is asked for: there a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        asks = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        self.count += function in asks
        return function(*args, **(kwargs or {}))


def test_a_batch_waits_for_its_device_no_more_often_with_more_cells(monkeypatch):
    def waits(names):
        """Until what the cells found comes to the CPU, all at once."""
        mode, counts = Waits(), []
        original = table._on_cpu
        monkeypatch.setattr(table, "_on_cpu", lambda found: counts.append(mode.count) or original(found))
        model = Pixelwise(draw(3, 8, 8))
        ev = xa.Evaluation(model, draw(2, 3, 8, 8, seed=1), task="depth", mean=[0.5] * 3, std=[0.5] * 3, batch_size=2)
        ev.plan("edges", [FidelityCell(xa.perturbation(name)) for name in names])
        ev.plan("edges", [FaithfulnessCell(xa.perturbation(name), 4) for name in names])
        with mode:
            ev.attribution_fidelity("edges", perturbation=names[0])
        monkeypatch.undo()
        (count,) = counts  # one transfer
        return count

    assert waits(["black"]) == waits(["black", "mean", "gaussian_noise", "shuffle"])
