"""A tiny job of every task, on data of one's own."""

import made_graph

MLP = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[8]")
OWN = ("data=dataset", "data.val_size=100", "data.check=32")
PIXELS, WORDS = ("model@teacher=pixels", "model@student=pixels"), ("model@teacher=words", "model@student=words")
SOFT = ("loss=soft_target",)
MODELS = {
    "pixels": "_target_: own_data.PixelNet\nwidth: 6\n",
    "words": "_target_: own_data.WordNet\nwidth: 8\noutputs: ${data.num_classes}\n",
}
JOBS = {
    "classification": (*MLP, "data.val_size=300", "data.test_size=297"),
    "multilabel": (
        *OWN, *MLP, "data.train={_target_: own_data.answers}", "task=multilabel", "loss=multilabel/bernoulli_kl",
        "data.test_size=100", "data.num_classes=null", "data.num_outputs=2", "data.input_shape=[1,8,8]",
    ),
    "regression": ("data=diabetes", *MLP),
    "segmentation": (
        *OWN, *PIXELS, "data.train={_target_: own_data.ink}", "task=segmentation", "data.test_size=100",
        "data.num_classes=3", "data.input_shape=[1,8,8]", "loss=segmentation/pixelwise", "student.width=4",
    ),
    "token_classification": (
        *OWN, *WORDS, *SOFT, "data.train={_target_: own_data.tags}", "data.test={_target_: own_data.tags, part: test}",
        "task=token_classification", "data.num_classes=3", "data.class_names=[O,B-x,I-x]", "student.width=4",
    ),
    "graph": (
        "data=graph", "data.path=made.npz", "data.train_per_class=8", "data.val_per_class=8", "data.batch_size=20",
        "model@teacher=gcn", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[8]", *SOFT,
        "teacher.net.dropout=0",  # which ranks draw for themselves
    ),
    "language_model": (
        *OWN, *WORDS, *SOFT, "data.train={_target_: own_data.next_words}", "task=language_model",
        "data.test={_target_: own_data.next_words, part: test}", "data.num_classes=20", "student.width=4",
    ),
}  # fmt: skip
HEADLINE = {
    "classification": "accuracy", "graph": "accuracy",
    "multilabel": "map", "regression": "rmse", "segmentation": "miou",
    "token_classification": "accuracy", "language_model": "nll",
}  # fmt: skip
SHORT = (
    "trainer.max_epochs=2", "+trainer.limit_train_batches=4", "trainer.log_every_n_steps=2", "logger=csv",
    "callbacks.progress=null", "callbacks.recovery.every_n_steps=3",
)  # fmt: skip


def write_models(folder):
    """Writes the configs of the networks into ``folder``/conf, and a graph beside it."""
    made_graph.write(folder / "made.npz")
    for name, content in MODELS.items():
        path = folder / "conf" / "model" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
