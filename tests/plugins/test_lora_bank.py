"""Banks of LoRA, one for each file, and the first token of the text, by their formulas."""

import json

import pytest
import torch
from attrs import frozen
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import AdamW

from jtcore import JtError, cli
from jtcore.adapter import Adapter, switched_on
from jtcore.branch import training_only
from jtcore.targets import match_targets
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA

BATCH, TOKENS, WIDTH, OUT, RANK = 3, 5, 8, 6, 2
folded = pytest.mark.parametrize("folded", [1, 4])


@frozen(eq=False)
class OneLayer:
    """A backbone of one linear, which the text's keys are, and which may fold frames"""

    denoiser: nn.Module

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, {"all": ("*",), "text_kv": ("*layer",)}, query)

    def __call__(
        self, on: dict[Adapter, float | Tensor], x: Tensor, files: tuple[int, ...] | None = None
    ) -> Tensor:  # (N, T, WIDTH) -> (N, T, OUT)
        with switched_on(on, BATCH, files):
            return self.denoiser.layer(x)


@pytest.fixture
def backbone() -> OneLayer:
    torch.manual_seed(0)
    denoiser = nn.Module()
    denoiser.layer = nn.Linear(WIDTH, OUT).requires_grad_(False)
    return OneLayer(denoiser)


def trained(spec, backbone: OneLayer) -> tuple[Adapter, dict[str, Tensor]]:
    """In eval mode, with weights of its own, and these by name without the layer's."""
    adapter = spec.attach(backbone, {}).eval()
    for weight in adapter.parameters():
        nn.init.normal_(weight)
    return adapter, {name.removeprefix("layer."): w for name, w in adapter.named_parameters()}


def draw_input(folded: int = 1) -> Tensor:  # (N, T, WIDTH)
    return torch.randn(BATCH * folded, TOKENS, WIDTH)


def update(x: Tensor, w: dict[str, Tensor], member: int) -> Tensor:
    return x @ w[f"{member}.down.weight"].T @ w[f"{member}.up.weight"].T


@folded
@pytest.mark.parametrize("files", [(2, 0, 2), (1, 1, 1)])
def test_in_training_a_sample_has_the_lora_of_its_file(backbone, folded, files):
    adapter, w = trained(LoRA("*layer", RANK, bank=3), backbone)
    x = draw_input(folded)
    added = [update(rows, w, file) for file, rows in zip(files, x.chunk(BATCH), strict=True)]
    found = backbone({adapter: 0.5}, x, files)
    torch.testing.assert_close(found, backbone.denoiser.layer(x) + 0.5 * torch.cat(added))


def test_each_sample_of_a_bank_has_its_own_scale(backbone):
    adapter, w = trained(LoRA("*layer", RANK, bank=2), backbone)
    x, scales = draw_input(), torch.tensor([0.5, 0.0, -2.0])
    found = backbone({adapter: scales.view(BATCH, 1, 1)}, x, (0, 1, 0))
    added = torch.stack([s * update(x[i], w, (0, 1, 0)[i]) for i, s in enumerate(scales)])
    torch.testing.assert_close(found, backbone.denoiser.layer(x) + added)


def test_gates_of_a_bank_are_those_of_the_samples_file(backbone):
    adapter, w = trained(GLoRA("*layer", RANK, bank=2), backbone)
    x, files = draw_input(), (1, 0, 1)
    gates = [torch.sigmoid(x[i] @ w[f"{f}.gate.weight"].T).mean() for i, f in enumerate(files)]
    added = torch.stack([gates[i] * update(x[i], w, f) for i, f in enumerate(files)])
    torch.testing.assert_close(
        backbone({adapter: 1.0}, x, files) - backbone.denoiser.layer(x), added
    )


@pytest.mark.parametrize("member", [None, 0, 1])
def test_outside_training_one_member_acts_or_none(backbone, member):
    adapter, w = trained(LoRA("*layer", RANK, bank=2, member=member), backbone)
    x = draw_input()
    bare = backbone.denoiser.layer(x)
    expected = bare if member is None else bare + update(x, w, member)
    found = backbone({adapter: 1.0}, x)
    assert torch.equal(found, bare) if member is None else torch.allclose(found, expected)


def test_a_gate_over_the_batch_is_refused_with_a_bank():
    with pytest.raises(
        ValueError, match=r'^expected gate_over = "sample" with a bank: samples that'
    ):
        GLoRA("*layer", bank=2, gate_over="batch")


def test_a_member_is_exactly_the_lora_that_it_would_be_alone(backbone):
    bank, w = trained(LoRA("*layer", RANK, bank=2, member=1), backbone)
    alone = LoRA("*layer", RANK).attach(backbone, {}).eval()
    alone.load_state_dict({f"layer.{k}.weight": w[f"1.{k}.weight"] for k in ("down", "up")})
    with torch.no_grad():
        w["0.up.weight"].fill_(torch.nan)  # nobody looks at it
    x = draw_input()
    assert torch.equal(backbone({bank: 0.7}, x), backbone({alone: 0.7}, x))
    assert all(map(torch.equal, *(one.low_rank()["layer"] for one in (bank, alone))))


def test_a_bank_of_which_none_is_chosen_is_no_plain_lora(backbone):
    adapter, _ = trained(LoRA("*layer", RANK, bank=2), backbone)
    with pytest.raises(JtError, match=r"^it is a bank of 2, of which no `member` is chosen$"):
        adapter.low_rank()


def test_an_optimizer_moves_the_lora_of_the_file_alone(backbone):
    adapter, w = trained(LoRA("*layer", RANK, bank=3), backbone)
    optimizer = AdamW(adapter.parameters(), lr=0.1, weight_decay=0.5)
    before = {name: weight.clone() for name, weight in w.items()}
    for _ in range(2):
        optimizer.zero_grad()
        backbone({adapter: 1.0}, draw_input(), (1, 1, 1)).square().mean().backward()
        optimizer.step()
    moved = {name for name in w if not torch.equal(w[name], before[name])}
    assert moved == {"1.down.weight", "1.up.weight"}


def test_a_pass_that_trains_the_motion_gives_the_appearance_no_gradient(backbone):
    spatial, _ = trained(LoRA("*layer", RANK, bank=3), backbone)
    temporal, _ = trained(LoRA("*layer", RANK), backbone)
    with training_only({"spatial": spatial, "temporal": temporal}, ("temporal",)):
        backbone({spatial: 1.0, temporal: 1.0}, draw_input(), (0, 1, 2)).square().mean().backward()
    assert all(weight.grad is None for weight in spatial.parameters())
    assert all(weight.grad.any() for weight in temporal.parameters())


@folded
def test_the_first_token_of_the_text_gives_no_gradient_and_is_changed_like_the_others(
    backbone, folded
):
    plain, w = trained(LoRA("*layer", RANK), backbone)
    detached, own = trained(LoRA("*layer", RANK, detach_first_token=True), backbone)
    detached.load_state_dict(plain.state_dict())
    x, weight = draw_input(folded), torch.randn(BATCH * folded, TOKENS, OUT)
    assert torch.equal(backbone({detached: 1.0}, x), backbone({plain: 1.0}, x))
    (backbone({detached: 1.0}, x) * weight).sum().backward()
    rest, at = x[:, 1:].flatten(0, 1), weight[:, 1:].flatten(0, 1)  # the formula's gradients
    down, up = w["down.weight"], w["up.weight"]
    torch.testing.assert_close(own["up.weight"].grad, at.T @ (rest @ down.T))
    torch.testing.assert_close(own["down.weight"].grad, (at @ up).T @ rest)


def test_only_keys_and_values_of_the_text_are_detached():
    class TwoLayers(OneLayer):
        def targets(self, query: str) -> dict[str, nn.Module]:
            return match_targets(self.denoiser, {"text_kv": ("*keys",)}, query)

    denoiser = nn.Module()
    denoiser.keys, denoiser.queries = (nn.Linear(4, 4, bias=False) for _ in range(2))
    adapter = LoRA(("*keys", "*queries"), 2, dropout=0.0, detach_first_token=True).attach(
        TwoLayers(denoiser), {}
    )
    for weight in adapter.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 1, 4)  # one token: the first
    with switched_on({adapter: 1.0}, 2):
        (denoiser.keys(x).sum() + denoiser.queries(x).sum()).backward()
    reached = {n.split(".")[0] for n, w in adapter.named_parameters() if w.grad.any()}
    assert reached == {"queries"}


def test_without_keys_of_the_text_there_is_nothing_to_detach():
    denoiser = nn.Module()
    denoiser.keys, denoiser.queries = (nn.Linear(4, 4) for _ in range(2))

    class TwoLayers(OneLayer):
        def targets(self, query: str) -> dict[str, nn.Module]:
            return match_targets(self.denoiser, {"text_kv": ("*keys",)}, query)

    with pytest.raises(JtError) as caught:
        LoRA("*queries", 2, detach_first_token=True).attach(TwoLayers(denoiser), {})
    assert str(caught.value) == (
        "detach_first_token: none of the targets answers keys or values of the text; add the role"
        " 'text_kv', or leave it out"
    )


def with_bank(table: dict, **options) -> dict:
    table["adapter"]["joint"] = {"kind": "lora", "targets": "visual", "rank": 2, **options}
    return table


def test_a_bank_is_trained_and_found_by_name(table, jt_run, capsys):
    run = jt_run(with_bank(table, bank=2), "--quiet")
    tensors = load_file(run / "adapters/joint.safetensors")
    names = {
        f"{layer}.{member}.{part}.weight"
        for layer in ("inner", "outer")
        for member in (0, 1)
        for part in ("down", "up")
    }
    assert tensors.keys() == names
    assert all(tensors[f"outer.{member}.up.weight"].any() for member in (0, 1))
    rows = json.loads((run / "metrics.json").read_text())["samples"]
    assert [row["model"] for row in rows] == ["base", "adapted"]
    pairs = [(run / "samples" / row["file"]).read_bytes() for row in rows]
    assert pairs[0] == pairs[1]  # none of the members is on
    capsys.readouterr()


def test_a_member_of_a_bank_is_on_where_it_is_chosen(table, jt_run):
    run = jt_run(with_bank(table, bank=2, member=1), "--quiet")
    files = [run / "samples" / model / "00-seed0.mp4" for model in ("base", "adapted")]
    assert files[0].read_bytes() != files[1].read_bytes()


def test_a_bank_must_have_as_many_members_as_the_data_has_files(table, write_recipe, capsys):
    recipe = write_recipe(with_bank(table, bank=3))
    assert cli.run([str(recipe), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"adapter.joint.bank: 3 members, one for each file, do not fit data.{data}, which has 2"
        for data in ("subject", "motion")
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"member": 0}, "adapter.joint.member: is of a bank, and `bank` is not given"),
        (
            {"bank": 2, "member": 2},
            "adapter.joint.member: expected 0 to 1, as `bank` is 2",
        ),
        ({"bank": 0}, "adapter.joint.bank: must be >= 1: 0"),
    ],
)
def test_a_member_that_is_not_there_is_told(table, write_recipe, capsys, options, told):
    assert cli.run([str(write_recipe(with_bank(table, **options))), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [told]
