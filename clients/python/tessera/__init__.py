"""Client of a Tessera text-embedding cluster.

    from tessera import Client

    with Client("tcp://127.0.0.1:7400") as client:
        vectors = client.embed(["edit photos", "send email"], query=True)   # numpy [2, width]

        job = client.submit(lines, key="my-corpus")        # any iterable, of any length
        for result in job:                                 # chunks, in the order they are done
            save(result.first_index, result.vectors)

A client works in any number of threads, survives forks and pickling, and closes itself when it is
dropped. Errors are TesseraError with a code; wrong arguments are TypeError or ValueError.
"""

from .arguments import Spec
from .client import Client
from .errors import EmbedError, ErrorCode, ItemError, JobConflict, TesseraError
from .job import Job, JobResult
from .protocol import Progress, Results

__all__ = [
    "Client", "EmbedError", "ErrorCode", "ItemError", "Job", "JobConflict", "JobResult", "Progress",
    "Results", "Spec", "TesseraError",
]
