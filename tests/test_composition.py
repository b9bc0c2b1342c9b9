"""Adapters of several runs on one backbone, and adapters that begin as those of other runs."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import tomli_w
import torch
from checkpoints.adapters import write_adapter
from checkpoints.stock import denoiser, own_pipeline
from checkpoints.wan import build_wan
from diffusers import WanPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import jtcore
from jtcore import JtError, cli

LORA = {"kind": "lora", "targets": "visual", "rank": 2, "dropout": 0.0}


@pytest.fixture
def run(table, jt_run) -> Callable[..., Path]:
    """A finished run on `tiny` whose adapter has the given name."""

    def make(name: str, seed: int = 3, **adapter) -> Path:
        changed = deepcopy(table) | {"seed": seed}
        changed["adapter"] = {name: {**LORA, **adapter}}
        changed["stage"]["joint"]["lr"] = 0.3
        changed["stage"]["joint"]["branch"]["joint"]["adapters"] = [name]
        return jt_run(changed, "--quiet", name=f"run-{name}-{seed}")

    return make


@pytest.fixture
def jt_sample(tmp_path, capsys) -> Callable[..., tuple[bytes, dict]]:
    """What sampling with these sources and options writes, and what is said of it."""

    def sample(*arguments: str | Path) -> tuple[bytes, dict]:
        out = tmp_path / f"videos-{len(list(tmp_path.glob('videos-*')))}"
        given = [*map(str, arguments), "--prompt", "a wug", "--out", str(out), "--quiet"]
        assert cli.sample(given) == 0, capsys.readouterr().err
        (entry,) = json.loads((out / "samples.json").read_text())
        return (out / entry["file"]).read_bytes(), entry

    return sample


def refused(capsys, tmp_path: Path, *arguments: str | Path) -> str:
    given = [*map(str, arguments), "--prompt", "a wug", "--out", str(tmp_path / "no")]
    assert cli.sample(given) == 2
    assert not (tmp_path / "no").exists()
    return capsys.readouterr().err


def file(run: Path) -> Path:
    (found,) = (run / "adapters").glob("*.safetensors")
    return found


def test_adapters_of_runs_and_files_are_on_together_each_at_its_scale(run, jt_sample):
    first, second = run("identity"), run("motion", seed=4)
    both, entry = jt_sample(first, file(second), "--scale", "motion=0.5")
    assert entry["scales"] == {"identity": 1.0, "motion": 0.5}
    alone = [jt_sample(source)[0] for source in (first, second)]
    assert len({both, *alone}) == 3
    without, _ = jt_sample(first, second, "--scale", "motion=0")
    assert without == alone[0]


def test_at_scale_0_a_bank_is_as_if_it_had_never_been_there(run, jt_sample):
    motion, look = run("motion"), run("look", seed=4, bank=2, member=1)
    assert jt_sample(motion, look)[0] != jt_sample(motion)[0]
    assert jt_sample(motion, look, "--scale", "look=0")[0] == jt_sample(motion)[0]
    assert (
        jt_sample(motion, look, "--set", "adapter.look.member=0")[0] != jt_sample(motion, look)[0]
    )


def test_adapters_of_one_name_get_others(run, jt_sample, capsys, tmp_path):
    first, second = run("joint"), run("joint", seed=4)
    assert refused(capsys, tmp_path, first, second) == (
        f"{file(first)} and {file(second)} both hold an adapter named 'joint'; give one another"
        f" name, as in other={file(second)}\n"
    )
    video, entry = jt_sample(f"look={first}", f"moves={file(second)}", "--scale", "look=0.5")
    assert entry["scales"] == {"look": 0.5, "moves": 1.0}
    assert jt_sample(first, f"moves={second}", "--scale", "joint=0.5")[0] == video


def test_a_name_for_a_run_of_several_adapters_is_put_before_theirs(run, jt_sample):
    first, second = run("a"), run("b", seed=4)
    shutil.copy(file(second), first / "adapters")
    _, entry = jt_sample(f"mine={first}", second)
    assert entry["scales"] == {"mine-a": 1.0, "mine-b": 1.0, "b": 1.0}


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(run, jt_sample):
    made = file(run("joint"))
    odd = made.rename(made.with_name("a=b.safetensors"))
    assert jt_sample(odd)[1]["scales"] == {"joint": 1.0}


def test_scales_and_schedules_of_a_recipe_follow_the_new_name(table, jt_run, jt_sample):
    schedule = {"unit": "step", "at": [1], "scales": [0.0, 2.0]}
    table["sample"] |= {"scales": {"joint": 0.5}, "schedule": {"joint": schedule}}
    made = jt_run(table, "--quiet")
    _, entry = jt_sample(f"other={made}")
    assert entry["scales"] == {"other": 0.5}
    assert entry["schedule"] == {"other": {**schedule, "on": "both"}}


def test_adapters_of_two_backbones_are_refused_with_what_differs(
    table, run, jt_run, capsys, tmp_path
):
    first = run("first")
    table["backbone"]["width"] = 8
    second = jt_run(table, "--quiet", name="wide")
    told = refused(capsys, tmp_path, first, second)
    assert told == (
        f"{file(second)} was trained on another backbone than {file(first)}: width is 8 and not"
        " 6; adapters of one network can be put together, of which one can be told with"
        " --set backbone.OPTION=VALUE\n"
    )
    told = refused(capsys, tmp_path, first, second, "--set", "backbone.width=8")
    assert told.endswith("tensors do not fit the adapter, the first 'inner.up.weight'\n")


def test_loras_trained_apart_add_up(tmp_path):
    """W x + b + s1 U1 D1 x + s2 U2 D2 x, by what the files hold."""
    backbone = {"kind": "wan", "weights": str(build_wan(tmp_path / "wan"))}
    files = [
        write_adapter(tmp_path / f"{name}.safetensors", backbone, {**LORA, "targets": role}, seed)
        for name, role, seed in (("look", "text_cross", 1), ("motion", "attention", 2))
    ]
    pipe = own_pipeline(WanPipeline, Path(backbone["weights"]))
    bare = {name: deepcopy(one) for name, one in layers(pipe).items()}
    jtcore.load_adapters(pipe, files).scale("motion", 0.5)
    network = denoiser(pipe)
    expected = {}

    def compare(name: str):
        def hook(layer, inputs, output):
            added = sum(
                scale * inputs[0] @ w[f"{name}.down.weight"].T @ w[f"{name}.up.weight"].T
                for scale, w in zip((1.0, 0.5), map(load_file, files), strict=True)
                if f"{name}.down.weight" in w
            )
            expected[name] = torch.allclose(output, bare[name](inputs[0]) + added, atol=1e-5)

        return hook

    for name, layer in layers(pipe).items():
        layer.register_forward_hook(compare(name))
    with torch.no_grad():
        network(torch.randn(1, 16, 1, 4, 4), torch.tensor([500]), torch.randn(1, 5, 32))
    assert len(expected) == 16 and all(expected.values())  # attention of two blocks


def layers(pipe: WanPipeline) -> dict[str, torch.nn.Module]:
    return {
        name: layer
        for name, layer in denoiser(pipe).named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }


def test_a_pipeline_takes_adapters_under_names(tmp_path):
    backbone = {"kind": "wan", "weights": str(build_wan(tmp_path / "wan"))}
    files = [
        write_adapter(tmp_path / str(seed) / "joint.safetensors", backbone, LORA, seed)
        for seed in (1, 2)
    ]
    pipe = own_pipeline(WanPipeline, Path(backbone["weights"]))
    with pytest.raises(JtError, match="both hold an adapter named 'joint'; give one another name"):
        jtcore.load_adapters(pipe, files)
    with pytest.raises(JtError, match=r"name 'a\.b' may only have letters, digits, _ and -$"):
        jtcore.load_adapters(pipe, {"a.b": files[0]})
    loaded = jtcore.load_adapters(pipe, {"look": files[0], "motion": files[1]})
    assert loaded.scales == {"look": 1.0, "motion": 1.0}
    loaded.remove()
    assert jtcore.load_adapters(pipe, [f"look={files[0]}", files[1]]).scales.keys() == {
        "look",
        "joint",
    }


def later(table: dict, initial: str | Path, **branch) -> dict:
    """A recipe of two adapters, of which `look` begins as that of a file is."""
    changed = deepcopy(table)
    changed["adapter"] = {"look": dict(LORA), "motion": dict(LORA)}
    changed["initial"] = {"look": str(initial)}
    changed["stage"]["joint"]["branch"]["joint"] |= {"adapters": ["look", "motion"], **branch}
    return changed


def test_an_adapter_that_begins_as_another_and_is_frozen_stays_it(table, run, jt_run):
    begun = file(run("look"))
    made = jt_run(later(table, begun, trains=["motion"]), "--quiet")
    own, motion = (load_file(made / f"adapters/{n}.safetensors") for n in ("look", "motion"))
    was = load_file(begun)
    assert own.keys() == was.keys() and all(torch.equal(own[name], was[name]) for name in was)
    assert motion["outer.up.weight"].any()
    trained = sum(tensor.numel() for tensor in motion.values())
    assert f"trained parameters {trained:,}" in (made / "report.md").read_text()


def test_a_frozen_adapter_is_on_while_another_learns(table, run, jt_run):
    begun = file(run("look"))
    with_look = jt_run(later(table, begun, trains=["motion"]), "--quiet", name="with")
    alone = later(table, begun, adapters=["motion"], trains=["motion"])
    without = jt_run(alone, "--quiet", name="without")
    pair = [load_file(r / "adapters/motion.safetensors") for r in (with_look, without)]
    assert not torch.equal(pair[0]["outer.up.weight"], pair[1]["outer.up.weight"])


def test_an_adapter_that_begins_as_another_can_be_trained_on(table, run, jt_run):
    begun = file(run("look"))
    table = later(table, begun, adapters=["look"])
    del table["adapter"]["motion"]
    table["stage"]["joint"] |= {"lr": 1e-9, "weight_decay": 0.0}
    own, was = load_file(jt_run(table, "--quiet") / "adapters/look.safetensors"), load_file(begun)
    assert any(not torch.equal(own[name], was[name]) for name in was)
    assert all(torch.allclose(own[name], was[name], atol=1e-6) for name in was)


def test_what_a_run_begins_with_is_hashed_and_must_not_change(table, run, tmp_path, capsys):
    begun = shutil.copy(file(run("look")), tmp_path / "look.safetensors")
    recipe = tmp_path / "later.toml"
    recipe.write_text(tomli_w.dumps(later(table, begun, trains=["motion"])))
    made = tmp_path / "made"
    assert cli.run([str(recipe), "--out", str(made), "--quiet"]) == 0
    (made / "result.json").unlink()
    assert cli.run(["--resume", str(made), "--quiet"]) == 0
    (made / "result.json").unlink()
    shutil.copy(file(run("look", seed=5)), begun)
    capsys.readouterr()
    assert cli.run(["--resume", str(made), "--quiet"]) == 2
    assert capsys.readouterr().err == (
        f"initial.look: {begun} has changed since this run began; put it back, or begin a new run\n"
    )


def test_beginning_as_an_adapter_of_another_checkpoint_is_told(
    table, run, jt_run, tmp_path, capsys
):
    same = file(run("look"))
    with safe_open(same, "pt") as held:
        facts = json.loads(held.metadata()["jtcore-adapter-1"])
    facts["identity"]["denoiser"] = "another"
    other = tmp_path / "look.safetensors"
    save_file(load_file(same), other, {"jtcore-adapter-1": json.dumps(facts)})
    told = []
    for number, begun in enumerate((same, other)):
        capsys.readouterr()
        jt_run(later(table, begun, trains=["motion"]), name=f"later{number}")
        told.append([line for line in capsys.readouterr().out.splitlines() if "initial." in line])
    expected = f"initial.look: {other}: was trained on another denoiser of the backbone"
    assert told == [[], [expected]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"path": "nowhere"}, "initial.look: 'nowhere': there is no such file; train it first"),
        ({"path": __file__}, f"initial.look: '{__file__}': no adapter file of jtcore: "),
        ({"kind": "glora"}, "initial.look: '{file}' holds a 'lora', and the adapter is a 'glora'"),
        ({"rank": 3}, "initial.look: {file}: 4 tensors do not fit the adapter, the first 'inner."),
        ({"name": "lok"}, "initial: unknown adapter 'lok'; did you mean 'look'?"),
    ],
)
def test_what_cannot_begin_so_is_told_before_anything_is_computed(
    table, run, write_recipe, capsys, changes, told
):
    begun = file(run("look"))
    wrong = later(table, changes.pop("path", begun), trains=["motion"])
    if name := changes.pop("name", None):
        wrong["initial"] = {"look": str(begun), name: str(begun)}
    wrong["adapter"]["look"] |= changes
    capsys.readouterr()
    assert cli.run([str(write_recipe(wrong)), "--check"]) == 2
    assert capsys.readouterr().err.startswith(told.format(file=begun))


def test_a_check_tells_what_adapters_reach(table, write_recipe, capsys):
    table["adapter"]["joint"] = {"kind": "weights", "targets": "all"}
    path = write_recipe(table)
    assert cli.run([str(path), "--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "adapter.joint: 2 modules, 63 parameters",  # 6 * 6 + 6, and 6 * 3 + 3
        f"{path}: recipe checked, no problem found",
    ]


def test_a_scale_for_one_half_of_guidance_is_refused_where_weights_are_replaced(
    table, write_recipe, jt_run, capsys, tmp_path
):
    table["adapter"]["joint"] = {"kind": "weights", "targets": "all"}
    schedule = {"unit": "step", "at": [1], "scales": [0, 1], "on": "prompted"}
    told = (
        "schedule.joint.on: expected \"both\", got 'prompted': this adapter has one scale for all"
        " of a batch, and both halves of guidance are in one"
    )
    made = jt_run(table, "--quiet")
    asked = "joint={unit='step', at=[1], scales=[0, 1], on='prompted'}"
    assert refused(capsys, tmp_path, made, "--schedule", asked) == f"--{told}\n"
    table["sample"]["schedule"] = {"joint": schedule}
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err == f"sample.{told}\n"


def test_fine_tuned_weights_are_sampled_again_and_stay_on_a_pipeline(tmp_path):
    backbone = {"kind": "wan", "weights": str(build_wan(tmp_path / "wan"))}
    path = write_adapter(
        tmp_path / "tuned.safetensors", backbone, {"kind": "weights", "targets": "all"}
    )
    pipe = own_pipeline(WanPipeline, Path(backbone["weights"]))
    network = denoiser(pipe)
    asked = torch.randn(1, 16, 1, 4, 4), torch.tensor([500]), torch.randn(1, 5, 32)
    tuned = deepcopy(network)
    tuned.load_state_dict(load_file(path), strict=True)
    with torch.no_grad():
        before, expected = network(*asked).sample, tuned(*asked).sample
        loaded = jtcore.load_adapters(pipe, path)
        assert torch.equal(network(*asked).sample, expected)
        loaded.scale("tuned", 0.0)
        assert torch.equal(network(*asked).sample, before)
        loaded.scale("tuned", 1.0)
        loaded.remove()
        assert torch.equal(network(*asked).sample, before)
    assert not torch.equal(before, expected)


def test_samples_of_a_frozen_adapter_can_leave_it_out(table, run, jt_run, jt_sample):
    begun = file(run("look"))
    table = later(table, begun, trains=["motion"])
    table["sample"]["scales"] = {"look": 0.0}
    made = jt_run(table, "--quiet")
    video = (made / "samples/adapted/00-seed0.mp4").read_bytes()
    assert video == jt_sample(made / "adapters/motion.safetensors")[0]
    entries = json.loads((made / "metrics.json").read_text())["samples"]
    assert entries[-1]["scales"] == {"look": 0.0, "motion": 1.0}
