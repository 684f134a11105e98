"""Keys of a config that its ``_target_`` does not take, or that are no truth values."""

import pytest

from tutelage.config.validate import check
from tutelage.errors import TutelageError


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+data.feilds=1"], r"data\.feilds: .* takes no 'feilds'"),
        (["+data.val_sise=3"], r"data\.val_sise: .* takes no 'val_sise'; did you mean 'val_size'"),
        (["data.drop_last=flase"], r"data\.drop_last must be true or false; found 'flase'"),
        (["reuse=flase"], r"reuse must be true or false; found 'flase'"),
        (["loss=fitnet", "loss.terms.hint.loss.rectify=ja"], r"loss\.terms\.hint\.loss\.rectify must be true or false"),
    ],
)
def test_a_sentence_names_the_key(compose, overrides, said):
    with pytest.raises(TutelageError, match=said):
        check(compose(*overrides), overrides)
