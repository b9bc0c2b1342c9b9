"""Words with trained vectors, against textual inversion as plain transformers do it."""

import re
from copy import deepcopy
from functools import partial

import pytest
import torch
from attrs import evolve
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from torch import Tensor
from transformers import T5Tokenizer

from jtcore import JtError
from jtcore.adapter import switched_on, told
from jtcore.reading import read
from jtplugins.adapters.token import Token, TokenAdapter
from jtplugins.backbones._vocabulary import Words
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope

CPU = torch.device("cpu")
SPECS = {
    "pocket": lambda folder: Pocket(),
    "clip": lambda folder: ZeroScope(str(build_zeroscope(folder))),
    "t5": lambda folder: CogVideoX(str(cogvideox.build(folder, "5b"))),
    "umt5": lambda folder: Wan(str(build_wan(folder))),
}
PROMPTS = ["a <new1> moves left", "", "<new1> on a <new1>", "a ball moves left"]
HAVE = [0, 2]  # of these, with the word
INITIAL = "wug"


@pytest.fixture(scope="module", params=SPECS)
def spec(request, tmp_path_factory):
    return SPECS[request.param](tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def backbone(spec):
    return spec.load(CPU, torch.float32)


@pytest.fixture(scope="module")
def encoder(spec):
    return spec.load_text_encoder(CPU)


def cached(encoder, replaced, prompts=PROMPTS) -> Tensor:  # (B, L, D)
    return torch.stack([encoder.embed([read(each, replaced).text])[0] for each in prompts])


def trained(adapter: TokenAdapter, seed: int = 7) -> TokenAdapter:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        adapter.vectors.add_(0.3 * torch.randn(adapter.vectors.shape, generator=rng))
    return adapter


def answer(adapters, text, prompts=PROMPTS, scale: float | Tensor = 1.0) -> Tensor:
    with switched_on(dict.fromkeys(adapters, scale), len(prompts)):
        return told(adapters, text, prompts)


class Stock:
    """Textual inversion with the vocabulary made larger by the pieces of the word."""

    def __init__(self, encoder, adapter: TokenAdapter):
        self.encoder = deepcopy(encoder)
        words = [f"<piece{number}>" for number in range(len(adapter.vectors))]
        tokenizer, network = self.encoder.tokenizer, self.encoder.network
        tokenizer.add_tokens(words)
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        self.rows = tokenizer.convert_tokens_to_ids(words)
        self.table = network.get_input_embeddings().weight.requires_grad_()
        with torch.no_grad():
            self.table[self.rows] = adapter.vectors
        self.word = "".join(words) if len(words) > 1 else words[0]

    def embed(self, prompts) -> Tensor:  # (B, L, D), with gradient
        written = [each.replace("<new1>", self.word) for each in prompts]
        return type(self.encoder).embed.__wrapped__(self.encoder, written)


def test_outputs_and_gradients_are_those_of_stock_textual_inversion(backbone, encoder):
    adapter = trained(Token("<new1>", INITIAL).attach(backbone, {}))
    stock = Stock(encoder, adapter)
    found = answer([adapter], cached(encoder, {"<new1>": INITIAL}))
    expected = stock.embed(PROMPTS)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert adapter.vectors.grad.abs().min() > 0
    torch.testing.assert_close(
        adapter.vectors.grad, stock.table.grad[stock.rows], rtol=1e-4, atol=1e-5
    )
    assert all(weight.grad is None for weight in adapter.encoder.network.parameters())


def test_before_training_a_word_means_what_its_initial_word_does(backbone, encoder):
    text = cached(encoder, {"<new1>": INITIAL})
    for where in ("token_embedding", "encoder_output"):
        adapter = Token("<new1>", INITIAL, insert_at=where).attach(backbone, {})
        torch.testing.assert_close(answer([adapter], text), text, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("where", ["token_embedding", "encoder_output"])
def test_prompts_without_the_word_are_left_as_they_are(backbone, encoder, where):
    text = cached(encoder, {"<new1>": INITIAL})
    adapter = trained(Token("<new1>", INITIAL, insert_at=where).attach(backbone, {}))
    changed = [not torch.equal(*pair) for pair in zip(answer([adapter], text), text, strict=True)]
    assert [index for index, each in enumerate(changed) if each] == HAVE
    without = answer([adapter], text[1::2], PROMPTS[1::2])
    assert torch.equal(without, text[1::2])
    without.sum().backward()  # a step may draw such prompts alone
    assert not adapter.vectors.grad.any()


@pytest.mark.parametrize("where", ["token_embedding", "encoder_output"])
def test_at_scale_0_and_off_it_is_the_initial_word_even_with_nan_weights(backbone, encoder, where):
    text = cached(encoder, {"<new1>": INITIAL})
    adapter = Token("<new1>", INITIAL, insert_at=where).attach(backbone, {})
    torch.nn.init.constant_(adapter.vectors, torch.nan)
    assert torch.equal(answer([adapter], text, scale=0.0), text)
    assert torch.equal(adapter.told(text, PROMPTS), text)


def test_at_the_encoders_output_vectors_are_added_where_the_word_is(spec, backbone, encoder):
    adapter = trained(Token("<new1>", INITIAL, insert_at="encoder_output").attach(backbone, {}))
    assert not hasattr(adapter, "encoder")
    text = cached(encoder, {"<new1>": INITIAL})
    found = answer([adapter], text, scale=0.5)
    expected = text.clone()
    count = len(adapter.vectors)
    for index in HAVE:
        spelt = spec.word_positions(PROMPTS[index].replace("<new1>", INITIAL), INITIAL)
        for first in range(0, len(spelt), count):
            expected[index, list(spelt[first : first + count])] += 0.5 * adapter.vectors.detach()
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(adapter.vectors.grad, torch.full_like(adapter.vectors, 0.5 * 3))


def test_a_scale_is_how_far_the_vectors_go_from_the_initial_ones(backbone, encoder):
    text = cached(encoder, {"<new1>": INITIAL})
    adapter = trained(Token("<new1>", INITIAL).attach(backbone, {}))
    between = answer([adapter], text, scale=0.25)
    with torch.no_grad():
        adapter.vectors.copy_(0.75 * adapter.initial + 0.25 * adapter.vectors)
    torch.testing.assert_close(between, answer([adapter], text), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("where", ["token_embedding", "encoder_output"])
def test_each_sample_may_have_a_scale_of_its_own(backbone, encoder, where):
    text = cached(encoder, {"<new1>": INITIAL})
    adapter = trained(Token("<new1>", INITIAL, insert_at=where).attach(backbone, {}))
    scales = torch.tensor([0.5, 1, 1, 1]).view(4, 1, 1)
    found = answer([adapter], text, scale=scales)
    close = partial(torch.testing.assert_close, atol=1e-6, rtol=1e-5)
    close(found[0], answer([adapter], text, scale=0.5)[0])
    close(found[1:], answer([adapter], text)[1:])


def test_words_of_one_prompt_are_read_together_in_any_order(backbone, encoder):
    replaced = {"<new1>": INITIAL, "qq": "a wug wug", "zz": "ball"}
    specs = {
        "one": Token("<new1>", INITIAL),
        "two": Token("qq", "a wug wug", insert_at="encoder_output"),
        "three": Token("zz", "ball"),
    }
    adapters = {}
    for number, (name, spec) in enumerate(specs.items()):
        adapters[name] = trained(spec.attach(backbone, dict(adapters)), number)
    prompts = ["a zz on <new1> qq", "qq <new1>"]
    text = cached(encoder, replaced, prompts)
    together = answer(list(adapters.values()), text, prompts)
    assert torch.equal(together, answer(list(adapters.values())[::-1], text, prompts))
    one, two, three = adapters.values()
    readings = [read(prompt, replaced) for prompt in prompts]
    vectors = encoder.vectors([each.text for each in readings])
    for row, reading in enumerate(readings):
        for adapter in (one, three):
            for tokens in adapter.places(reading):
                vectors[row, tokens] = adapter.vectors.detach()
    expected = encoder.encode(vectors, [each.text for each in readings])
    for row, reading in enumerate(readings):
        for tokens in two.places(reading):
            expected[row, tokens] += two.vectors.detach()
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-5)
    assert one.encoder is three.encoder


def test_a_word_may_have_several_vectors(backbone, encoder):
    adapter = trained(Token("<new1>", INITIAL, vectors=2).attach(backbone, {}))
    text = cached(encoder, {"<new1>": f"{INITIAL} {INITIAL}"})
    assert len(adapter.vectors) == 2 * len(Token("qq", INITIAL).attach(backbone, {}).vectors)
    (answer([adapter], text) * text).sum().backward()
    assert adapter.vectors.grad.abs().amax(1).min() > 0


def test_gradients_are_exact_under_checkpointing_and_layers_run_twice(spec, encoder):
    text, ran = cached(encoder, {"<new1>": INITIAL}), []
    backbone = spec.load(CPU, torch.float32)
    adapter = trained(Token("<new1>", INITIAL).attach(backbone, {}))
    network = adapter.encoder.network
    inner = next(m for n, m in network.named_modules() if n.endswith((".q_proj", ".q")))
    inner.register_forward_hook(lambda *_: ran.append(1))
    for checkpointed in (False, True):
        if checkpointed:
            adapter.checkpoint_gradients()
        adapter.zero_grad()
        (answer([adapter], text) * text).sum().backward()
        if not checkpointed:
            plain = adapter.vectors.grad
    assert torch.equal(adapter.vectors.grad, plain)
    assert len(ran) == 1 + 2


def test_a_backbone_of_shapes_alone_tells_how_many_vectors_there_are(spec, backbone):
    bare = spec.load(torch.device("meta"), torch.float32)
    for where in ("token_embedding", "encoder_output"):
        token = Token("<new1>", INITIAL, insert_at=where)
        found, expected = (token.attach(each, {}).state_dict() for each in (bare, backbone))
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}


def test_in_bfloat16_vectors_stay_float32(spec, encoder):
    adapter = trained(Token("<new1>", INITIAL).attach(spec.load(CPU, torch.bfloat16), {}))
    text = cached(encoder, {"<new1>": INITIAL})
    exact = answer([adapter], text)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = answer([adapter], text)
    assert torch.equal(rounded, exact) and adapter.vectors.dtype == torch.float32


def test_words_that_are_spelt_together_with_what_they_touch_are_told(tmp_path):
    backbone = CogVideoX(str(cogvideox.build(tmp_path, "5b"))).load(CPU, torch.float32)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁ring", -2.0)]
    tokenizer = T5Tokenizer(vocab=[*pieces, ("▁ring,", -2.0), (",", -2.0)], extra_ids=0)
    joined = evolve(backbone, vocabulary=Words(lambda: tokenizer, lambda: 32, None))
    adapter = Token("<new1>", "ring", insert_at="encoder_output").attach(joined, {})
    assert adapter.text_problems(["a <new1>"], ["a <new1> , a", "a <new1>, a"]) == [
        "in 'a ring, a', 'ring' is not spelt as alone; set it apart by spaces from what it touches"
    ]


def test_what_no_caption_has_cannot_be_trained(backbone):
    adapter = Token("<new1>", INITIAL).attach(backbone, {})
    assert adapter.text_problems(["a wug", "a <new1>s"], []) == [
        "no caption that it is trained on has the word '<new1>'"
    ]
    assert adapter.text_problems(["a wug", "a <new1>"], PROMPTS) == []


@pytest.mark.parametrize("kind", [CogVideoX, Wan, ZeroScope])
def test_random_weights_have_no_words(kind):
    backbone = kind("random").load(torch.device("meta"), torch.float32)
    with pytest.raises(JtError, match=r"^a token is read by the text encoder: random weights have"):
        Token("<new1>", "dog").attach(backbone, {})


def test_an_initial_word_that_the_encoder_does_not_know_is_told():
    message = "the text encoder has no tokens for 'doggy'"
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        Token("<new1>", "doggy").attach(Pocket().load(CPU, torch.float32), {})


@pytest.mark.parametrize("said", ["", " dog", "a  dog"])
def test_words_have_single_spaces(said):
    with pytest.raises(ValueError, match=r"word|initial"):
        Token("<new1>", said)
