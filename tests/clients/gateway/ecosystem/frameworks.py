"""LangChain, LlamaIndex, LiteLLM and the clients of Cohere, Voyage and Ollama, unchanged, against a
gateway; run by ecosystem.py in a virtual environment that has them. argv: URL KEY."""

import glob
import importlib.util
import os
import sys

import numpy as np

MODEL = "demo-model"
TEXTS = ["edit photos", "send email", "a text editor"]


def main():
    url, key = sys.argv[1:]
    import openai
    data = openai.OpenAI(base_url=url + "/v1", api_key=key).embeddings.create(
        model=MODEL, input=TEXTS).data
    expected = np.array([d.embedding for d in data])
    for check in (langchain, llama_index, litellm, cohere, voyage, ollama):
        got = np.array(check(url, key))
        np.testing.assert_allclose(got, expected, atol=1e-6, err_msg=check.__name__)
        print(f"{check.__name__}: as it should be")


def langchain(url, key):
    # LangChain's tokenizer fetches its vocabulary from a host that a test cannot rely on; LiteLLM
    # brings the very file along.
    package = importlib.util.find_spec("litellm").submodule_search_locations[0]
    found = glob.glob(package + "/**/9b5ad71b2ce5302211f9c61530b329a4922fc6a4", recursive=True)
    os.environ["TIKTOKEN_CACHE_DIR"] = os.path.dirname(found[0])
    import openai
    from langchain_openai import OpenAIEmbeddings
    try:
        OpenAIEmbeddings(base_url=url + "/v1", api_key=key, model=MODEL).embed_documents(TEXTS)
    except openai.BadRequestError as error:
        assert "check_embedding_ctx_length=False" in str(error)
    else:
        raise AssertionError("token ids of another vocabulary were taken")
    return OpenAIEmbeddings(base_url=url + "/v1", api_key=key, model=MODEL,
                            check_embedding_ctx_length=False).embed_documents(TEXTS)


def llama_index(url, key):
    from llama_index.embeddings.openai import OpenAIEmbedding
    embedding = OpenAIEmbedding(model_name=MODEL, api_base=url + "/v1", api_key=key)
    return embedding.get_text_embedding_batch(TEXTS)


def litellm(url, key):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm as library
    answer = library.embedding(model="openai/" + MODEL, input=TEXTS, api_base=url + "/v1",
                               api_key=key)
    assert answer.usage.prompt_tokens > 3
    return [d["embedding"] for d in answer.data]


def cohere(url, key):
    import cohere as library
    client = library.ClientV2(api_key=key, base_url=url)
    answer = client.embed(model=MODEL, texts=TEXTS, input_type="search_document",
                          embedding_types=["float", "int8"])
    assert len(answer.embeddings.int8) == len(TEXTS)
    return answer.embeddings.float_


def voyage(url, key):
    import voyageai
    client = voyageai.Client(api_key=key, base_url=url + "/v1")
    answer = client.embed(TEXTS, model=MODEL, input_type="document", truncation=True)
    assert answer.total_tokens > 3
    packed = client.embed(TEXTS, model=MODEL, output_dtype="ubinary", truncation=False)
    assert len(packed.embeddings[0]) == 256 // 8
    return answer.embeddings


def ollama(url, key):
    import ollama as library
    client = library.Client(host=url, headers={"Authorization": "Bearer " + key})
    assert client.list().models[0].model == MODEL + ":latest"
    return client.embed(model=MODEL, input=TEXTS).embeddings


if __name__ == "__main__":
    main()
