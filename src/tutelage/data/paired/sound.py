"""Sound as pictures: log-mel spectrograms of recordings, in plain torch."""

import torch
from torch import Tensor

_LEAST = 1e-5  # below the quietest power that counts, of sound in [−1, 1]


def mel_filters(bands: int, bins: int, rate: int) -> Tensor:
    """Returns triangular filters of equal width on the mel scale, 2595·log10(1 + f/700), from 0 to half the rate.

    Args:
        bands: M.
        bins: F, frequencies of a spectrum from 0 to half the rate.
        rate: samples a second.

    Returns:
        [M, F] float32; the highest point of a filter is 1.
    """
    top = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    below, centre, above = (corners[i : i + bands, None] for i in range(3))
    rising, falling = (frequencies - below) / (centre - below), (above - frequencies) / (above - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def log_mel(samples: Tensor, rate: int, bands: int, frames: int, window: int = 256, hop: int = 128) -> Tensor:
    """Returns the log-mel spectrogram of a recording, standardised, its middle cut out or silence around it.

    Args:
        samples: [T] float32 in [−1, 1].
        rate: samples a second.
        bands: M, of the mel scale.
        frames: F, number of windows.
        window: samples of a Hann window.
        hop: samples from one window to the next.

    Returns:
        [1, M, F] float32, of mean 0 and standard deviation 1 (0 everywhere for silence).
    """
    wanted = hop * (frames - 1)
    before = (wanted - len(samples)) // 2
    whole = torch.nn.functional.pad(samples, (before, wanted - len(samples) - before))  # negative: cuts
    spectrum = torch.stft(
        whole, window, hop, window=torch.hann_window(window), center=True, pad_mode="constant", return_complex=True
    )
    power = mel_filters(bands, window // 2 + 1, rate) @ spectrum.abs().square()
    found = power.clamp(min=_LEAST).log()
    return ((found - found.mean()) / found.std().clamp(min=1e-6))[None]
