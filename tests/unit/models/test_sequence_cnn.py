"""A convolutional network on sequences: padding changes nothing, and what does not fit is one sentence."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError
from tutelage.models.sequence_cnn import SequenceCNN


def test_padding_changes_neither_logits_nor_gradients():
    torch.manual_seed(0)
    net = SequenceCNN([12, 5], 3, widths=(6, 8, 8), hidden=7).double().eval()
    short, noise = torch.randn(2, 9, 5, dtype=torch.float64), torch.randn(2, 20, 5, dtype=torch.float64)
    noise[:, :9] = short
    mask = (torch.arange(20) < 9).expand(2, -1)
    found = []
    for given in ((short, None), (short, torch.ones(2, 9, dtype=torch.bool)), (noise, mask)):
        net.zero_grad()
        logits = net(*given)
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad.clone() for parameter in net.parameters())])
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-9, atol=1e-12)


def test_every_parameter_learns_and_the_comment_gives_their_number():
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        shape = ["+data.strokes_shape=[96,5]", "+data.num_classes=136"]
        tapped = instantiate(compose(overrides=["+model@network=strokes_cnn", *shape]).network)
    told = Path(conf_dir(), "model", "strokes_cnn.yaml").read_text().splitlines()[0]
    assert f"{sum(p.numel() for p in tapped.parameters()):,} parameters at 96 points and 136 classes" in told
    tapped.register_taps(["embedding"])
    batch = {"input": torch.zeros(4, 1, 28, 28), "strokes": torch.randn(4, 96, 5)}
    signals = tapped({**batch, "strokes_mask": torch.ones(4, 96, dtype=torch.bool)})
    assert signals["logits"].shape == (4, 136)
    assert signals["embedding"].shape == (4, 64)
    signals["logits"].logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tapped.parameters())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SequenceCNN([1, 28, 28], 3), r"expected input_shape \[places, features\].*found \[1, 28, 28\]"),
        (lambda: SequenceCNN([9, 5], 3, kernel=4), "an odd kernel"),
        (lambda: SequenceCNN([9, 5], 0), "num_classes must be positive"),
        (lambda: SequenceCNN([9, 5], 3)(torch.zeros(2, 1, 28, 28)), r"reads sequences \[B, places, 5\]; found"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, said):
    with pytest.raises(TutelageError, match=said):
        make()
