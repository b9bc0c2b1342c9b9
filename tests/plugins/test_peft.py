"""Methods of peft as adapters, against peft used plainly."""

from copy import deepcopy

import pytest
import torch
from attrs import frozen
from checkpoints.adapters import write_adapter
from checkpoints.wan import build_wan
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from jtcore import JtError, cli
from jtcore.adapter import Adapter, switched_on
from jtcore.model import attach_adapters
from jtcore.structure import Component
from jtcore.targets import match_targets
from jtplugins.adapters._peft import METHODS, make_config
from jtplugins.adapters.peft import Peft
from jtplugins.adapters.weights import Weights

BATCH, TOKENS, WIDTH = 2, 5, 8
OPTIONS = {
    "lora": {"r": 3, "lora_alpha": 6, "use_rslora": True},
    "dora": {"r": 3},
    "loha": {"r": 2, "alpha": 4},
    "lokr": {"r": 2},
    "oft": {"oft_block_size": 4},
    "vera": {"r": 4, "projection_prng_key": 7},
    "ia3": {},
    "miss": {"r": 2},
    "delora": {"r": 2},
    "gralora": {"r": 4, "gralora_k": 2},
    "road": {"group_size": 4},
}
every_method = pytest.mark.parametrize("method", OPTIONS)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {"q": nn.Linear(WIDTH, 16), "k": nn.Linear(16, WIDTH, bias=False)}
        )
        self.other = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, WIDTH) -> (N, T, WIDTH)
        return self.other(self.block["k"](self.block["q"](x).tanh()).tanh())


@frozen(eq=False)
class Linears:
    """A backbone of three linears, of which two are in a block"""

    denoiser: Network

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, {"block": ("block.q", "block.k")}, query)


@pytest.fixture
def backbone() -> Linears:
    torch.manual_seed(0)
    return Linears(Network().requires_grad_(False))


def draw_input() -> Tensor:
    return torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def trained(method: str, backbone: Linears) -> Adapter:
    adapter = Peft("block", method, OPTIONS[method]).attach(backbone, {}).eval()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.3)
    return adapter


def plainly(method: str, network: nn.Module, adapter: Adapter):
    """peft's own model of the network, with the adapter's tensors, by the names in its file."""
    config = make_config(method, OPTIONS[method])
    config.target_modules = {"block.q", "block.k"}
    model = get_peft_model(deepcopy(network), config)
    state = {f"base_model.model.{name}": tensor for name, tensor in adapter.state_dict().items()}
    found = set_peft_model_state_dict(model, state, adapter_name="default")
    assert not found.unexpected_keys
    saved = get_peft_model_state_dict(model)
    assert saved.keys() == state.keys()
    return model.eval()


def bare(network: Network) -> Network:
    """A copy without hooks."""
    copy = Network().requires_grad_(False)
    copy.load_state_dict(network.state_dict())
    return copy


@every_method
def test_an_update_of_the_layers_own_weights_is_told(method, backbone):
    adapter, x = trained(method, backbone), draw_input()
    layer, linear = adapter.get_submodule("block.q"), backbone.denoiser.block["q"]
    with torch.no_grad():
        before = layer(x) - layer.base_layer(x)
        linear.weight.mul_(2.0).add_(0.3)
        moved = (layer(x) - layer.base_layer(x) - before).abs().max()
    assert (moved > 1e-2) == bool(adapter.read()) and (moved > 1e-2 or moved < 1e-5)
    assert set(adapter.read()) in (set(), {"block.q", "block.k"})


@pytest.mark.parametrize("order", [("tuned", "peft"), ("peft", "tuned")])
@pytest.mark.parametrize("method", ["dora", "loha"])
def test_an_update_of_weights_that_another_adapter_replaces_is_refused(backbone, order, method):
    specs = {"tuned": Weights("block.k"), "peft": Peft("block", method, {"r": 2})}
    components = {name: Component(name, specs[name]) for name in order}
    if method == "loha":
        assert attach_adapters(components, backbone, 0).keys() == specs.keys()
        return
    with pytest.raises(JtError) as caught:
        attach_adapters(components, backbone, 0)
    assert str(caught.value) == (
        f"adapter.{order[1]}: 1 layers, the first 'block.k', are those of {order[0]!r} too, and one"
        " of the two replaces the weights that the other makes its update of; choose `targets` that"
        " do not overlap"
    )


def test_all_methods_are_here():
    assert OPTIONS.keys() == METHODS.keys()


@every_method
@pytest.mark.filterwarnings("ignore:Specified to not load vera_A")
def test_at_scale_1_it_answers_what_peft_answers_with_peft_s_gradients(method, backbone):
    base = bare(backbone.denoiser)
    adapter = trained(method, backbone)
    model, x = plainly(method, base, adapter), draw_input()
    with switched_on({adapter: 1.0}, BATCH):
        found = backbone.denoiser(x)
        found.square().sum().backward()
    expected = model(x)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, base(x), atol=1e-3)
    own = {name: weight.grad for name, weight in adapter.named_parameters()}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            grad = own.pop(name.removeprefix("base_model.model."))
            torch.testing.assert_close(grad, weight.grad, rtol=1e-3, atol=1e-4)
    assert not own


@every_method
def test_each_sample_goes_its_scale_of_the_way(method, backbone):
    base = bare(backbone.denoiser)
    adapter = trained(method, backbone)
    layer, x = backbone.denoiser.block["q"], draw_input()
    with torch.no_grad():
        with switched_on({adapter: 1.0}, BATCH):
            whole = layer(x)
        with switched_on({adapter: torch.tensor([0.0, -0.5]).view(2, 1, 1)}, BATCH):
            found = layer(x)
    plain = base.block["q"](x)
    assert torch.equal(found[0], plain[0])
    torch.testing.assert_close(found[1], plain[1] - 0.5 * (whole - plain)[1])


@every_method
def test_the_linear_s_own_weights_stay_as_they_are(method, backbone):
    before = deepcopy(backbone.denoiser.state_dict())
    adapter = trained(method, backbone)
    with switched_on({adapter: 1.0}, BATCH):
        backbone.denoiser(draw_input()).sum().backward()
    now = backbone.denoiser.state_dict()
    assert now.keys() == before.keys()
    assert all(torch.equal(now[name], before[name]) for name in now)
    assert not {id(p) for p in adapter.parameters()} & {
        id(p) for p in backbone.denoiser.parameters()
    }


def test_dropout_is_on_in_training_alone(backbone):
    adapter = Peft("block", "lora", {"r": 4, "lora_dropout": 0.5}).attach(backbone, {})
    for weight in adapter.parameters():
        nn.init.normal_(weight)

    def twice() -> list[Tensor]:
        with torch.no_grad(), switched_on({adapter: 1.0}, BATCH):
            return [backbone.denoiser(draw_input()) for _ in range(2)]

    adapter.train()
    assert not torch.equal(*twice())
    adapter.eval()
    assert torch.equal(*twice())


def test_peft_s_lora_is_the_plain_lora_that_it_says(backbone):
    adapter = trained("lora", backbone)
    layer, x = backbone.denoiser.block["q"], draw_input()
    down, up = adapter.low_rank()["block.q"]
    with switched_on({adapter: 1.0}, BATCH):
        found = layer(x)
    torch.testing.assert_close(found, layer(x) + x @ down.T @ up.T)


def test_what_no_file_holds_survives_a_network_that_is_elsewhere(backbone):
    whole = trained("oft", backbone)
    backbone.denoiser.to("meta")
    adapter = Peft("block", "oft", OPTIONS["oft"]).attach(backbone, {}).to_empty(device="cpu")
    adapter.load_state_dict(whole.state_dict())
    buffers = [dict(one.named_buffers()) for one in (whole, adapter)]
    assert buffers[0].keys() == buffers[1].keys() and len(buffers[0]) == 4
    assert all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[0])
    lost = Peft("block", "vera", OPTIONS["vera"]).attach(backbone, {})
    with pytest.raises(JtError, match=r"; attach it before the pipeline is offloaded$"):
        lost.to_empty(device="cpu")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lora_alfa": 3}, "peft's LoraConfig has no 'lora_alfa'; did you mean 'lora_alpha'?"),
        ({"r": "8"}, "r: expected int, got '8'"),
        ({"use_rslora": 1}, "use_rslora: expected bool, got 1"),
        ({"target_modules": ["x"]}, "target_modules is not for the recipe to say: `targets` and"),
        ({"bias": "all"}, "bias is not for the recipe to say: "),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa' changes the denoiser's own w"),
    ],
)
def test_an_option_that_peft_does_not_have_is_told_with_the_recipe(
    table, write_recipe, capsys, options, told
):
    joint = {"kind": "peft", "targets": "visual", "method": "lora", "options": options}
    table["adapter"]["joint"] = joint
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"adapter.joint.options: {told}")


def test_what_peft_itself_refuses_is_told(table, write_recipe, capsys):
    options = {"oft_block_size": 5}
    joint = {"kind": "peft", "targets": "visual", "method": "oft", "options": options}
    table["adapter"]["joint"] = joint
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err.startswith(
        "adapter.joint: options: peft's oft: Invalid `oft_block_size` (5)! "
    )


def test_an_unknown_method_is_told_with_the_nearest(table, write_recipe, capsys):
    table["adapter"]["joint"] = {"kind": "peft", "targets": "visual", "method": "dorra"}
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err.startswith("adapter.joint.method: expected 'lora' or 'dora' or ")


@pytest.mark.parametrize("method", ["dora", "vera", "oft"])
def test_a_method_is_trained_saved_and_sampled_again(method, table, jt_run, tmp_path, capsys):
    options = {"dora": {"r": 2}, "vera": {"r": 2}, "oft": {"oft_block_size": 3}}[method]
    joint = {"kind": "peft", "targets": "visual", "method": method, "options": options}
    table["adapter"]["joint"] = joint
    run = jt_run(table, "--quiet")
    found = load_file(run / "adapters/joint.safetensors")
    assert not any("default" in name or "vera_A" in name for name in found)
    asked = ["--prompt", "a wug", "--out", str(tmp_path / "again"), "--quiet"]
    assert cli.sample([str(run), *asked]) == 0, capsys.readouterr().err
    videos = [d / "adapted/00-seed0.mp4" for d in (run / "samples", tmp_path / "again")]
    assert videos[0].read_bytes() == videos[1].read_bytes()


def test_peft_s_lora_is_exported_like_any_plain_lora_and_others_are_not(
    tmp_path, jt_convert, capsys
):
    backbone = {"kind": "wan", "weights": str(build_wan(tmp_path / "wan"))}
    table = {"kind": "peft", "targets": "visual", "method": "lora", "options": {"r": 2}}
    lora = write_adapter(tmp_path / "lora.safetensors", backbone, table)
    converted = load_file(jt_convert(lora, "--to", "kohya"))
    own = load_file(lora)["blocks.0.attn1.to_q.lora_A.weight"]
    assert torch.equal(converted["lora_unet_blocks_0_self_attn_q.lora_down.weight"], own)
    dora = write_adapter(tmp_path / "dora.safetensors", backbone, table | {"method": "dora"})
    capsys.readouterr()
    out = str(tmp_path / "no.safetensors")
    assert cli.convert([str(dora), "--to", "kohya", "--out", out]) == 2
    assert capsys.readouterr().err.startswith(
        f"{dora}: cannot be a plain LoRA: it is no low rank: peft's 'dora' does otherwise; "
    )
