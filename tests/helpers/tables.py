"""Small parquet files in the layout of Hugging Face's hub."""

import io
import json

import numpy as np
from PIL import Image


def png(pixels):
    """The bytes of a PNG file of an array [H, W, C] or [H, W]."""
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "png")
    return packed.getvalue()


def write_table(path, images, *, metadata=None, image="img", **columns):
    """Writes images [N, H, W, C] uint8 with further columns; ``metadata`` is the schema's."""
    import pyarrow as pa
    from pyarrow import parquet

    packed = [{"bytes": content if isinstance(content, bytes) else png(content), "path": None} for content in images]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({image: pa.array(packed, kind), **columns}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def pictures(count, size=32, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def class_label(column, names):
    """The schema's metadata of a column of classes, as Hugging Face's library writes it."""
    feature = {"names": names, "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": {column: feature}}})}
