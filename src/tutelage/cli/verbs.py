"""The verbs of the command line; each is a module of this package."""

VERBS = {
    "distill": "train a teacher, the student alone and the distilled student, and compare them",
    "plan": "show what distill would train, reuse and write, without training (same overrides)",
    "budget": "list students that meet a target, measured on this machine (parameters=…, bytes=…, milliseconds=…)",
    "cache": "write a teacher's signals on every training image, for distill to reuse",
    "condense": "make few images that stand for a whole training set, for distill to train on (data.made=…)",
    "evaluate": "measure a network that distill wrote (checkpoint=…)",
    "export": "write a network as safetensors, ONNX, torch.export or int8 files, and measure them (checkpoint=…)",
    "predict": "answer a folder of images or a table of rows with a trained network (checkpoint=…, input=…, output=…)",
    "status": "show the state of the jobs below a folder (DIR…)",
    "report": "compare finished jobs on one page, in markdown and CSV (DIR…)",
}
