"""Spectra of signals whose spectra are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jtcore.spectrum import frequencies, joint, low_share, radial, spectrum, temporal

N, C, F, H, W = 2, 3, 8, 12, 16
FOLDS = [temporal, radial, joint]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def moving_grating(down: int, across: int, speed: float, frames: int = F) -> np.ndarray:
    """Cycles over the rows and columns, of which `speed` cycles pass in all frames."""
    time, row, column = np.meshgrid(
        np.arange(frames) / frames, np.arange(H) / H, np.arange(W) / W, indexing="ij"
    )
    return np.cos(2 * np.pi * (down * row + across * column - speed * time))[None, None]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9) for _ in range(5)]),
    st.sampled_from(FOLDS),
    st.floats(-3, 3),
)
def test_the_energies_of_a_clip_add_up_to_the_mean_of_its_squares(shape, fold, offset):
    clips = np.random.default_rng(1).standard_normal(shape) + offset
    expected = (clips**2).reshape(shape[0], -1).mean(1)
    np.testing.assert_allclose(fold(clips).total, expected, rtol=1e-6)
    np.testing.assert_allclose(fold(clips).share.total, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("down", "across", "speed"), [(2, 0, 1), (0, 3, 2), (3, 4, -2), (1, -2, 3)]
)
def test_a_moving_grating_is_on_the_plane_of_its_velocity(down, across, speed):
    energy = spectrum(moving_grating(down, across, speed))[0]
    times, rows, columns = frequencies((F, H, W))
    at = {tuple(place) for place in np.argwhere(energy > 1e-12).tolist()}
    assert len(at) == 2
    for time, row, column in at:
        # a phase k x - w t: frequencies in time oppose those in space
        ratio = (times[time] * F, rows[row] * H, columns[column] * W)
        assert ratio in {(-speed, down, across), (speed, -down, -across)}
    np.testing.assert_allclose(energy.sum(), 0.5)  # the mean of a cosine's square


def test_a_still_grating_is_at_frequency_0_in_time_and_a_flicker_at_0_in_space():
    still = temporal(moving_grating(2, 1, 0)).share.energy[0]
    np.testing.assert_allclose(still, [1, 0, 0, 0, 0], atol=1e-12)
    flicker = np.cos(np.pi * np.arange(F)).reshape(1, 1, F, 1, 1) * np.ones((1, 1, F, H, W))
    found = joint(flicker, bands=4).share.energy[0]
    assert found[-1, 0] == pytest.approx(1)  # the fastest there is
    assert joint(flicker).axes[0].values[-1] == 0.5


@pytest.mark.parametrize("frames", [7, 8])
def test_a_frequency_in_time_is_told_once_with_its_negative(frames):
    found = temporal(moving_grating(0, 0, 2, frames))
    assert len(found.axes[0].values) == frames // 2 + 1
    np.testing.assert_allclose(found.axes[0].values[2], 2 / frames)
    np.testing.assert_allclose(found.energy[0, 2], 0.5)


def test_white_noise_has_the_same_energy_at_all_frequencies():
    energy = spectrum(noise(400, 1, F, 8, 8)).mean(0) * F * 64
    assert abs(energy.mean() - 1) < 0.01
    # of 400 draws the mean deviates by 5 %, by 7 % where a frequency is its own negative
    assert abs(energy - 1).max() < 0.35


def test_a_step_falls_as_a_square_wave_of_that_many_frames_does():
    step = np.where(np.arange(256) < 128, 1.0, -1.0).reshape(1, 1, 256, 1, 1)
    energy = temporal(step).energy[0]
    odd = np.arange(1, 20, 2)
    expected = np.sin(np.pi / 256) ** 2 / np.sin(np.pi * odd / 256) ** 2  # nearly 1 / odd^2
    np.testing.assert_allclose(energy[odd] / energy[1], expected)
    np.testing.assert_allclose(energy[2:20:2], 0, atol=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
def test_what_a_clip_is_told_of_does_not_depend_on_its_company(fold):
    clips = noise(N, C, F, H, W)
    alone = np.concatenate([fold(clip[None]).energy for clip in clips])
    np.testing.assert_allclose(fold(clips).energy, alone, rtol=1e-12)


def test_a_tensor_is_taken_as_it_is():
    clips = noise(N, C, F, H, W)
    np.testing.assert_array_equal(radial(torch.from_numpy(clips)).energy, radial(clips).energy)


@pytest.mark.parametrize("fold", FOLDS)
def test_a_window_keeps_the_energy_of_noise_and_takes_that_of_edges(fold):
    clips = noise(20, C, 16, 16, 16)
    ratio = fold(clips, window="hann").total.mean() / fold(clips).total.mean()
    assert abs(ratio - 1) < 0.05
    ramp = np.arange(64.0).reshape(1, 1, 64, 1, 1) * np.ones((1, 1, 64, 2, 2))
    plain, windowed = (temporal(ramp, window=each, centred=True).share for each in ("none", "hann"))
    assert windowed.energy[0, 8:].sum() < 1e-3 < plain.energy[0, 8:].sum()


def test_a_centred_clip_has_nothing_at_frequency_0():
    clips = noise(N, C, F, H, W) + 3
    assert spectrum(clips, centred=True)[:, 0, 0, 0] == pytest.approx(0, abs=1e-20)
    assert (spectrum(clips)[:, 0, 0, 0] > 8).all()
    windowed = spectrum(clips, "hann", centred=True)
    assert windowed[:, 0, 0, 0] == pytest.approx(0, abs=1e-20)


def test_bands_are_told_by_the_middle_of_their_frequencies():
    found = radial(moving_grating(0, 6, 0), bands=8)  # 6 / 16 cycles/pixel
    band = int(found.energy[0].argmax())
    assert abs(found.axes[0].values[band] - 6 / 16) <= 0.5 * 0.5**0.5 / 8
    assert low_share(found, 0.3) == pytest.approx(0)
    assert low_share(found, 0.5) == pytest.approx(1)


def test_frames_a_second_make_hertz_of_cycles():
    axis = temporal(noise(1, 1, 8, 2, 2)).axes[0].in_hertz(16)
    np.testing.assert_allclose(axis.values, [0, 2, 4, 6, 8])
    assert axis.unit == "Hz"


@pytest.mark.parametrize("fold", FOLDS)
def test_a_tensor_in_training_and_in_bfloat16_is_told_of_too(fold):
    clips = torch.from_numpy(noise(N, C, F, H, W)).bfloat16().requires_grad_()
    expected = fold(clips.detach().double().numpy()).energy
    np.testing.assert_array_equal(fold(clips).energy, expected)


@pytest.mark.parametrize("fold", FOLDS)
def test_single_precision_tells_the_same_as_double(fold):
    clips = noise(N, C, F, H, W)
    expected = fold(clips).energy
    np.testing.assert_allclose(fold(clips.astype(np.float32)).energy, expected, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("fold", FOLDS)
def test_what_a_clip_is_told_of_does_not_depend_on_its_device(fold):
    clips = torch.from_numpy(noise(N, C, F, H, W))
    np.testing.assert_array_equal(fold(clips.cuda()).energy, fold(clips).energy)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 0, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected clips \(N, C, F, H, W\)"):
        radial(np.zeros(shape))
