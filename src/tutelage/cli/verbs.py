"""The verbs of the command line; each is a module of this package."""

VERBS = {
    "distill": "train a teacher, the student alone and the distilled student, and compare them",
    "cache": "write what a teacher says of every training image, for distill to find",
    "evaluate": "measure a network that distill wrote (checkpoint=…)",
    "status": "how the jobs below a folder are doing (DIR…)",
    "report": "what finished jobs say together, as one page, markdown and CSV (DIR…)",
}
