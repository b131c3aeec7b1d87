"""Derived results: one per layer, method and parameters, the same for every viewer, in bounded space."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from hiddenscope.errors import RunFormatError, RunLockedError
from hiddenscope.layout import FORMAT, group_name
from hiddenscope.locations import BRANCH, open_repository
from hiddenscope.store import ResultStore


def embedding(epochs: int, *, seed: int = 0) -> xr.Dataset:
    """A result such as the live worker stores."""
    rng = np.random.default_rng([seed, epochs])
    return xr.Dataset(
        {
            "embedding": (
                ("epoch", "step", "unit", "component"),
                rng.normal(size=(epochs, 4, 5, 3)).astype(np.float32),
                {"long_name": "MM-PHATE"},
            ),
            "intra_step_entropy": (("epoch", "step"), rng.normal(size=(epochs, 4))),
            "converged": (("epoch",), rng.random(epochs) > 0.5),
            "fidelity": ((), 0.25),
        },
        coords={
            "epoch": np.arange(epochs) - 1.0,
            "step": np.arange(4),
            "unit": [f"forward {unit}" for unit in range(5)],
            "label": ("unit", np.arange(5)),
        },
        attrs={"covers_epoch": epochs - 2.0, "seconds": np.float32(0.5), "note": "2 of 4 steps", "drift": float("nan")},
    )


def listed(store: ResultStore) -> list[tuple[str, str, dict[str, object]]]:
    """The keys of all results."""
    keys = store.keys()
    return [(key.layer, key.method, key.parameters) for key in keys]


@pytest.fixture(params=["memory", "disk"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "hiddenscope")


def test_what_was_put_is_got_back(location: str) -> None:
    reader = ResultStore.open(location, writable=False)
    assert reader.get("lstm", "mmphate") is None
    assert (reader.keys(), reader.version) == ([], "")
    with ResultStore.open(location, writable=True) as store:
        store.put("lstm", "mmphate", {"n_components": 3}, embedding(6))
        found = reader.get("lstm", "mmphate", {"n_components": 3})
        assert found is not None
        xr.testing.assert_identical(found, embedding(6))
        assert found["embedding"].dtype == np.float32
        assert reader.version == store.version != ""


def test_results_are_kept_apart_by_layer_method_and_parameters(location: str) -> None:
    keys = [
        ("lstm", "mmphate", {"k": 1, "t": "auto"}),
        ("lstm", "mmphate", {"k": 2, "t": "auto"}),
        ("lstm", "pca", {}),
        ("lstm/pca", "", {}),
        ("", "lstm/pca", {"deep": {"a": [1, None]}}),
        ("..", "__hidden", {}),
    ]
    with ResultStore.open(location, writable=True) as store:
        for seed, (layer, method, parameters) in enumerate(keys):
            store.put(layer, method, parameters, embedding(3, seed=seed))
        for seed, (layer, method, parameters) in enumerate(keys):
            found = store.get(layer, method, dict(reversed(parameters.items())))
            assert found is not None
            xr.testing.assert_identical(found, embedding(3, seed=seed))
        assert listed(store) == keys
        assert store.get("lstm", "mmphate", {"k": 3}) is None


def test_without_parameters_the_newest_is_got(location: str) -> None:
    with ResultStore.open(location, writable=True) as store:
        for seed, k in enumerate([1, 2, 1]):
            store.put("lstm", "mmphate", {"k": k}, embedding(2, seed=seed))
        newest = store.get("lstm", "mmphate")
        assert newest is not None
        xr.testing.assert_identical(newest, embedding(2, seed=2))
        assert listed(store) == [("lstm", "mmphate", {"k": 2}), ("lstm", "mmphate", {"k": 1})]


def test_the_version_changes_with_every_result(location: str) -> None:
    with ResultStore.open(location, writable=True) as store:
        versions = {store.version}
        for epochs in range(2, 6):
            store.put("lstm", "mmphate", {}, embedding(epochs))
            versions.add(store.version)
    assert len(versions) == 5


def test_results_have_one_writer(location: str) -> None:
    with ResultStore.open(location, writable=True):
        with pytest.raises(RunLockedError, match="already has a writer"):
            ResultStore.open(location, writable=True)
        with pytest.raises(ValueError, match="opened for reading; open them with writable=True"):
            ResultStore.open(location, writable=False).put("lstm", "mmphate", {}, embedding(2))
    ResultStore.open(location, writable=True).close()


def test_what_cannot_be_stored_is_refused_and_changes_nothing(location: str) -> None:
    with ResultStore.open(location, writable=True) as store:
        store.put("lstm", "mmphate", {}, embedding(2))
        version = store.version
        odd = {
            "dtype": embedding(2).assign(when=("epoch", np.array(["2026-01-01", "2026-01-02"], dtype="M8[ns]"))),
            "plain JSON": embedding(2).assign_attrs(function=print),
        }
        for message, dataset in odd.items():
            with pytest.raises(ValueError, match=message):
                store.put("lstm", "mmphate", {}, dataset)
        with pytest.raises(ValueError, match="parameters of a result must be plain JSON"):
            store.put("lstm", "mmphate", {"k": float("nan")}, embedding(2))
        assert store.version == version


def test_replacing_a_result_again_and_again_takes_bounded_space(tmp_path: Path) -> None:
    with ResultStore.open(tmp_path, writable=True) as store:
        sizes = []
        for seed in range(40):
            store.put("lstm", "mmphate", {}, embedding(200, seed=seed))
            if seed % 10 == 9:
                store.sweep(grace=0)
                files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
                sizes.append((sum(path.stat().st_size for path in files), len(files)))
        assert sizes[-1][0] < 1.2 * sizes[0][0]
        assert sizes[-1][1] <= sizes[0][1] + 2
        found = store.get("lstm", "mmphate")
        assert found is not None
        xr.testing.assert_identical(found, embedding(200, seed=39))


def test_sweeping_keeps_what_was_replaced_within_the_grace_period(tmp_path: Path) -> None:
    with ResultStore.open(tmp_path, writable=True) as store:
        for seed in range(5):
            store.put("lstm", "mmphate", {}, embedding(50, seed=seed))
        assert store.sweep(grace=3600) == 0
        assert store.sweep(grace=0) > 4 * embedding(50)["embedding"].nbytes


def test_readers_never_break_while_results_are_replaced_and_swept(tmp_path: Path) -> None:
    done = threading.Event()
    failures: list[BaseException] = []
    reads: list[float] = []

    def read() -> None:
        try:
            reader = ResultStore.open(tmp_path, writable=False)
            while not done.is_set():
                found = reader.get("lstm", "mmphate")
                if found is not None:
                    xr.testing.assert_identical(
                        found, embedding(30, seed=int(found.attrs["covers_epoch"])).assign_attrs(found.attrs)
                    )
                    reads.append(found.attrs["covers_epoch"])
        except BaseException as error:
            failures.append(error)

    with ResultStore.open(tmp_path, writable=True) as store:
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for seed in range(25):
                store.put("lstm", "mmphate", {}, embedding(30, seed=seed).assign_attrs(covers_epoch=seed))
                store.sweep(grace=0)  # not even a moment's grace
        finally:
            done.set()
            for reader in readers:
                reader.join()
    assert not failures, repr(failures[0])
    assert len(set(reads)) > 5


def test_results_of_a_newer_format_are_refused_in_words(location: str) -> None:
    with ResultStore.open(location, writable=True) as store:
        store.put("lstm", "mmphate", {}, embedding(2))
        repository = open_repository(store.location)
        assert repository is not None
        session = repository.writable_session(BRANCH)
        zarr.open_group(session.store, mode="r+").update_attributes({"hiddenscope_format": FORMAT + 1})
        session.commit("from the future")
        with pytest.raises(RunFormatError, match="reads formats up to"):
            store.get("lstm", "mmphate")


def test_damaged_results_are_named(tmp_path: Path) -> None:
    with ResultStore.open(tmp_path, writable=True) as store:
        store.put("lstm", "mmphate", {}, embedding(200))
    for chunk in (tmp_path / "results" / "chunks").iterdir():
        chunk.unlink()
    with pytest.raises(RunFormatError, match=r"results cannot be read \("):
        ResultStore.open(tmp_path, writable=False).get("lstm", "mmphate")


@settings(max_examples=100)
@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_path(names: list[str]) -> None:
    one, other = map(group_name, names)
    assert one != other
    for path in (one, other):
        assert path
        assert "/" not in path
        assert path.isascii()
        assert not path.startswith(("__", "."))


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
@settings(max_examples=20)
def test_any_json_is_a_key(parameters: dict[str, object]) -> None:
    with ResultStore.open("memory://any-json", writable=True) as store:
        dataset = xr.Dataset({"x": ("epoch", np.arange(3))}, attrs={"told": json.dumps(parameters)})
        store.put("lstm", "mmphate", parameters, dataset)
        found = store.get("lstm", "mmphate", parameters)
        assert found is not None
        assert found.attrs["told"] == json.dumps(parameters)


def test_attributes_are_read_without_the_numbers(tmp_path):
    import xarray as xr

    from hiddenscope.results import ResultStore

    with ResultStore.open(tmp_path, writable=True) as store:
        store.put("lstm", "m", {"a": 1}, xr.Dataset({"x": ("unit", [1.0])}, attrs={"note": "old"}))
        store.put("lstm", "m", {"a": 2}, xr.Dataset({"x": ("unit", [1.0])}, attrs={"note": "new"}))
    reader = ResultStore.open(tmp_path, writable=False)
    assert reader.attributes("lstm", "m") == {"note": "new"}
    assert reader.attributes("gru", "m") is None
