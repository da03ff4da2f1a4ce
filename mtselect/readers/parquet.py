"""parquet: streams in batches, and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from mtselect.errors import DataError
from mtselect.readers._arrow import BATCH_ROWS, batch_records, top_columns
from mtselect.readers.base import FileReader, SourceRecord


class Parquet(FileReader):
    """By pyarrow."""

    suffixes = (".parquet",)
    zipped = False

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        path = self.path(source)
        try:
            with pq.ParquetFile(path) as file:
                names = top_columns(file.schema_arrow.names, columns)
                yield from batch_records(file.iter_batches(batch_size=BATCH_ROWS, columns=names))
        except ArrowException as error:
            raise DataError(f"{path} must be a Parquet file, got one that cannot be read ({error}): "
                            "write it again, or give another source") from error

    def count(self, source: str) -> int:
        """As its footer has it."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.path(source)).num_rows)


READER = Parquet
