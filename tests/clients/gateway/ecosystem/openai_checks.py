"""The published `openai` client, unchanged, against a gateway; run by ecosystem.py in a virtual
environment that has it. argv: URL KEY (known) WRONG_KEY."""

import json
import sys
import threading
import time

import numpy as np
import openai

MODEL = "demo-model"
WIDTH = 256


def main():
    url, key, wrong_key = sys.argv[1:]
    client = openai.OpenAI(base_url=url + "/v1", api_key=key)
    single(client)
    many(client)
    formats(client)
    errors(client, url, wrong_key)
    raw(client)
    batches(client)
    asynchronous(url, key)
    print(f"openai {openai.__version__}: all as it should be")


def single(client):
    answer = client.embeddings.create(model=MODEL, input="edit photos")
    assert len(answer.data) == 1 and len(answer.data[0].embedding) == WIDTH
    assert answer.model == MODEL and answer.usage.prompt_tokens == answer.usage.total_tokens > 1
    models = client.models.list().data
    assert [m.id for m in models] == [MODEL] and client.models.retrieve(MODEL).id == MODEL


def many(client):
    texts = [f"text {i}" for i in range(2048)]
    answer = client.embeddings.create(model=MODEL, input=texts)  # Asks for base64 by itself.
    assert [d.index for d in answer.data] == list(range(2048))
    for i in (0, 1000, 2047):
        one = client.embeddings.create(model=MODEL, input=texts[i]).data[0].embedding
        np.testing.assert_array_equal(np.float32(one), np.float32(answer.data[i].embedding))


def formats(client):
    by_base64 = client.embeddings.create(model=MODEL, input=["a", "b"]).data
    by_floats = client.embeddings.create(model=MODEL, input=["a", "b"],
                                         encoding_format="float").data
    for one, other in zip(by_base64, by_floats):
        np.testing.assert_array_equal(np.float32(one.embedding), np.float32(other.embedding))
    coded = client.embeddings.create(model=MODEL, input="a", encoding_format="base64")
    assert isinstance(coded.data[0].embedding, str)
    narrow = client.embeddings.create(model=MODEL, input="a", dimensions=64, user="me").data[0]
    full = np.array(by_base64[0].embedding)
    np.testing.assert_allclose(narrow.embedding, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)
    extended = client.embeddings.create(model=MODEL, input="a",
                                        extra_body={"input_type": "query", "truncate": True})
    assert extended.data[0].embedding != by_base64[0].embedding


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def errors(client, url, wrong_key):
    create = client.embeddings.create
    bad = refused(openai.BadRequestError, lambda: create(model=MODEL, input=""))
    assert bad.param == "input" and bad.code == "empty_input" and bad.request_id
    assert "input[0]" in bad.message and bad.type == "invalid_request_error"
    long = refused(openai.BadRequestError, lambda: create(model=MODEL, input="word " * 9000))
    assert long.code == "context_length_exceeded"
    ids = refused(openai.BadRequestError, lambda: create(model=MODEL, input=[[1, 2]]))
    assert "check_embedding_ctx_length=False" in ids.message
    missing = refused(openai.NotFoundError, lambda: create(model="other", input="a"))
    assert missing.code == "model_not_found"
    stranger = openai.OpenAI(base_url=url + "/v1", api_key=wrong_key)
    unknown = refused(openai.AuthenticationError,
                      lambda: stranger.embeddings.create(model=MODEL, input="a"))
    assert unknown.code == "invalid_api_key"
    refused(openai.NotFoundError,
            lambda: client.chat.completions.create(model=MODEL, messages=[]))
    large = refused(openai.APIStatusError, lambda: create(model=MODEL, input="x" * (40 << 20)))
    assert large.status_code == 413


def raw(client):
    answer = client.embeddings.with_raw_response.create(model=MODEL, input="a")
    assert answer.headers["x-request-id"] and answer.headers["x-cache"] in ("HIT", "MISS")
    parsed = answer.parse()
    assert parsed.usage.prompt_tokens_details["cached_tokens"] >= 0


def batches(client):
    """A batch from upload to download, as OpenAI's guide has it."""
    lines = [{"custom_id": f"line {i}", "method": "POST", "url": "/v1/embeddings",
              "body": {"model": MODEL, "input": f"text {i}" if i else "", "dimensions": 64}}
             for i in range(50)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    assert client.files.wait_for_processing(file.id).bytes == len(content)
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings",
                                  completion_window="24h", metadata={"of": "the checks"})
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed" and batch.metadata == {"of": "the checks"}, batch
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (50, 49, 1)
    output = client.files.content(batch.output_file_id).text.splitlines()
    rows = {row["custom_id"]: row["response"] for row in map(json.loads, output)}
    assert len(rows) == 49 and rows["line 7"]["status_code"] == 200
    direct = client.embeddings.create(model=MODEL, input="text 7", dimensions=64).data[0].embedding
    np.testing.assert_array_equal(
        np.float32(rows["line 7"]["body"]["data"][0]["embedding"]), np.float32(direct))
    (wrong, ) = client.files.content(batch.error_file_id).text.splitlines()
    assert json.loads(wrong)["response"]["body"]["error"]["code"] == "empty_input"
    assert batch.id in [one.id for one in client.batches.list(limit=1)]
    refused(openai.ConflictError, lambda: client.batches.cancel(batch.id))
    refused(openai.NotFoundError, lambda: client.batches.retrieve("batch_" + "0" * 32))
    assert client.files.delete(file.id).deleted


def asynchronous(url, key):
    import asyncio

    async def run():
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=key) as client:
            answers = await asyncio.gather(*[
                client.embeddings.create(model=MODEL, input=f"text {i}") for i in range(200)])
        assert all(len(a.data[0].embedding) == WIDTH for a in answers)

    asyncio.run(run())


if __name__ == "__main__":
    main()
