"""How large a batch is: it grows while that pays, and halves when memory runs out, losing and repeating nothing."""

import pytest
import torch
from known_models import draw
from torch import nn

import xai_assert as xa
from xai_assert import batching
from xai_assert.batching import BatchSizer, ImageSource, run_batches

CPU = torch.device("cpu")


class Clock:
    """A clock that the work moves: images per second are what a test says."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(batching.time, "perf_counter", lambda: self.now)


class TestAutoSize:
    def sizes(self, clock, rate, count):
        """The sizes of all batches, where a batch of n images runs at rate(n) images per second."""
        seen = []

        def work(batch):
            seen.append(len(batch))
            clock.now += len(batch) / rate(len(batch))

        source = ImageSource(torch.zeros(count, 1, 1, 1))
        list(run_batches(source, BatchSizer("auto", CPU), work))
        assert sum(seen) == count
        return seen

    def test_it_doubles_while_the_rate_grows_and_stops_at_32(self, monkeypatch):
        assert self.sizes(Clock(monkeypatch), lambda n: n, 160) == [4, 8, 16, 32, 32, 32, 32, 4]

    @pytest.mark.parametrize(("growth", "expected"), [(1.12, [4, 8, 16, 12]), (1.08, [4, 8, 8, 8, 8, 4])])
    def test_ten_percent_is_the_bar(self, monkeypatch, growth, expected):
        rates = {4: 1.0, 8: growth, 16: growth**2, 12: 1.0}
        assert self.sizes(Clock(monkeypatch), rates.__getitem__, 40) == expected

    def test_a_last_batch_that_is_not_full_teaches_nothing(self, monkeypatch):
        clock, sizer = Clock(monkeypatch), BatchSizer("auto", CPU)
        with sizer.measured(3):
            clock.now += 1e-9
        assert sizer.size == 4

    @pytest.mark.parametrize("size", [1, 3, 64])
    def test_a_number_stays_that_number(self, size):
        seen = []
        list(run_batches(ImageSource(torch.zeros(130, 1, 1, 1)), BatchSizer(size, CPU), lambda b: seen.append(len(b))))
        assert set(seen[:-1]) == {size}
        assert sum(seen) == 130

    @pytest.mark.parametrize("size", [0, -1, 2.0, "4", "big", None, True])
    def test_bad_sizes(self, size):
        with pytest.raises(ValueError, match="batch_size must be 'auto' or a whole number of at least 1, not"):
            BatchSizer(size, CPU)


class TestOutOfMemory:
    """A device that holds `room` images at most."""

    @staticmethod
    def worker(room, failed):
        def work(batch):
            if len(batch) > room:
                failed.append(len(batch))
                raise torch.OutOfMemoryError(f"{len(batch)} images")
            return batch.ids

        return work

    @pytest.mark.parametrize("room", [1, 2, 3, 5, 20])
    def test_nothing_is_lost_or_repeated(self, room):
        failed = []
        source = ImageSource(torch.zeros(37, 1, 1, 1))
        found = list(run_batches(source, BatchSizer("auto", CPU), self.worker(room, failed)))
        assert [i for ids in found for i in ids] == list(range(37))
        assert max(map(len, found)) <= room
        assert failed or room >= 4  # it starts at 4; whether it then grows into the wall depends on the clock

    def test_it_halves_and_stops_growing(self):
        sizer, failed = BatchSizer("auto", CPU), []
        sizer._size = 32
        found = list(run_batches(ImageSource(torch.zeros(40, 1, 1, 1)), sizer, self.worker(10, failed)))
        assert failed == [32, 16]
        assert list(map(len, found)) == [8, 8, 8, 8, 8]

    def test_one_image_that_does_not_fit_raises(self):
        with pytest.raises(torch.OutOfMemoryError, match="1 images"):
            list(run_batches(ImageSource(torch.zeros(3, 1, 1, 1)), BatchSizer("auto", CPU), self.worker(0, [])))

    def test_a_fixed_size_raises_at_once(self):
        failed = []
        with pytest.raises(torch.OutOfMemoryError, match="8 images"):
            list(run_batches(ImageSource(torch.zeros(20, 1, 1, 1)), BatchSizer(8, CPU), self.worker(4, failed)))
        assert failed == [8]

    def test_other_errors_pass(self):
        def work(batch):
            raise RuntimeError("not memory")

        with pytest.raises(RuntimeError, match="not memory"):
            list(run_batches(ImageSource(torch.zeros(3, 1, 1, 1)), BatchSizer("auto", CPU), work))

    def test_attributions_come_out_whole(self):
        class Small(nn.Module):
            """As `torch.OutOfMemoryError` from the middle of a model."""

            def forward(self, images):
                if len(images) > 2:
                    raise torch.OutOfMemoryError
                return images.square().mean(1, keepdim=True)

        images = draw(7, 3, 4, 4)
        found = xa.attribute(Small(), images, "saliency", task="depth")
        # the gradient of mean_i mean_c x^2, three roundings in float32
        torch.testing.assert_close(found, 2 * images / 48, rtol=1e-6, atol=0)
