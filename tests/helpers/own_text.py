"""Sentences of a stranger's: padded ids, whose label says which of two words is more frequent."""

import torch
from torch.utils.data import Dataset

LONGEST = 9


class Sentences(Dataset):
    """Dicts of input, mask, segment and label, as a tokenizer gives them with ``padding=max_length``."""

    vocab_size = 30
    classes = ("bad", "good")

    def __init__(self, count=256, seed=0):
        chance = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, LONGEST + 1, (count,), generator=chance)
        self.mask = torch.arange(LONGEST) < lengths[:, None]
        ids = torch.randint(2, 12, (count, LONGEST), generator=chance).where(self.mask, 0)
        ids[:, 0] = 1
        good, bad = (((ids == one) & self.mask).sum(1) for one in (2, 3))
        self.label = (good > bad).long()
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, row):
        return {
            "input": self.ids[row], "mask": self.mask[row], "segment": torch.zeros(LONGEST, dtype=torch.long),
            "label": int(self.label[row]),
        }  # fmt: skip
