"""Keys of a data config by what they decide."""

# What `${found:…}` answers.
FACTS = (
    "num_classes", "num_outputs", "input_shape", "vocab_size", "tokenizer_digest", "student_vocab_size",
    "student_tokenizer_digest",
)  # fmt: skip
# Of the run, not of what the data are.
OF_THE_RUN = {
    "seed", "batch_size", "eval_batch_size", "num_workers", "drop_last", "repeat", "views", "focus",
    "labelled", "repeat_labelled", "classes", "long_tail", "unlabelled", "made", "val_size", "split_seed",
}  # fmt: skip
