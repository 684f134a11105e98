"""Ids of tokens that weights were made for, as a file beside them says."""

import json
from dataclasses import dataclass

from tutelage.data.text.found_files import only_file
from tutelage.errors import TutelageError


@dataclass(frozen=True)
class TokenIds:
    """The ids of the tokens of a file. A network that carries one as ``token_ids`` reads these ids and no others.

    Args:
        source: a ``tokenizer.json``, a text file with a token a line (the first has id 0), a folder or an installed
            package with a ``tokenizer.json``.
        key: of the config that names it, for messages.
    """

    source: str
    key: str

    def read(self) -> dict[str, int]:
        """Returns token → id.

        Raises:
            TutelageError: the file is not there or has another form.
        """
        file = only_file(self.source, "tokenizer.json", self.key)
        if file.suffix != ".json":
            return {token: id for id, token in enumerate(file.read_text(encoding="utf-8").splitlines())}
        try:
            vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
        except (ValueError, KeyError, TypeError) as error:
            raise TutelageError(f"{self.key}: {file} is no tokenizer.json with model.vocab") from error
        if isinstance(vocabulary, dict):
            return vocabulary
        return {str(token): id for id, (token, *_) in enumerate(vocabulary)}  # Unigram: pairs of token and score
