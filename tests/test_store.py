"""The store: nothing is computed again, nothing wrong is served, and nothing that happens to its files ends a run."""

import functools
import multiprocessing
import os
import random
import time
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from known_models import Counting, Squares, curved, draw

import xai_assert as xa
from xai_assert import map_keys
from xai_assert.batching import Passes
from xai_assert.map_keys import Unnamed, digest, method_words, named
from xai_assert.store import (
    ENTRY,
    STALE,
    Entry,
    Store,
    StoredMapError,
    StoreWarning,
    entry_bytes,
    read_entry,
)
from xai_assert.tasks import depth_in_box, depth_mean, log_depth

N, SIZE = 5, (3, 8, 8)
IMAGES = draw(N, *SIZE, seed=1)
STATISTICS = {"task": "depth", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture(autouse=True)
def _finished_code(monkeypatch):
    """Whoever edits the package while these tests run would turn the store off, and rightly so."""
    monkeypatch.setattr(map_keys, "_our_code", lambda: "of these tests")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "maps"


def evaluation(store, model=None, images=IMAGES, **options):
    ev = xa.Evaluation(model or curved(), images, **{"batch_size": 2} | STATISTICS | options)
    ev.store = store if isinstance(store, Store | None) else Store(store)
    return ev


def measure(store, model=None, images=IMAGES, method="saliency", **options):
    """AF under noise, which costs no gradient but those of the map; and the evaluation that measured it."""
    ev = evaluation(store, model, images, **options)
    return ev.attribution_fidelity(method, perturbation="gaussian_noise"), ev


def same(one, other):
    return all(
        torch.equal(getattr(one, what), getattr(other, what)) for what in ("values", "relevant_error", "responsive")
    )


def noisy(model, images, target, *, image_ids, seed):
    """A map with random numbers in it, which are keyed."""
    noise = xa.method("random").function(model, images, target, image_ids=image_ids, seed=seed)
    calls.append(len(images))
    return noise + images.square().sum(1)


def plain(model, images, target, *, power=2):
    calls.append(len(images))
    return images.abs().sum(1) ** power


calls: list[int] = []
OUR_CODE = map_keys._our_code


class TestServes:
    @pytest.mark.parametrize(
        "method",
        [
            "saliency",
            xa.method("integrated_gradients", steps=3, baseline="black+white"),
            xa.method("integrated_gradients", steps=3, baseline=draw(*SIZE, seed=2)),
            xa.method("integrated_gradients", steps=3, baseline=("mean", draw(3, 1, 1, seed=2))),
        ],
        ids=["saliency", "black+white", "tensor", "both"],
    )
    def test_the_second_run_computes_no_map_and_finds_the_same_to_the_last_bit(self, folder, method):
        alone, _ = measure(None, method=method)
        first, before = measure(folder, method=method)
        second, after = measure(folder, method=method)
        assert before.passes.gradient > 0
        assert after.passes == Passes(3 * N, 0)  # clean, R and I
        assert same(alone, first)
        assert same(first, second)
        assert (before.store.written, after.store.written, after.store.served) == (N, 0, N)

    def test_the_map_comes_back_with_its_shape_and_type(self, folder):
        content = {"channels": draw(3, 4, 5), "none": draw(4, 5).double(), "half": draw(4, 5).half()}
        store = Store(folder)
        for name, attribution in content.items():
            store.put(digest(name), attribution, draw(2, 2))
            found = store.find(digest(name), draw(2, 2)).attribution
            assert found.dtype == attribution.dtype
            assert torch.equal(found, attribution)

    def test_what_a_method_says_of_its_maps_comes_back_with_them(self, folder):
        method = xa.method("integrated_gradients", steps="auto", tolerance=0.2)
        alone, _ = measure(None, method=method)
        names = [name for name in alone.details if name.startswith("ig_")]
        assert names
        measure(folder, method=method, images=IMAGES[:3])
        for _ in range(2):  # three of five are stored, then all
            score, ev = measure(folder, method=method)
            for name in names:  # .01 or more; other batch sizes round them by 2e-8
                torch.testing.assert_close(score.details[name], alone.details[name], rtol=0, atol=1e-6)
        assert ev.passes.gradient == 0

    def test_more_images_cost_only_their_own_map(self, folder):
        measure(folder, images=IMAGES[:3])
        score, ev = measure(folder)
        assert ev.passes.gradient == N - 3
        assert same(score, measure(None)[0])

    def test_a_batch_of_which_some_are_stored_keeps_its_order(self, folder):
        measure(folder, images=IMAGES[[1, 3]])
        score, ev = measure(folder, batch_size=N)
        assert ev.passes.gradient == N - 2
        torch.testing.assert_close(score.values, measure(None)[0].values)  # the rest is a smaller batch: rounding

    def test_another_seed_or_other_ids_change_no_map_that_draws_nothing(self, folder):
        measure(folder)
        _, ev = measure(folder, seed=7, image_ids=list("abcde"))
        assert ev.passes.gradient == 0

    def test_a_map_of_the_users_own_function_and_a_target_by_name(self, folder):
        for expected in (N, 0):
            calls.clear()
            measure(folder, method=plain, target=log_depth, model=Squares(draw(*SIZE)))
            assert sum(calls) == expected

    def test_rounding_of_the_prediction_is_no_reason_to_compute_again(self, folder, monkeypatch):
        measure(folder, model=Squares(draw(*SIZE)))
        forward = Squares.forward
        monkeypatch.setattr(Squares, "forward", lambda self, images: forward(self, images) * (1 + 1e-6))
        _, ev = measure(folder, model=Squares(draw(*SIZE)))
        assert ev.passes.gradient == 0

    def test_controls_are_sooner_made_than_read(self, folder):
        for method in ("random", "edges"):
            measure(folder, method=method)
        assert not folder.exists()

    def test_off_unless_asked_for(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        measure(None)
        assert list(folder.parent.iterdir()) == []

    def test_a_subject_may_be_on_a_folder_named_from_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert Store("~/maps").folder == tmp_path / "maps"


class TestComputesAgain:
    def check(self, folder, first, second, count=N):
        """What `second` computes after `first`; and that it finds what it would find without a store."""
        measure(folder, **first)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        score, ev = measure(folder, **second)
        assert ev.passes.gradient == count * (3 if "integrated" in str(second.get("method")) else 1)
        assert same(score, measure(None, **second)[0])
        return before, ev

    def test_changed_weights(self, folder):
        changed = curved()
        with torch.no_grad():
            changed[2].bias += 1e-7  # the prediction is the same within its tolerance
        before, _ = self.check(folder, {}, {"model": changed})
        assert len(list(folder.iterdir())) == 2 * len(before)

    def test_a_changed_image(self, folder):
        images = IMAGES.clone()
        images[2, 0, 0, 0] += 1e-6
        self.check(folder, {}, {"images": images}, count=1)

    def test_the_type_of_the_image(self, folder):
        self.check(folder, {}, {"images": IMAGES.double(), "model": curved().double()})

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ({"steps": 3}, {"steps": 3, "baseline": "white"}),
            ({"steps": 3, "baseline": draw(*SIZE)}, {"steps": 3, "baseline": draw(*SIZE, seed=3)}),
            ({"steps": 3, "baseline": "black"}, {"steps": 3, "baseline": ("black", "mean")}),
        ],
        ids=["name", "tensor", "tuple"],
    )
    def test_a_changed_parameter(self, folder, first, second):
        one, other = (xa.method("integrated_gradients", **words) for words in (first, second))
        assert method_words(one) != method_words(other)
        measure(folder, method=one)
        score, ev = measure(folder, method=other)
        assert ev.store.served == 0
        assert same(score, measure(None, method=other)[0])

    def test_a_tensor_of_the_method_that_was_written_on(self, folder):
        baseline = draw(*SIZE)
        method = xa.method("integrated_gradients", steps=3, baseline=baseline)
        measure(folder, method=method)
        baseline += 0.1
        self.check(folder, {"method": method}, {"method": method}, count=0)
        assert len(list(folder.iterdir())) == 2 * N

    def test_changed_code_with_equal_weights(self, folder, monkeypatch):
        measure(folder, model=Squares(draw(*SIZE)))
        forward = Squares.forward
        monkeypatch.setattr(Squares, "forward", lambda self, images: forward(self, images) * 1.01)
        score, ev = measure(folder, model=Squares(draw(*SIZE)))
        assert (ev.passes.gradient, ev.store.outdated, len(list(folder.iterdir()))) == (N, N, N)  # and overwritten
        assert same(score, measure(None, model=Squares(draw(*SIZE)))[0])
        assert measure(folder, model=Squares(draw(*SIZE)))[1].passes.gradient == 0

    def test_a_changed_target(self, folder):
        model = Squares(draw(*SIZE))
        self.check(folder, {"model": model}, {"model": model, "target": log_depth})

    def test_a_changed_card(self, folder):
        self.check(folder, {}, {"std": [0.2, 0.2, 0.2]})

    def test_an_accelerated_subject(self, folder):
        """Channels last moves the prediction less than its tolerance."""
        words = {name: STATISTICS[name] for name in ("task", "mean", "std")}
        fast = xa.accelerate(curved(), "channels_last", **words)
        self.check(folder, {"model": fast}, {})

    def test_another_version_of_our_code(self, folder, monkeypatch):
        measure(folder)
        monkeypatch.setattr(map_keys, "_our_code", lambda: "changed")
        assert measure(folder)[1].store.served == 0

    @pytest.mark.parametrize("changed", [{"seed": 1}, {"image_ids": list("abcde")}, {}])
    def test_seed_and_ids_of_a_method_that_draws_by_them(self, folder, changed):
        measure(folder, method=noisy)
        calls.clear()
        score, _ = measure(folder, method=noisy, **changed)
        assert sum(calls) == (N if changed else 0)
        assert same(score, measure(None, method=noisy, **changed)[0])

    def test_a_heatmap_that_is_not_finite_is_not_kept(self, folder):
        with pytest.raises(xa.DegenerateHeatmapError):
            measure(folder, method=not_finite)
        assert not folder.exists()


def not_finite(model, images, target):
    return images.abs().mean(1) * float("inf")


class TestUnnamed:
    """What holds values that no name tells is computed every time."""

    @pytest.mark.parametrize(
        "target", [depth_in_box(0, 0, 8, 7), lambda output: output.flatten(1).mean(1)], ids=["box", "lambda"]
    )
    def test_targets(self, folder, target):
        for _ in range(2):
            assert measure(folder, target=target)[1].passes.gradient == N
        assert not folder.exists()

    def test_functions(self):
        held = 3

        def closure(model, images, target):
            return images * held

        wrapped = functools.wraps(plain)(closure)  # has a good name, which is another's
        unnamed = [
            closure,
            wrapped,
            lambda model, images, target: images,
            functools.partial(plain, power=3),
            Store("x").find,
        ]
        for function in unnamed:
            with pytest.raises(Unnamed):
                named(function)
        assert named(depth_mean) == "xai_assert.tasks.depth.depth_mean"

    def test_parameters(self, folder):
        method = xa.Method("mine", plain, {"power": torch.nn.Identity()})
        with pytest.raises(Unnamed):
            method_words(method)

    def test_a_function_counts_with_its_file_and_not_if_that_was_changed_after_it_was_loaded(self, tmp_path):
        file = tmp_path / "mine.py"
        found = []
        for steps, age in ((1, 60), (2, 60), (2, -60)):
            file.write_text(f"STEPS = {steps}\ndef mine(model, images, target): return STEPS * images\n")
            os.utime(file, times=(map_keys.BEGUN - age, map_keys.BEGUN - age))
            space = {"__name__": "mine"}
            exec(compile(file.read_text(), str(file), "exec"), space)
            try:
                found.append(named(space["mine"]))
            except Unnamed:
                found.append(None)
        assert found[0] != found[1]
        assert found[2] is None
        file.unlink()
        with pytest.raises(Unnamed):
            named(space["mine"])

    def test_our_own_code_counts_with_all_its_files(self, tmp_path, monkeypatch):
        found = []
        for text, age in (("a", 60), ("b", 60), ("b", -60)):
            tmp_path.joinpath("code.py").write_text(text)
            os.utime(tmp_path / "code.py", times=(map_keys.BEGUN - age,) * 2)
            monkeypatch.setattr(map_keys.resources, "PACKAGE", tmp_path)
            try:
                found.append(OUR_CODE.__wrapped__())
            except Unnamed:
                found.append(None)
        assert found[0] != found[1]
        assert found[2] is None

    def test_hooks_on_gradients_change_a_map_and_no_prediction(self, folder):
        measure(folder)
        model = curved()
        model[1].register_full_backward_hook(lambda module, given, out: tuple(g.clamp(min=0) for g in given))
        hooked, ev = measure(folder, model=model)
        assert ev.passes.gradient == N
        assert same(hooked, measure(None, model=model)[0])


def test_a_digest_is_of_type_shape_and_values():
    zeros = torch.zeros(2, 3)
    others = [zeros.T.contiguous(), zeros.int(), zeros + 1e-30, zeros[:1]]
    assert len({digest(tensor) for tensor in (zeros, *others)}) == 1 + len(others)
    assert digest(zeros.T) == digest(zeros.T.contiguous())


class TestDamage:
    def entries(self, folder):
        measure(folder)
        return sorted(folder.iterdir())

    def check(self, folder, broken):
        """All damaged maps are computed again and replaced, without a word."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            score, ev = measure(folder)
        assert (ev.passes.gradient, ev.store.broken) == (broken, broken)
        assert same(score, measure(None)[0])
        assert measure(folder)[1].passes.gradient == 0

    def test_a_flipped_byte(self, folder):
        for path in self.entries(folder)[:3]:
            content = bytearray(path.read_bytes())
            content[-5] ^= 1
            path.write_bytes(content)
        self.check(folder, 3)

    def test_any_flipped_byte_is_noticed(self):
        entry = Entry(draw(1, 3, 3), draw(2, 2, seed=1), "monday")
        content = entry_bytes(digest("one"), entry)
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << (position % 8)
            try:
                found = read_entry(bytes(damaged), digest("one"))
            except Exception:
                continue
            assert found.run == entry.run  # a blank of the padding, which nobody reads
            assert torch.equal(found.attribution, entry.attribution)
            assert torch.equal(found.clean, entry.clean)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_a_truncated_or_empty_file(self, folder, share):
        for path in self.entries(folder):
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        self.check(folder, N)

    def test_foreign_files(self, folder):
        first, second, third, *_ = self.entries(folder)
        first.write_bytes(second.read_bytes())  # whole, but of another image
        second.write_text("no tensors at all")
        other = folder / "x.safetensors"
        safetensors.torch.save_file({"weight": draw(3)}, other)
        other.replace(third)
        self.check(folder, 3)

    def test_a_folder_of_the_name_of_an_entry(self, folder):
        path = self.entries(folder)[0]
        path.unlink()
        path.mkdir()
        with pytest.warns(StoreWarning, match="cannot be written"):
            _, ev = measure(folder)
        assert ev.passes.gradient == 1


class TestFolder:
    def test_a_disk_that_is_full_is_said_once(self, folder, monkeypatch):
        def full(self, content):
            with self.open("wb") as file:
                file.write(content[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.warns(StoreWarning) as caught:
            score, ev = measure(folder)
        text = f"the store {folder} cannot be written (No space left on device); the run goes on without"
        assert [str(w.message) for w in caught] == [text]
        assert same(score, measure(None)[0])
        assert (ev.store.written, list(folder.iterdir())) == (0, [])

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        tmp_path.joinpath("file").touch()
        with pytest.warns(StoreWarning, match="cannot be written"):
            score, _ = measure(tmp_path / "file" / "maps")
        assert same(score, measure(None)[0])
        with pytest.raises(ValueError, match=r"the store .*file is a file; give a folder"):
            Store(tmp_path / "file")
        with pytest.raises(ValueError, match="limit must be above 0 bytes, not 0"):
            Store(tmp_path, 0)

    def test_a_folder_that_disappears_during_the_run(self, folder):
        store = Store(folder)
        measure(store)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        score, _ = measure(store)
        assert same(score, measure(None)[0])
        assert len(list(folder.iterdir())) == N

    def test_bounded_in_size_and_the_least_recently_read_go_first(self, folder):
        store, each = Store(folder), len(entry_bytes(digest("0"), Entry(draw(8, 8), draw(2), Store(folder).run)))
        store.limit = 5.5 * each
        for i in range(5):
            store.put(digest(str(i)), draw(8, 8), draw(2))
            os.utime(folder / f"{digest(str(i))}.map.safetensors", (1000 + i, 1000 + i))
        assert store.find(digest("0"), draw(2))  # read just now
        store.put(digest("5"), draw(8, 8), draw(2))
        left = {i for i in range(6) if store.find(digest(str(i)), draw(2))}
        assert left == {0, 3, 4, 5}  # 6 are too many; 4 are within 90 %
        for i in range(6, 40):
            store.put(digest(str(i)), draw(8, 8), draw(2))
            assert sum(path.stat().st_size for path in folder.iterdir()) <= store.limit

    def test_a_run_larger_than_the_store_is_right_all_the_same(self, folder):
        store = Store(folder, limit=5000)
        score, _ = measure(store, images=draw(12, *SIZE))
        assert same(score, measure(None, images=draw(12, *SIZE))[0])
        assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= 5000

    def test_only_what_is_ours_is_cleared_away(self, folder):
        folder.mkdir()
        old, fresh = (folder / f"{digest(name)}.{'0' * 32}.part" for name in "ab")
        theirs = [folder / "model.safetensors", folder / "half.part", folder / f"{digest('a')}.safetensors"]
        for path in (old, fresh, *theirs):
            path.write_bytes(b"x" * 100_000)
            if path != fresh:
                os.utime(path, (time.time() - STALE - 60,) * 2)
        measure(Store(folder, limit=2000))
        assert not old.exists()
        assert fresh.exists()
        assert all(path.exists() for path in theirs)

    def test_workers_share_it(self, folder):
        """Four processes write, read and clear away at once: nobody fails, and no map is another's."""
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=hammer, args=(folder, seed)) for seed in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert not [path for path in folder.iterdir() if not ENTRY.fullmatch(path.name)]


def hammer(folder, seed):
    warnings.simplefilter("error")
    rng, store = random.Random(seed), Store(folder, limit=6000)
    for _ in range(200):
        number = rng.randrange(12)
        found = store.find(digest(str(number)), torch.ones(2))
        assert found is None or bool((found.attribution == number).all())
        if rng.random() < 0.5:
            store.put(digest(str(number)), torch.full((8, 8), float(number)), torch.ones(2))
    assert store.broken == store.outdated == 0
    assert store.served


class TestAccounts:
    def test_a_score_says_what_came_from_the_store(self, folder):
        first, _ = measure(folder, images=IMAGES[:3])
        assert "served" not in first.provenance
        assert first.marks == [mark for mark in first.marks if "store" not in mark]
        score, ev = measure(folder)
        assert score.provenance["served"] == 3
        assert f"from the store 3/{N}" in score.marks
        assert ev.faithfulness_estimate("saliency", groups=4).provenance["served"] == 3  # the others are of this run
        assert f"from the store 3/{N}" in score.to_dict()["marks"]

    def test_passes_are_as_expected_however_many_were_served(self, folder):
        for count in (2, 4, N):
            _, ev = measure(folder, images=IMAGES[:count])
            assert ev.passes_of("saliency") == ev.expected_passes("saliency")
        model = Counting(curved())
        _, ev = measure(folder, model=model)  # the same weights, under other names: computed
        assert ev.passes_of("saliency") == ev.expected_passes("saliency") == Passes(3 * N, N)
        assert model.backwards == N

    def test_what_this_run_computed_itself_is_not_marked(self, folder):
        """Cells that are asked for later need the maps again."""
        ev = evaluation(folder)
        ev.attribution_fidelity("saliency", perturbation="gaussian_noise")
        later = ev.attribution_fidelity("saliency", perturbation="black")
        assert "served" not in later.provenance
        assert ev.passes.gradient == ev.expected_passes("saliency").gradient == N
        one, two = Store(folder, run="a"), Store(folder, run="a")  # two workers of a run
        measure(one, images=IMAGES + 1)
        score, ev = measure(two, images=IMAGES + 1)
        assert "served" not in score.provenance
        assert ev.passes_of("saliency") == ev.expected_passes("saliency") == Passes(3 * N, 0)

    def test_a_strict_store_refuses_maps_of_earlier_runs_and_of_no_other(self, folder):
        store = Store(folder, strict=True)
        ev = evaluation(store)
        ev.attribution_fidelity("saliency", perturbation="gaussian_noise")
        ev.attribution_fidelity("saliency", perturbation="black")  # read back
        assert store.served == N
        with pytest.raises(StoredMapError, match=r"saliency for image 0 is of an earlier run .*--xai-strict-cache"):
            measure(Store(folder, strict=True))
        assert measure(Store(folder))[0].provenance["served"] == N

    def test_early_stopping_counts_only_the_images_that_it_measured(self, folder):
        images = draw(40, *SIZE, seed=5)
        measure(folder, images=images[:30])
        ev = evaluation(folder, images=images, batch_size=4)
        ev.shuffle()
        ev.enough = lambda method: 8
        score = ev.attribution_fidelity("saliency", perturbation="gaussian_noise")
        assert len(score) == 8
        of_store = sum(i < 30 for i in score.image_ids)
        assert score.provenance["served"] == of_store
        assert ev.passes_of("saliency") == ev.expected_passes("saliency") == Passes(24, 8 - of_store)

    def test_repr(self, folder):
        _, ev = measure(folder)
        assert repr(ev.store) == f"<Store {folder}: 0 served, {N} written, 0 broken, 0 outdated>"
