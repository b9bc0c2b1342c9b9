"""Words with trained vectors in whole runs."""

from pathlib import Path

import pytest
import torch
from checkpoints.adapters import write_adapter
from checkpoints.stock import own_pipeline
from checkpoints.unet import build_zeroscope
from safetensors.torch import load_file

from jtcore import JtError, cli, load_adapters
from jtcore.check import check
from jtcore.recipe import build_recipe
from jtplugins.adapters.token import Token
from jtplugins.backbones.pocket import Pocket


@pytest.fixture
def token_table(table: dict) -> dict:
    """A recipe that trains a word of pocket, with both halves of guidance, and validates it."""
    table["backbone"] = {"kind": "pocket"}
    table["adapter"] = {"joint": {"kind": "token", "word": "sks creature", "initial": "creature"}}
    branch = table["stage"]["joint"]["branch"]["joint"]
    branch |= {"data": ["subject"], "losses": {"appearance": {"kind": "diffusion"}}}
    table["stage"]["joint"] |= {"lr": 0.5, "steps": 2}
    table["sample"] |= {"prompts": ["a sks creature moves left", "a ball moves left"], "frames": 2}
    table["validation"] = {"data": ["held_out"], "draws": 1}
    del table["metric"], table["data"]["motion"]
    return table


def videos(folder: Path, model: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / model).glob("*.mp4"))]


@pytest.mark.parametrize("where", ["token_embedding", "encoder_output"])
def test_a_word_is_trained_validated_sampled_and_sampled_again(token_table, where, jt_run, capsys):
    token_table["adapter"]["joint"]["insert_at"] = where
    run = jt_run(token_table)
    base, adapted = (videos(run / "samples", model) for model in ("base", "adapted"))
    assert base[0] != adapted[0] and base[1] == adapted[1]  # the second prompt has not the word
    again = run.parent / "again"
    prompts = [part for each in token_table["sample"]["prompts"] for part in ("--prompt", each)]
    assert cli.sample([str(run), *prompts, "--out", str(again), "--quiet"]) == 0, (
        capsys.readouterr().err
    )
    assert videos(again, "adapted") == adapted
    text = (run / "metrics.json").read_text()
    assert '"joint.moved"' in text or '"joint.length"' in text


def test_adamw_decays_the_words_vectors_and_nothing_of_the_vocabulary(token_table, jt_run):
    """With no gradient to speak of, one step of decay is (1 - lr decay) vectors."""
    token_table["stage"]["joint"] |= {"steps": 1, "lr": 1e-6, "weight_decay": 2e5}
    found = load_file(jt_run(token_table) / "adapters/joint.safetensors")
    torch.testing.assert_close(found["vectors"], 0.8 * found["initial"], atol=1e-5, rtol=0)
    encoder = Pocket().load_text_encoder(torch.device("cpu"))
    assert torch.equal(found["initial"], encoder.vectors(["creature"])[0, :1])


def test_checkpointed_runs_train_the_same_word(token_table, jt_run):
    token_table["sample"]["prompts"] = ["a ball moves left"]
    token_table["engine"] = {"threads": 1}
    plain = load_file(jt_run(token_table) / "adapters/joint.safetensors")
    token_table["engine"]["gradient_checkpointing"] = True
    checkpointed = load_file(jt_run(token_table, name="two") / "adapters/joint.safetensors")
    assert torch.equal(plain["vectors"], checkpointed["vectors"])


def test_a_step_whose_captions_are_all_dropped_trains_nothing(token_table, jt_run):
    token_table["stage"]["joint"]["branch"]["joint"]["drop_text"] = 1.0
    token_table["stage"]["joint"]["weight_decay"] = 0.0
    found = load_file(jt_run(token_table) / "adapters/joint.safetensors")
    assert torch.equal(found["vectors"], found["initial"])


def problems(table: dict, plugins) -> list[str]:
    with pytest.raises(JtError) as caught:
        check(build_recipe(table, plugins))
    return list(caught.value.problems)


def test_a_word_that_no_caption_has_is_told_by_the_check(token_table, plugins):
    token_table["adapter"]["joint"]["word"] = "<new1>"
    assert problems(token_table, plugins) == [
        "adapter.joint: no caption that it is trained on has the word '<new1>'"
    ]


def test_an_initial_word_that_pocket_does_not_know_is_told_by_the_check(token_table, plugins):
    token_table["adapter"]["joint"]["initial"] = "doggy"
    found = problems(token_table, plugins)
    assert "adapter.joint: the text encoder has no tokens for 'doggy'" in found
    assert all("'doggy'" in problem for problem in found)


def test_a_new_word_is_admissible_in_captions_and_prompts_of_a_closed_vocabulary(
    token_table, plugins
):
    token_table["adapter"]["joint"]["word"] = "<new1>"
    token_table["data"]["subject"]["prompt"] = "a <new1> stays at mid on navy"
    token_table["sample"]["prompts"] = ["a <new1> moves left", "a <new2> moves left"]
    assert problems(token_table, plugins) == [
        "sample.prompts: 'a <new2> moves left' has words that pocket does not know: '<new2>';"
        " see `jt-pocket list`"
    ]


def test_one_word_of_two_adapters_is_told_by_the_check(token_table, plugins):
    token_table["adapter"]["other"] = token_table["adapter"]["joint"]
    token_table["stage"]["joint"]["branch"]["joint"]["adapters"] = ["joint", "other"]
    found = problems(token_table, plugins)
    assert "adapter.other: 'sks creature' is a word of adapter.joint too" in found


def test_a_stock_pipeline_is_told_that_it_reads_prompts_itself(tmp_path):
    from diffusers import TextToVideoSDPipeline

    weights = build_zeroscope(tmp_path / "zeroscope")
    file = write_adapter(
        tmp_path / "word.safetensors",
        {"kind": "zeroscope", "weights": str(weights)},
        {"kind": "token", "word": "<new1>", "initial": "wug"},
    )
    with pytest.raises(
        JtError, match=r"and a pipeline asks its own before the denoiser; sample wi"
    ):
        load_adapters(own_pipeline(TextToVideoSDPipeline, weights), file)


def test_names_of_its_tensors_and_its_randomness_are_its_own():
    backbone = Pocket().load(torch.device("cpu"), torch.float32)
    before = torch.get_rng_state()
    first = Token("sks", "creature").attach(backbone, {})
    second = Token("zwx", "creature").attach(backbone, {"first": first})
    assert list(first.state_dict()) == list(second.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(JtError, match=r"^TokenAdapter says of no linear that it is a plain LoRA"):
        first.low_rank()
