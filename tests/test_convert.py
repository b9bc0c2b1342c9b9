"""`jt-convert`: what is written is what the adapter is, or there is no file."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints.adapters import write_adapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from jtcore import cli
from jtcore.media import read_sample

POCKET = {"kind": "pocket", "weights": "random"}
PLAIN = {"kind": "lora", "targets": "attention", "rank": 2}
GATED = {"kind": "glora", "targets": "visual", "rank": 2}


@pytest.fixture
def plain(tmp_path) -> Path:
    return write_adapter(tmp_path / "joint.safetensors", POCKET, PLAIN)


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[..., str]:
    """What the command says to arguments that it refuses; it leaves no file."""

    def refuse(*arguments: str | Path, out: str = "converted.safetensors") -> str:
        before = sorted(tmp_path.rglob("*"))
        assert cli.convert([*map(str, arguments), "--out", str(tmp_path / out)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().err

    return refuse


def released(path: Path) -> Path:
    """A list as JointTuner saves it, for pocket: of every layer [up, down, gate]."""
    from jtplugins.pocket.models import build

    rng, saved = torch.Generator().manual_seed(0), []
    for name, one in build(0).transformer.named_modules():
        if isinstance(one, nn.Linear) and (".attn1." in name or ".ff." in name):
            shapes = (one.out_features, 2), (2, one.in_features), (1, one.in_features)
            saved += [nn.Parameter(torch.randn(shape, generator=rng)) for shape in shapes]
    torch.save(saved, path)
    return path


FROM = ("--from", "jointtuner", "--backbone", "pocket", "--set", "backbone.weights=random")


def test_equal_conversions_end_in_equal_bytes(plain, jt_convert, tmp_path):
    written = [jt_convert(plain, "--to", "kohya", name=name) for name in "ab"]
    given = released(tmp_path / "released.pt")
    read = [jt_convert(given, *FROM, name=f"{name}/bear") for name in "ab"]

    for first, second in (written, read):
        assert first.read_bytes() == second.read_bytes()


def test_an_imported_adapter_is_sampled(jt_convert, tmp_path, capsys):
    ours = jt_convert(released(tmp_path / "released.pt"), *FROM, name="bear")
    given = [str(ours), "--prompt", "a wug", "--frames", "2", "--size", "24", "24", "--quiet"]
    videos = {}
    for scale in (0, 1):
        out = tmp_path / str(scale)
        options = ["--steps", "2", "--scale", f"bear={scale}", "--out", str(out)]
        assert cli.sample([*given, *options]) == 0, capsys.readouterr().err
        videos[scale], _ = read_sample(out / "adapted/00-seed0.mp4")

    assert (videos[0] - videos[1]).abs().max() > 0.1


def test_an_imported_adapter_is_no_longer_where_it_was_trained(jt_convert, tmp_path, capsys):
    """Neither sizes nor steps are known; sampling says what it lacks."""
    ours = jt_convert(released(tmp_path / "released.pt"), *FROM)
    capsys.readouterr()
    assert cli.sample([str(ours), "--prompt", "a wug", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "sample.frames: missing\nsample.size: missing\n"


def test_what_was_done_is_told_unless_quiet(plain, jt_convert, capsys):
    first = jt_convert(plain, "--to", "kohya", name="first")
    said = capsys.readouterr().out
    assert said == f"{first}: LoRA of 20 layers, read again by ComfyUI's rule of names\n"

    jt_convert(plain, "--to", "kohya", "--quiet", name="second")
    assert capsys.readouterr().out == ""


def test_an_adapter_in_its_run_needs_no_plugin_folders(table, jt_run, jt_convert):
    """`tiny` is a stranger's backbone, no diffusers model, in a local folder."""
    table["adapter"]["joint"] = {"kind": "lora", "targets": "visual", "rank": 2}
    run = jt_run(table)
    written = load_file(jt_convert(run / "adapters/joint.safetensors", "--to", "kohya"))
    assert written.keys() == {
        f"lora_unet_{layer}.{part}"
        for layer in ("inner", "outer")
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }


# what is refused


def test_a_gated_adapter_is_never_a_plain_one(tmp_path, refused):
    gated = write_adapter(tmp_path / "joint.safetensors", POCKET, GATED)
    for layout in ("diffusers", "kohya"):
        assert refused(gated, "--to", layout) == (
            f"{gated}: cannot be a plain LoRA: it is a gated LoRA: each layer's strength is read"
            " off that layer's input, which no fixed pair of matrices can do, and without the gates"
            " it would be another adapter; attach it to a diffusers pipeline as it is, with"
            " jtcore.load_adapters(pipe, path)\n"
        )


def test_a_strangers_adapter_that_says_nothing_of_low_rank_is_refused(
    tmp_path, plugin_folder, refused
):
    folder = plugin_folder(
        bias="""
        from functools import partial

        from attrs import frozen
        from torch import nn

        from jtcore import hookimpl
        from jtcore.adapter import Adapter

        class BiasAdapter(Adapter):
            def __init__(self, linear):
                super().__init__()
                self.bias = nn.Parameter(0 * linear.bias)

        @frozen
        class Bias:
            def attach(self, backbone, others):
                return BiasAdapter(backbone.denoiser.proj_out)

        @hookimpl
        def jt_adapters():
            return {"bias": Bias}
        """
    )
    file = tmp_path / "joint.safetensors"
    write_adapter(file, POCKET, {"kind": "bias"}, folders=[folder])
    assert refused(file, "--to", "kohya", "--plugin-folder", folder).startswith(
        f"{file}: cannot be a plain LoRA: BiasAdapter says of no linear that it is a plain LoRA"
        " of it; attach it"
    )


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0, "changes nothing, its updates are zero; was it trained?"),
        (torch.nan, "has numbers that are not finite"),
    ],
    ids=["zero", "nan"],
)
def test_an_adapter_that_nobody_can_want_is_refused(plain, refused, tmp_path, factor, said):
    with safe_open(plain, "pt") as file:
        metadata = file.metadata()
    ups = {name: factor * weight for name, weight in load_file(plain).items() if ".up." in name}
    save_file(load_file(plain) | ups, other := tmp_path / "other.safetensors", metadata)
    assert refused(other, "--to", "kohya") == f"{other}: {said}\n"


SPOILT = """
    import torch
    from attrs import frozen
    from safetensors.torch import load_file, save_file

    from jtcore import hookimpl
    from jtplugins.formats.kohya import Kohya

    @frozen
    class Spoilt(Kohya):
        def write(self, updates, denoiser, path):
            super().write(updates, denoiser, path)
            tensors = load_file(path)
            {spoil}
            save_file(tensors, path)

    @hookimpl
    def jt_formats():
        return {{"spoilt": Spoilt}}
"""
FIRST, SECOND = (f"lora_unet_transformer_blocks_{block}_attn1_to_q" for block in (0, 1))
SPOILS = {
    "a layer is lost": f"for key in list(tensors): key.startswith('{FIRST}') and tensors.pop(key)",
    "a scale is lost": f"tensors['{FIRST}.alpha'] *= 1.001",
    "layers are exchanged": f"tensors['{FIRST}.lora_up.weight'], tensors['{SECOND}.lora_up.weight']"
    f" = tensors['{SECOND}.lora_up.weight'], tensors['{FIRST}.lora_up.weight']",
    "a layer too many": "tensors.update({'lora_unet_proj_out.alpha': torch.ones(()),"
    " 'lora_unet_proj_out.lora_down.weight': torch.ones(1, 128),"
    " 'lora_unet_proj_out.lora_up.weight': torch.ones(48, 1)})",
}


@pytest.fixture
def spoilt(plugin_folder) -> Callable[[str], tuple[str, ...]]:
    """The options of a layout that does something to its tensors before they are written."""
    return lambda how: (
        *("--to", "spoilt", "--plugin-folder"),
        str(plugin_folder(spoilt=SPOILT.format(spoil=how))),
    )


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_reads_otherwise_is_not_kept(plain, refused, spoilt, tmp_path, how):
    said = refused(plain, *spoilt(SPOILS[how]))
    odd = 2 if how == "layers are exchanged" else 1
    layer = "proj_out" if how == "a layer too many" else "transformer_blocks.0.attn1.to_q"
    assert said == (
        f"{tmp_path / 'converted.safetensors'}: read again, it is another adapter at {odd} of 45"
        f" layers, the first {layer!r}; no file is kept\n"
    )


def test_a_file_with_a_tensor_that_nobody_reads_is_not_kept(plain, refused, spoilt, tmp_path):
    said = refused(plain, *spoilt("tensors['lora_unet_attn'] = torch.ones(1)"))
    assert said == (
        f"{tmp_path / 'converted.safetensors'}: 1 tensors belong to no module, the first"
        " 'lora_unet_attn'\n"
    )


def test_what_diffusers_reads_is_not_written_unchecked(plain, refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refused(plain, "--to", "diffusers") == (
        f"{tmp_path / 'converted.safetensors'}: what is written is read again by diffusers, which"
        " needs peft for LoRA; pip install 'jtcore[peft]'\n"
    )


def test_one_of_a_bank_is_written_where_it_is_chosen(jt_convert, refused, tmp_path):
    bank = write_adapter(tmp_path / "looks.safetensors", POCKET, {**PLAIN, "bank": 2})
    assert refused(bank, "--to", "kohya") == (
        f"{bank}: cannot be a plain LoRA: it is a bank of 2, of which no `member` is chosen; attach"
        " it to a diffusers pipeline as it is, with jtcore.load_adapters(pipe, path)\n"
    )
    chosen = [
        load_file(jt_convert(bank, "--to", "kohya", "--set", f"adapter.member={n}", name=f"of{n}"))
        for n in range(2)
    ]
    held = load_file(bank)
    name = next(key.removesuffix(".0.down.weight") for key in held if ".0.down" in key)
    for n, written in enumerate(chosen):
        down = written[f"lora_unet_{name.replace('.', '_')}.lora_down.weight"]
        assert torch.equal(down, held[f"{name}.{n}.down.weight"])
    assert refused(bank, "--to", "kohya", "--set", "adapter.member=2") == (
        "adapter.member: expected 0 to 1, as `bank` is 2\n"
    )


def test_names_that_mean_nothing_are_told(plain, refused, tmp_path):
    assert refused(plain, "--to", "kohia") == (
        "format.kind: unknown format 'kohia'; did you mean 'kohya'?\n"
    )
    assert refused(plain, "--from", "jointtuner", "--backbone", "pokket") == (
        "backbone.kind: unknown backbone 'pokket'; did you mean 'pocket'?\n"
    )
    assert refused(plain, "--to", "kohya", "--set", "format.video=1") == (
        "format.video: unknown key\n"
    )
    assert refused(plain, "--to", "kohya", "--set", "sample.steps=1") == (
        "--set sample.steps=1: only format, backbone, adapter and engine can be changed here\n"
    )
    nowhere = tmp_path / "nowhere.safetensors"
    assert refused(nowhere, "--to", "kohya") == f"{nowhere}: there is no such file\n"


def test_a_layout_that_goes_the_other_way_is_told(plain, refused):
    assert refused(plain, "--to", "jointtuner") == (
        "'jointtuner' cannot be written; there are diffusers, kohya\n"
    )
    assert refused(plain, "--from", "diffusers", "--backbone", "pocket") == (
        "'diffusers' cannot be read; there are dualreal, jointtuner, motiondirector\n"
    )


@pytest.mark.parametrize("name", ["joint.pt", "a.b.safetensors", "a b.safetensors"])
def test_a_name_that_no_adapter_can_have_is_told(plain, refused, tmp_path, name):
    assert refused(plain, "--to", "kohya", out=name) == (
        f"--out {tmp_path / name}: expected NAME.safetensors; a name may have letters, digits, _"
        " and -\n"
    )


def test_a_file_is_not_written_over(plain, refused):
    assert refused(plain, "--to", "kohya", out=plain.name) == (
        f"{plain} exists; name another file with --out\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.safetensors", "--out", "b.safetensors"],
        ["a.safetensors", "--to", "kohya"],
        ["a.safetensors", "--to", "kohya", "--from", "jointtuner", "--out", "b.safetensors"],
        ["a.safetensors", "--to", "kohya", "--backbone", "pocket", "--out", "b.safetensors"],
        ["a.pt", "--from", "jointtuner", "--out", "b.safetensors"],
    ],
)
def test_arguments_that_say_too_little_or_too_much_are_told(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.convert(arguments)
    assert caught.value.code == 2
    assert "usage: jt-convert" in capsys.readouterr().err
