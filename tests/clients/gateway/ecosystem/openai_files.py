"""The published `openai` client's files, unchanged, against a gateway that keeps some; run by
ecosystem.py. argv: URL KEY."""

import asyncio
import io
import os
import sys
import tempfile
import time

import openai

LINE = b'{"custom_id":"1","method":"POST","url":"/v1/embeddings","body":{"input":"a"}}\n'
NAMES = ["in.jsonl", 'a "quoted" name.jsonl', "back\\slash%20;.jsonl", "h\u00e9 \u2603.jsonl"]


def main():
    url, key = sys.argv[1:]
    client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
    for name in NAMES:
        one_file(client, name)
    from_a_path(client)
    pages(client)
    errors(client)
    asyncio.run(asynchronous(url, key))
    print(f"openai {openai.__version__}: files as they should be")


def one_file(client, name):
    file = client.files.create(file=(name, LINE * 3), purpose="batch")
    assert file.filename == name, (file.filename, name)
    assert file.object == "file" and file.purpose == "batch" and file.bytes == 3 * len(LINE)
    assert file.expires_at == file.created_at + 30 * 86400
    assert abs(file.created_at - time.time()) < 3600
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.content(file.id).read() == LINE * 3
    gone = client.files.delete(file.id)
    assert gone.deleted and gone.id == file.id
    try:
        client.files.retrieve(file.id)
    except openai.NotFoundError as error:
        assert error.type == "invalid_request_error" and error.request_id
    else:
        raise AssertionError("a deleted file was found")


def from_a_path(client):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "in.jsonl")
        with open(path, "wb") as file:
            file.write(LINE * 200_000)
        with open(path, "rb") as file:
            made = client.files.create(file=file, purpose="batch", extra_body={
                "expires_after": {"anchor": "created_at", "seconds": 3600}})
        assert made.filename == "in.jsonl" and made.bytes == 200_000 * len(LINE)
        assert made.expires_at == made.created_at + 3600
        with client.files.with_streaming_response.content(made.id) as answer:
            answer.stream_to_file(path + ".out")
        with open(path, "rb") as sent, open(path + ".out", "rb") as got:
            assert sent.read() == got.read()
    client.files.delete(made.id)


def pages(client):
    made = [client.files.create(file=(f"{i}.jsonl", LINE), purpose="batch").id for i in range(7)]
    assert [f.id for f in client.files.list(limit=2)] == made[::-1]  # Asks for further pages.
    assert [f.id for f in client.files.list(limit=3, order="asc", purpose="batch")] == made
    assert not list(client.files.list(purpose="batch_output"))
    for id_ in made:
        client.files.delete(id_)
    assert not client.files.list().data


def errors(client):
    for purpose, data in (("fine-tune", LINE), ("batch", b"")):
        try:
            client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose=purpose)
        except openai.BadRequestError as error:
            assert error.param == ("purpose" if data else "file"), error
        else:
            raise AssertionError("a wrong upload was taken")


async def asynchronous(url, key):
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=key) as client:
        made = await asyncio.gather(*[
            client.files.create(file=(f"{i}.jsonl", LINE * (i + 1)), purpose="batch")
            for i in range(20)])
        for i, file in enumerate(made):
            assert (await client.files.content(file.id)).content == LINE * (i + 1)
        await asyncio.gather(*[client.files.delete(file.id) for file in made])


if __name__ == "__main__":
    main()
