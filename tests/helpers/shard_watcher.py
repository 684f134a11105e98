"""A callback that looks at what a rank holds of each network."""

import json
from pathlib import Path

import lightning as L
from torch.distributed.tensor import DTensor


class WriteShards(L.Callback):
    """``<folder>/<stage>-<rank>.json``, inside a training: source → names without shards, parameters here, of all."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step != 2:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        said = {}
        for name, source in pl_module.sources().items():
            parameters = dict(source.net.net.named_parameters())
            shards = [p for p in parameters.values() if isinstance(p, DTensor)]
            said[name] = {
                "whole": [name for name, p in parameters.items() if not isinstance(p, DTensor)],
                "here": sum(p.to_local().numel() for p in shards),
                "all": sum(p.numel() for p in shards),
            }
        path = self.folder / f"{pl_module.about['stage']}-{trainer.global_rank}.json"
        path.write_text(json.dumps(said))
