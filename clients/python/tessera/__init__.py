"""Client of a Tessera text-embedding cluster.

    from tessera import Client

    with Client("tcp://127.0.0.1:7400") as client:
        vectors = client.embed(["edit photos", "send email"], query=True)   # numpy [2, width]

        job = client.submit(lines, key="my-corpus")        # any iterable, of any length
        for result in job:                                 # chunks, in the order they are done
            save(result.first_index, result.vectors)
"""

from .client import Client, EmbedError
from .job import Job, JobResult
from .protocol import ErrorCode, ItemError, Progress, Spec, TesseraError

__all__ = [
    "Client", "EmbedError", "ErrorCode", "ItemError", "Job", "JobResult", "Progress", "Spec",
    "TesseraError",
]
