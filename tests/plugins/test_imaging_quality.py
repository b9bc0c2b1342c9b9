"""MUSIQ and the imaging quality that it says of videos."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from checkpoints.quality import TINY, build_amt, build_musiq, drawn_picture, filled
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from jtcore.types import Sample
from jtplugins.metrics._musiq import MUSIQ, Block, Sizes, StandardisedConv, hashed_places, patches
from jtplugins.metrics.imaging_quality import ImagingQuality, shrunk

CPU = torch.device("cpu")
PUBLISHED = "40407b83c930407df0bf02e2cc2eb44146b9de66681e1e6deb8d56b814eb5c72"
GET = (
    "get musiq_spaq_ckpt-358bb6af.pth by `hf download chaofengc/IQA-PyTorch-Weights"
    " musiq_spaq_ckpt-358bb6af.pth --local-dir FOLDER` and set model to the folder or the file"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return build_musiq(tmp_path_factory.mktemp("musiq"))


@pytest.fixture(scope="module")
def network() -> MUSIQ:
    network = MUSIQ(TINY)
    network.load_state_dict(filled(network.state_dict()))
    return network.requires_grad_(False).eval()


def quality(model: Path, video: torch.Tensor, **options) -> float:  # (3, F, H, W)
    metric = ImagingQuality(model=str(model), **options).load(CPU)
    return metric(Sample(video, "a dog", 0, 8.0))["imaging_quality"]


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        tensors = MUSIQ(Sizes()).state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    assert len(lines) == 248
    assert sum(tensor.numel() for tensor in tensors.values()) == 27_125_825
    assert sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED


def test_the_score_is_what_the_network_of_pyiqa_says(network):
    """Computed once by pyiqa 0.1.16 with these weights, in double precision."""
    pictures = torch.stack([drawn_picture(3, 45, 70, seed=seed) for seed in (1, 2)])
    scores = MUSIQ(TINY).double()
    scores.load_state_dict(network.state_dict())
    said = scores(pictures.double()).tolist()
    assert said == pytest.approx([-1.2169042593251143, -1.1223197488818117], abs=1e-9)


def test_patches_are_cut_row_by_row_with_grey_around():
    picture = drawn_picture(1, 3, 70, 33)
    cut, rows, columns = patches(picture)
    assert (rows, columns) == (3, 2)
    filled_up = torch.zeros(3, 96, 64)
    filled_up[:, 13:83, 15:48] = picture[0]  # of 26 and 31 px the odd one is put after
    for row in range(rows):
        for column in range(columns):
            there = filled_up[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert torch.equal(cut[0, row * columns + column], there)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 7), (7, 12), (16, 9), (23, 10)])
def test_places_are_those_of_a_grid_of_ten_by_ten_stretched_over_the_patches(rows, columns):
    expected = [
        (row * 10 // rows) * 10 + column * 10 // columns
        for row in range(rows)
        for column in range(columns)
    ]
    assert hashed_places(rows, columns, grid=10).tolist() == expected


def test_filters_are_standardised_with_the_deviation_of_a_sample():
    layer = StandardisedConv(2, 3, 3)
    picture = drawn_picture(1, 2, 4, 5)
    expected = torch.zeros(3, 4, 5)
    padded = functional.pad(picture[0], (1, 1, 1, 1))
    for out, kernel in enumerate(layer.weight.detach()):
        mean = kernel.sum() / 18
        deviation = ((kernel - mean).square().sum() / 17).sqrt()
        for row in range(4):
            for column in range(5):
                seen = padded[:, row : row + 3, column : column + 3]
                expected[out, row, column] = ((kernel - mean) / (deviation + 1e-5) * seen).sum()
    torch.testing.assert_close(layer(picture)[0].detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_block_is_torchs_own_transformer_layer():
    block = Block(128, 96)
    layer = nn.TransformerEncoderLayer(
        128, 2, 96, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    parts = [getattr(block.attention, name) for name in ("query", "key", "value")]
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        layer.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    for mine, torchs in (
        (block.attention.out, layer.self_attn.out_proj),
        (block.mlp["fc1"], layer.linear1),
        (block.mlp["fc2"], layer.linear2),
    ):
        torchs.load_state_dict(mine.state_dict())
    tokens = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(tokens), layer(tokens), atol=1e-5, rtol=1e-5)


def test_a_longer_side_above_512_px_is_scaled_bilinearly_and_not_antialiased():
    rows = torch.arange(1024.0).view(1, 1, -1, 1).expand(1, 3, -1, 3)
    scaled = shrunk(rows)
    assert scaled.shape == (1, 3, 512, 1)
    assert torch.equal(scaled[0, 0, :, 0], 2 * torch.arange(512.0) + 0.5)  # between two rows
    spike = torch.zeros(1, 1, 2048, 4)
    spike[:, :, 4::4] = 1  # antialiasing would see it
    assert shrunk(spike).max() == 0
    assert torch.equal(shrunk(spike[:, :, :512]), spike[:, :, :512])
    assert shrunk(torch.zeros(1, 1, 486, 701)).shape == (1, 1, 354, 512)  # of 354.97


def test_quality_is_the_mean_of_all_frames_however_many_go_at_once(model, network):
    video = torch.stack([drawn_picture(3, 8, 60, seed=seed) for seed in range(3)], 1)
    alone = [network(video[:, None, index].movedim(1, 0)).item() for index in range(3)]
    expected = sum(alone) / 3 / 100
    assert quality(model, video, batch=1) == pytest.approx(expected, abs=1e-7)
    assert quality(model, video, batch=2) == pytest.approx(expected, abs=1e-7)
    assert quality(model, video, frames=2.0) == pytest.approx(alone[0] / 100, abs=1e-7)


def test_a_file_may_hold_its_tensors_deeper_or_as_safetensors(model, tmp_path):
    video = drawn_picture(3, 1, 8, 60)
    tensors = torch.load(model, weights_only=True)
    deeper = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"params": deeper}, tmp_path / "deeper.pth")
    save_file(tensors, tmp_path / "safe.safetensors")
    expected = quality(model, video)
    assert quality(tmp_path / "deeper.pth", video) == expected
    assert quality(tmp_path / "safe.safetensors", video) == expected
    assert quality(model.parent, video) == expected


def test_weights_are_told_apart_by_what_is_in_their_file(model, tmp_path):
    tensors = torch.load(model, weights_only=True)
    torch.save(tensors | {"head.bias": tensors["head.bias"] + 1}, tmp_path / "other.pth")
    one, same, other = (
        ImagingQuality(model=str(path)).identity()
        for path in (model, model.parent, tmp_path / "other.pth")
    )
    assert one == same != other
    assert ImagingQuality(model=str(model)).files() == [model]


def test_a_model_that_is_not_there_is_one_problem_that_says_how_to_get_it(tmp_path):
    for name, what in (("nowhere", "is no file, folder or hub id"), (str(tmp_path), "has no ...")):
        told = what.replace("...", "musiq_spaq_ckpt-358bb6af.pth")
        assert ImagingQuality(model=name).problems() == [f"model: {name!r} {told}; {GET}"]


def test_a_file_of_another_network_is_told_before_anything_is_measured(tmp_path):
    path = build_amt(tmp_path)
    assert ImagingQuality(model=str(path)).problems() == [
        f"model: {path} does not fit MUSIQ: conv_root.weight is missing, gn_root.weight is"
        " missing, gn_root.bias is missing and 458 more"
    ]


def test_a_tensor_of_another_shape_is_told(model, tmp_path):
    path = tmp_path / "wrong.pth"
    torch.save(torch.load(model, weights_only=True) | {"head.bias": torch.zeros(10)}, path)
    assert ImagingQuality(model=str(path)).problems() == [
        f"model: {path} does not fit MUSIQ: head.bias is (10,), expected (1,)"
    ]


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "musiq_spaq_ckpt-358bb6af.pth"
    torch.save({"head.bias": Path("/")}, path)
    (problem,) = ImagingQuality(model=str(path)).problems()
    assert problem.startswith(f"model: {path} is no file of tensors that can be read: ")


def test_a_whole_file_of_the_right_network_has_no_problem(model):
    assert ImagingQuality(model=str(model)).problems() == []
