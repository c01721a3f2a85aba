"""Checkpoints: what comes back is what was saved, bit for bit, or an older one, loudly."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy

import foretrace as ft
from foretrace._checks import UserError
from foretrace.runs import checkpoint
from foretrace.runs.checkpoint import CheckpointError, CheckpointWarning


class Point(NamedTuple):
    x: np.ndarray
    y: float


def tree(number=0):
    """Every kind of leaf, with values that depend on a number; JAX arrays, NumPy arrays and keys."""
    rng = np.random.default_rng(number)
    return {
        "f32": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
        "odd": jnp.asarray([np.nan, np.inf, -0.0, 1e-45], jnp.float32),
        "bf16": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
        "f8": jnp.asarray(rng.normal(size=3), jnp.float8_e4m3fn),
        "f64": rng.normal(size=(2, 2)),
        "i8": jnp.asarray([-128, 127], jnp.int8),
        "flag": jnp.asarray([True, False]),
        "none": None,
        "empty": jnp.zeros((0, 5)),
        "scalar": jnp.float32(number),
        "key": jax.random.key(number),
        "keys": jax.random.split(jax.random.key(number + 1000), 3),
        "point/../x": Point(rng.integers(9, size=2), 0.1 * number),
        "whole": 2**62 + number,
        "true": True,
        "ünï côde": [jnp.asarray(1 + number)],
    }


def raw(leaf):
    """Type and bits of a leaf."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), raw(jax.random.key_data(leaf))
    values = np.asarray(leaf)
    return type(leaf).__name__, str(values.dtype), values.shape, values.tobytes()


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert raw(a) == raw(b)


def two_steps(path):
    ft.save(path, tree(1), step=10)
    return ft.save(path, tree(2), step=20)


def assert_falls_back(path, *, naming):
    """The newest checkpoint is reported, with what is wrong in it, and the one before is loaded."""
    with pytest.warns(CheckpointWarning) as said:
        found = checkpoint.restore(path, tree())
    assert len(said) == 1
    assert "step-000000000020" in str(said[0].message)
    assert naming in str(said[0].message)
    assert found.step == 10
    assert_same(found.tree, tree(1))


def test_everything_comes_back_bit_for_bit(tmp_path):
    where = tmp_path / "with space" / "ünïcödé ✓"
    folder = ft.save(where, tree(3))
    assert {file.name for file in folder.iterdir()} == {"state.safetensors", "manifest.json"}
    assert_same(ft.load(where, tree(0)), tree(3))
    assert_same(ft.load(str(where), tree(0)), tree(3))


def test_a_single_leaf_and_an_empty_tree_can_be_saved(tmp_path):
    for name, one in {
        "leaf": jnp.arange(3),
        "nothing": {},
        "number": 1.5,
        "key": jax.random.key(3),
    }.items():
        ft.save(tmp_path / name, one)
        assert_same(ft.load(tmp_path / name, one), one)


def test_a_learner_goes_on_bit_for_bit(tmp_path):
    cell = ft.cells.rnn(hidden=5, inputs=2)
    learner, optimizer = ft.kf_rtrl(cell, block=3), optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def train(params, moments, state, x):
        state, _ = learner.step(params, state, x)
        grads = learner.grad(params, state, state.hidden)
        changes, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, changes), moments, state

    def go_on(carry):
        for x in np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32):
            carry = train(*carry, x)
        return carry

    def start(seed):
        params = cell.init(jax.random.key(seed))
        return params, optimizer.init(params), learner.init(jax.random.key(seed + 10), params)

    carry = go_on(start(0))
    ft.save(tmp_path, carry)
    assert_same(go_on(ft.load(tmp_path, like=jax.eval_shape(lambda: start(1)))), go_on(carry))


def test_the_files_are_read_by_safetensors_itself_and_the_manifest_says_what_is_in_them(tmp_path):
    folder = ft.save(tmp_path, {"w": jnp.arange(6.0).reshape(2, 3)}, step=5, loss=0.5, info={"a": [1]})
    stored = safetensors.numpy.load_file(folder / "state.safetensors")
    np.testing.assert_array_equal(stored["['w']"], np.arange(6.0).reshape(2, 3))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["leaves"][0] | {"sha256": ""} == {
        "path": "['w']", "kind": "array", "impl": None, "dtype": "float32", "shape": [2, 3], "sha256": "",
    }  # fmt: skip
    assert (manifest["step"], manifest["loss"], manifest["info"]) == (5, 0.5, {"a": [1]})
    assert manifest["versions"] == {"foretrace": ft.__version__, "jax": jax.__version__}


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, loss in enumerate([5.0, 1.0, 4.0, float("nan"), 3.0, 2.0]):
        ft.save(tmp_path, {"a": step}, loss=loss, keep=2)
    assert sorted(checkpoint.steps(tmp_path)) == [1, 4, 5]
    assert {path.name[:5] for path in tmp_path.iterdir()} == {"step-"}


class Twice:
    """A node whose two leaves have one name."""


two_leaves = ((jax.tree_util.GetAttrKey("a"), 1),) * 2
jax.tree_util.register_pytree_with_keys(Twice, lambda _: (two_leaves, None), lambda *_: Twice())


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path must be a folder with checkpoints; got .*nothing"):
        ft.load(tmp_path / "nothing", {})
    with pytest.raises(UserError):
        ft.load(tmp_path / "nothing", {})
    with pytest.raises(TypeError, match=r"^tree must have arrays.* got str at \['a'\]; leave it out"):
        ft.save(tmp_path / "a", {"a": "text"})
    with pytest.raises(TypeError, match=r"^tree must have leaves of .*; got int4 at \['a'\]; convert it"):
        ft.save(tmp_path / "a", {"a": jnp.zeros(2, jnp.int4)})
    with pytest.raises(
        ValueError, match=r"^tree must have a path of its own for every leaf; got one twice"
    ):
        ft.save(tmp_path / "a", Twice())
    with pytest.raises(ValueError, match=r"^an int in tree must fit in 64 bits"):
        ft.save(tmp_path / "a", {"a": 2**70})
    with pytest.raises(ValueError, match=r"^keep must be an int >= 1; got 0"):
        ft.save(tmp_path / "a", {}, keep=0)
    with pytest.raises(ValueError, match=r"^step must be an int from 0"):
        ft.save(tmp_path / "a", {}, step=-1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        ft.save(tmp_path / "a", {}, info={"a": object()})
    assert list((tmp_path / "a").iterdir()) == []
    two_steps(tmp_path / "b")
    with pytest.raises(ValueError, match=r"^step must be above 20, the newest checkpoint"):
        ft.save(tmp_path / "b", tree(3), step=20)


def test_another_like_is_refused_with_what_differs(tmp_path):
    ft.save(tmp_path, {"a": jnp.ones(3), "b": 1, "k": jax.random.key(0)})
    like = {"a": jnp.ones(4), "b": 1.0, "k": jax.random.key(0, impl="rbg"), "c": np.int8(0)}
    with pytest.raises(ValueError, match=r"^like must have the leaves of ") as refused:
        ft.load(tmp_path, like)
    for said in (
        "['a']: float32 (3,) saved, float32 (4,) in like",
        "['b']: int saved, float in like",
        "['k']: key<fry> (2,) saved, key<rbg> (4,) in like",
        "['c']: nothing saved, int8 in like",
    ):
        assert said in str(refused.value)


def test_float64_is_never_rounded(tmp_path):
    ft.save(tmp_path, {"a": np.float64(0.1)})
    like = {"a": jax.ShapeDtypeStruct((), np.float64)}
    with pytest.raises(ValueError, match="set jax_enable_x64"):
        ft.load(tmp_path, like)
    with jax.enable_x64(True):
        assert ft.load(tmp_path, like)["a"] == 0.1


def test_every_one_of_200_flipped_bits_is_noticed(tmp_path):
    newest = two_steps(tmp_path)
    chosen = random.Random(0)
    for file in newest.iterdir():
        whole = file.read_bytes()
        for _ in range(100):
            bit = chosen.randrange(8 * len(whole))
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            assert_falls_back(tmp_path, naming=file.name if file.suffix == ".json" else "")
        file.write_bytes(whole)
    assert_same(ft.load(tmp_path, tree()), tree(2))


def test_a_flipped_bit_is_reported_with_the_leaf_that_has_it(tmp_path):
    newest = two_steps(tmp_path)
    state = newest / "state.safetensors"
    whole = state.read_bytes()
    values = np.asarray(tree(2)["f32"]).tobytes()
    changed = bytearray(whole)
    changed[whole.index(values) + 5] ^= 1
    state.write_bytes(changed)
    assert_falls_back(tmp_path, naming="leaf ['f32'] differs from its SHA-256")


def test_if_none_is_whole_each_is_named(tmp_path):
    two_steps(tmp_path)
    for folder in checkpoint.steps(tmp_path).values():
        (folder / "state.safetensors").write_bytes(b"")
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(CheckpointError, match=r"^no checkpoint is whole") as refused,
    ):
        ft.load(tmp_path, tree())
    assert all(name in str(refused.value) for name in ("step-000000000010", "step-000000000020"))


def signed(folder, change):
    """Changes a manifest and signs it anew, as someone who wants to mislead would."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    change(manifest)
    manifest["sha256"] = checkpoint.hash_of(manifest)
    file.write_text(json.dumps(manifest, indent=1) + "\n")


def header(size, text=b"{}"):
    return size.to_bytes(8, "little") + text


def replaced(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def linked(name):
    def damage(folder):
        aside = folder.parent / "aside"
        (folder / name).rename(aside)
        (folder / name).symlink_to(aside)

    return damage


def linked_folder(folder):
    aside = folder.parent / "elsewhere"
    folder.rename(aside)
    folder.symlink_to(aside)


def piped(folder):
    (folder / "state.safetensors").unlink()
    os.mkfifo(folder / "state.safetensors")


def longer(folder):
    with (folder / "state.safetensors").open("ab") as file:
        file.write(b"x")


def cut(name, keep):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])

    return damage


def leaf(**changes):
    return lambda folder: signed(folder, lambda manifest: manifest["leaves"][0].update(changes))


def says_of_key(**changes):
    def change(manifest):
        next(leaf for leaf in manifest["leaves"] if leaf["path"] == "['key']").update(changes)

    return lambda folder: signed(folder, change)


def says(**changes):
    return lambda folder: signed(folder, lambda manifest: manifest.update(changes))


DAMAGES = {
    "state cut": (cut("state.safetensors", 0.9), "state.safetensors has "),
    "state empty": (replaced("state.safetensors", b""), "state.safetensors has 0 bytes instead of "),
    "state missing": (lambda f: (f / "state.safetensors").unlink(), "state.safetensors cannot be read"),
    "state longer": (longer, "instead of"),
    "state a link": (linked("state.safetensors"), "state.safetensors is a link"),
    "state a pipe": (piped, "state.safetensors is not a regular file"),
    "state a huge header": (replaced("state.safetensors", header(2**60)), "instead of"),
    "manifest cut": (cut("manifest.json", 0.5), "manifest.json differs from its own SHA-256"),
    "manifest empty": (replaced("manifest.json", b""), "manifest.json differs"),
    "manifest missing": (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read"),
    "manifest a link": (linked("manifest.json"), "manifest.json is a link"),
    "manifest no object": (replaced("manifest.json", b"[]"), "manifest.json differs"),
    "manifest very deep": (replaced("manifest.json", b"[" * 10**6), "manifest.json differs"),
    "manifest not text": (replaced("manifest.json", b"\xff\x00"), "manifest.json differs"),
    "folder a link": (linked_folder, "it is not a folder"),
    "folder a file": (lambda f: (shutil.rmtree(f), f.write_text("")), "it is not a folder"),
    "folder empty": (lambda f: [file.unlink() for file in f.iterdir()], "manifest.json cannot be read"),
    "says other sizes": (leaf(shape=[2**40, 2**40]), "makes no sense"),
    "says a negative size": (leaf(shape=[-1]), "manifest.json"),
    "says a shape of text": (leaf(shape="ab"), "makes no sense"),
    "says another shape": (leaf(shape=[6]), "leaf"),
    "says another dtype": (leaf(dtype="int16"), "leaf"),
    "says an unknown dtype": (leaf(dtype="object"), "manifest.json"),
    "says no key": (says_of_key(impl="none such"), "makes no sense"),
    "says another key": (says_of_key(impl="rbg"), "makes no sense"),
    "says a key of another shape": (says_of_key(shape=[1, 2]), "leaf ['key']"),
    "says another leaf": (leaf(path="../../etc/passwd"), "differ in their leaves: ../../etc/passwd"),
    "says another hash": (leaf(sha256="0" * 64), "differs from its SHA-256"),
    "says a hash of nothing": (leaf(sha256=None), "differs from its SHA-256"),
    "says huge files": (says(bytes=2**70), "makes no sense"),
    "says few bytes": (says(bytes=1), "makes no sense"),
    "says text as size": (says(bytes="many"), "makes no sense"),
    "says no leaves": (says(leaves=None), "makes no sense"),
    "says another step": (says(step=10), "its manifest is that of step 10"),
    "says no info": (says(info=3), "its manifest is that of step 20"),
    "says another header": (says(header_sha256="0" * 64), "header of state.safetensors differs"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "naming"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_and_the_previous_step_used(tmp_path, damage, naming):
    damage(two_steps(tmp_path))
    assert_falls_back(tmp_path, naming=naming)
    # A run that goes on from there can save, and the damaged one stays to be looked at.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ft.save(tmp_path, tree(3), step=20)
        assert_same(ft.load(tmp_path, tree()), tree(3))
    assert os.path.lexists(tmp_path / "damaged-000000000020")


@pytest.mark.parametrize("size", [2**26, 2**60])
def test_a_header_that_lies_is_no_crash_even_where_the_manifest_agrees(tmp_path, size):
    newest = two_steps(tmp_path)
    file = newest / "state.safetensors"
    data = header(size, file.read_bytes()[8:])
    file.write_bytes(data)
    sum_of = checkpoint._step._sha256(data)
    signed(newest, lambda manifest: manifest.update(header_sha256=sum_of))
    assert_falls_back(tmp_path, naming="state.safetensors is damaged")


def test_a_checkpoint_of_a_later_format_is_refused_and_not_called_damaged(tmp_path):
    newest = two_steps(tmp_path)
    signed(newest, lambda manifest: manifest.update(format=99))
    with pytest.raises(ValueError, match=r"^checkpoints must have format 1 or 2; got 99 .* the version"):
        ft.load(tmp_path, tree())
    with pytest.raises(ValueError, match="got 99"):
        ft.save(tmp_path, tree(), step=20)


def test_names_that_are_no_steps_are_left_alone(tmp_path):
    two_steps(tmp_path)
    for name in ("step-1", "step-00000000003x", "step-000000000030.tmp", "other"):
        (tmp_path / name).mkdir()
    assert sorted(checkpoint.steps(tmp_path)) == [10, 20]


def assert_save_fails(path, big, match):
    before = {step: folder.name for step, folder in checkpoint.steps(path).items()}
    with pytest.raises(CheckpointError, match=match):
        ft.save(path, big, step=30)
    assert {step: folder.name for step, folder in checkpoint.steps(path).items()} == before
    assert_same(ft.load(path, tree()), tree(2))
    assert not list(path.glob(".tmp-*"))


def test_a_file_that_cannot_grow_leaves_the_older_ones(tmp_path):
    two_steps(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        assert_save_fails(
            tmp_path, np.zeros(2**16), r"could not be written to '.*': File too large; the older"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_full_disk_leaves_the_older_ones_whatever_call_meets_it(tmp_path, monkeypatch, call):
    two_steps(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert_save_fails(tmp_path, tree(3), r"No space left on device; the older")
    ft.save(tmp_path, tree(4), step=40)
    assert_same(ft.load(tmp_path, tree()), tree(4))


def test_a_folder_that_cannot_be_written_is_named():
    # As another user: the administrator may write everywhere.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        two_steps(path)
        path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            assert_save_fails(path, tree(3), r"could not be written to '.*': Permission denied")
        finally:
            os.seteuid(user)
            path.chmod(0o755)


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/inside'"):
        ft.save(tmp_path / "file" / "inside", {})
    with pytest.raises(CheckpointError, match=r"file'"):
        ft.save(tmp_path / "file", {})


# Saves again and again; whatever a checkpoint holds is computed from its step.
CHILD = """
import os, sys
import numpy as np
import foretrace as ft
from foretrace.runs import checkpoint

def content(step):
    return {f"leaf {i}": np.full(20_000, step, np.float32) for i in range(5)}

def one(path, step):
    ft.save(path, content(step), step=step, keep=2)
"""


def newest_of(path):
    """The step that is loaded, with its content checked; damage would be a warning, and so an error."""
    like = {f"leaf {i}": np.zeros(20_000, np.float32) for i in range(5)}
    found = checkpoint.restore(path, like)
    assert all((values == found.step).all() for values in found.tree.values())
    return found.step


def test_a_crash_before_any_change_of_the_disk_leaves_a_usable_checkpoint(tmp_path):
    script = """
    one(sys.argv[1], 0)
    for crash in range(1000):
        pid = os.fork()
        if pid:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            newest = max(checkpoint.steps(sys.argv[1]))
            print(crash, newest, flush=True)
            ft.load(sys.argv[1], content(0))
            if not code:
                break
            one(sys.argv[1], newest + 1)
        else:
            left = [crash]
            def dies(event, _):
                if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(9)
            sys.addaudithook(dies)
            one(sys.argv[1], max(checkpoint.steps(sys.argv[1])) + 1)
            os._exit(0)
    """
    command = [sys.executable, "-W", "error::UserWarning", "-c", CHILD + textwrap.dedent(script), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) > 15, "crashes at every change of the disk"
    assert lines[-1][1] >= 1
    assert newest_of(tmp_path) == lines[-1][1]


def kill_while_saving(path, seed, times):
    """Kills a process that saves, at random moments: what it said it saved, or a later one, is there."""
    moments = random.Random(seed)
    newest = -1
    for _ in range(times):
        script = CHILD + (
            "step = max(checkpoint.steps(sys.argv[1]), default=-1) + 1\n"
            "while True:\n    one(sys.argv[1], step); print(step, flush=True); step += 1\n"
        )
        command = [sys.executable, "-c", script, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline(), "saved once"
            try:
                child.wait(moments.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                child.kill()
            said = [int(line) for line in child.stdout.read().split()]
        found = newest_of(path)
        assert found >= max(said, default=newest + 1)
        newest = found


def test_kill_9_while_saving_leaves_a_usable_checkpoint(tmp_path):
    kill_while_saving(tmp_path, seed=0, times=3)


@pytest.mark.slow
def test_a_full_tmpfs_leaves_the_older_ones(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        two_steps(tmp_path)
        assert_save_fails(tmp_path, np.zeros(2**18), r"No space left on device; the older")
        ft.save(tmp_path, tree(4), step=40)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.slow
def test_kill_9_while_saving_50_times(tmp_path):
    kill_while_saving(tmp_path, seed=1, times=50)


def test_dtypes_of_small_floats_are_known_without_jax_arrays(tmp_path):
    values = np.arange(3).astype(ml_dtypes.bfloat16)
    ft.save(tmp_path, {"a": values})
    assert_same(ft.load(tmp_path, {"a": values}), {"a": values})


def test_numbers_of_128_bits_come_back_as_they_were(x64, tmp_path):
    tree = {"a": jnp.array([[1 + 2j, jnp.nan - 0.0j]]), "b": np.array([3j]), "c": jnp.array(0.1j)}
    ft.save(tmp_path / "run", tree)
    back = ft.load(tmp_path / "run", like=tree)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), tree, back)
    assert [leaf.dtype for leaf in jax.tree.leaves(back)] == [jnp.complex128] * 3
