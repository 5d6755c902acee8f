"""The gateway process between raw HTTP clients and a real coordinator with fake workers: every
route's forms, errors in their families' shapes, keys, TLS, limits, drain, restarts."""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time

import numpy as np
import pytest

from gateway_process import GATEWAY, MODEL_DIR, SLOWDOWN, Gateway, Http, make_certificate
from fakes import FINAL_TOKEN, Coordinator, FakeWorker, vector_of

MODEL = "demo-model"
WIDTH = 256


@pytest.fixture(scope="module")
def cluster():
    coordinator = Coordinator()
    worker = FakeWorker(coordinator.workers, number_format="bfloat16")
    worker.welcomed.wait(60)
    yield coordinator
    worker.stop()
    coordinator.stop()


@pytest.fixture(scope="module")
def gateway(cluster):
    process = Gateway(cluster.clients, "--model", MODEL_DIR)
    process.wait_ready()
    yield process
    assert process.stop() == 0


def embed(gateway, _headers=None, **body):
    body.setdefault("model", MODEL)
    return gateway.ask("POST", "/v1/embeddings", body, _headers)


def post(body):
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"


def floats(text, dtype="<f4"):
    return np.frombuffer(base64.b64decode(text), dtype)


def vocabulary(gateway):
    return gateway.ask("GET", "/v1/models").json()["data"][0]["tokenizer_hash"]


# --- /v1/embeddings

def test_answers_in_openais_form(gateway):
    answer = embed(gateway, input=["edit photos", "send email"], user="somebody")
    assert answer.status == 200, answer
    body = answer.json()
    assert body["object"] == "list" and body["model"] == MODEL
    assert [(d["object"], d["index"], len(d["embedding"])) for d in body["data"]] == \
        [("embedding", 0, WIDTH), ("embedding", 1, WIDTH)]
    for item in body["data"]:
        assert abs(np.linalg.norm(item["embedding"]) - 1) < 1e-5
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 4
    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["openai-processing-ms"]) >= 0
    single = embed(gateway, input="edit photos").json()
    assert single["data"][0]["embedding"] == body["data"][0]["embedding"]
    assert "truncated" not in single


def test_base64_and_floats_are_the_same_values(gateway):
    as_floats = embed(gateway, input=["a", "b"], encoding_format="float").json()
    as_base64 = embed(gateway, input=["a", "b"], encoding_format="base64").json()
    for one, other in zip(as_floats["data"], as_base64["data"]):
        np.testing.assert_array_equal(np.array(one["embedding"], "<f4"), floats(other["embedding"]))
    null = embed(gateway, input="a", encoding_format=None, dimensions=None, user=None)
    assert null.json()["data"][0]["embedding"] == as_floats["data"][0]["embedding"]


def test_many_items_come_in_order_from_whatever_messages(gateway):
    texts = [f"text number {i}" for i in range(2048)]
    body = embed(gateway, input=texts, encoding_format="base64").json()
    assert [d["index"] for d in body["data"]] == list(range(2048))
    for i in (0, 255, 256, 1023, 1024, 2047):
        one = embed(gateway, input=texts[i], encoding_format="base64").json()
        assert one["data"][0]["embedding"] == body["data"][i]["embedding"], i
    decimals = embed(gateway, input=texts).json()  # In chunks.
    np.testing.assert_array_equal(np.array(decimals["data"][777]["embedding"], "<f4"),
                                  floats(body["data"][777]["embedding"]))
    too_many = embed(gateway, input=texts + ["one more"])
    assert too_many.status == 400 and "2048" in too_many.json()["error"]["message"]


def test_usage_says_what_was_cached(gateway):
    first = embed(gateway, input=["never asked before", "nor this"]).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    mixed = embed(gateway, input=["never asked before", "something new"])
    usage = mixed.json()["usage"]
    one = embed(gateway, input="never asked before")
    assert one.headers["x-cache"] == "HIT" and mixed.headers["x-cache"] == "MISS"
    assert one.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == \
        one.json()["usage"]["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] in (
        0, one.json()["usage"]["prompt_tokens"])


def test_dimensions_and_their_bounds(gateway):
    full = embed(gateway, input="a").json()["data"][0]["embedding"]
    for field in ("dimensions", "output_dimension"):
        cut = embed(gateway, input="a", **{field: 64}).json()["data"][0]["embedding"]
        expected = np.array(full[:64]) / np.linalg.norm(full[:64])
        np.testing.assert_allclose(cut, expected, atol=1e-6)
    for wrong in (0, -1, 31, 257, 1 << 40, 1.5, "64", True):
        answer = embed(gateway, input="a", dimensions=wrong)
        assert answer.status == 400, wrong
        assert answer.json()["error"]["param"] == "dimensions", answer
    assert embed(gateway, input="a", dimensions=64, output_dimension=32).status == 400


def test_number_formats(gateway):
    full = np.array(embed(gateway, input="a").json()["data"][0]["embedding"], "<f4")
    scale = np.float32(16 * np.sqrt(WIDTH))
    expected = {
        "float": full, "float16": None,
        "int8": np.clip(np.rint(full * scale), -127, 127).astype(np.int8),
        "uint8": (np.clip(np.rint(full * scale), -127, 127) + 128).astype(np.uint8),
        "ubinary": np.packbits(full > 0),
        "binary": (np.packbits(full > 0).astype(int) - 128).astype(np.int8)}
    kinds = {"float": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "ubinary": "u1",
             "binary": "i1"}
    for dtype, values in expected.items():
        listed = embed(gateway, input="a", output_dtype=dtype).json()["data"][0]["embedding"]
        packed = floats(embed(gateway, input="a", output_dtype=dtype, encoding_format="base64")
                        .json()["data"][0]["embedding"], kinds[dtype])
        np.testing.assert_array_equal(np.array(listed, kinds[dtype]), packed, dtype)
        if values is not None:
            np.testing.assert_array_equal(packed, values, dtype)
        raw = embed(gateway, {"Accept": "application/octet-stream"}, input=["a", "a"],
                    output_dtype=dtype)
        assert raw.headers["content-type"] == "application/octet-stream"
        assert (raw.headers["x-tessera-rows"], raw.headers["x-tessera-dtype"]) == ("2", dtype)
        np.testing.assert_array_equal(np.frombuffer(raw.body, kinds[dtype]), np.tile(packed, 2))
    odd = embed(gateway, input="a", output_dtype="binary", dimensions=33)
    assert odd.status == 400 and odd.json()["error"]["param"] == "dimensions"


def test_token_ids_are_taken_only_with_their_vocabulary(gateway, cluster):
    bare = embed(gateway, input=[[1, 2, 3]])
    assert bare.status == 400
    assert "check_embedding_ctx_length=False" in bare.json()["error"]["message"]
    named = vocabulary(gateway)
    answer = embed(gateway, input=[[1, 2, 3], [5, FINAL_TOKEN]], vocabulary=named).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"],
                               vector_of([1, 2, 3, FINAL_TOKEN]), atol=1e-3)
    np.testing.assert_allclose(answer["data"][1]["embedding"], vector_of([5, FINAL_TOKEN]),
                               atol=1e-3)
    one = embed(gateway, input=[1, 2, 3], vocabulary=named).json()
    assert one["data"][0]["embedding"] == answer["data"][0]["embedding"]
    assert embed(gateway, input="a", vocabulary="f" * 64).status == 400
    beyond = embed(gateway, input=[[1, 16003]], vocabulary=named)
    assert beyond.status == 400 and beyond.json()["error"]["code"] == "invalid_token_id"
    trusting = Gateway(cluster.clients, "--accept-token-ids")
    trusting.wait_ready()
    assert embed(trusting, input=[[1, 2, 3]]).status == 200
    assert trusting.stop() == 0


def test_long_texts_are_an_error_or_cut_and_told(gateway):
    long = "word " * 9000
    refused = embed(gateway, input=["short", long])
    assert refused.status == 400
    error = refused.json()["error"]
    assert error["code"] == "context_length_exceeded" and error["param"] == "input"
    assert error["message"].startswith("input[1]")
    for field, value in (("truncate", True), ("truncation", True), ("truncate", "START")):
        cut = embed(gateway, input=["short", long], **{field: value})
        listed = cut.json()["truncated"]
        assert [c["index"] for c in listed] == [1] and listed[0]["tokens_cut"] > 100
        assert cut.headers["x-tessera-truncated"] == f"1={listed[0]['tokens_cut']}"


def test_prompts(gateway):
    plain = embed(gateway, input="a").json()["data"][0]["embedding"]
    query = embed(gateway, input="a", input_type="query").json()["data"][0]["embedding"]
    named = embed(gateway, input="a", prompt_name="query").json()["data"][0]["embedding"]
    own = embed(gateway, input="a", instruction="Find colours").json()["data"][0]["embedding"]
    document = embed(gateway, input="a", input_type="document").json()["data"][0]["embedding"]
    assert plain == document and query == named
    assert len({tuple(v) for v in (plain, query, own)}) == 3
    for wrong in ({"input_type": "image"}, {"prompt_name": "none such"}, {"instruction": 5},
                  {"instruction": "x", "input_type": "document"},
                  {"prompt_name": "query", "input_type": "query"}):
        assert embed(gateway, input="a", **wrong).status == 400, wrong


@pytest.mark.parametrize("body,status,param", [
    (b"", 400, None), (b"{", 400, None), (b"[]", 400, None),
    (b'{"model":"demo-model"}', 400, "input"),
    (b'{"input":"a"}', 400, "model"), (b'{"input":[],"model":"demo-model"}', 400, "input"),
    (b'{"input":null,"model":"demo-model"}', 400, "input"),
    (b'{"input":"a","model":"other"}', 404, "model"),
    (b'{"input":"a","model":5}', 400, "model"),
    (b'{"input":"","model":"demo-model"}', 400, "input"),
    (b'{"input":["a"," \\t"],"model":"demo-model"}', 400, "input"),
    (b'{"input":"a","model":"demo-model","encoding_format":"hex"}', 400, "encoding_format"),
    (b'{"input":"a","model":"demo-model","output_dtype":"int4"}', 400, "output_dtype"),
    (b'{"input":"a","model":"demo-model","temperature":1}', 400, "temperature"),
    (b'{"input":"a","model":"demo-model","priority":0}', 400, "priority"),
    (b'{"input":"a","model":"demo-model","truncate":"middle"}', 400, "truncate"),
    (b'{"input":"a","input":"b","model":"demo-model"}', 400, None),
    (b'{"input":"\xff","model":"demo-model"}', 400, None)])
def test_wrong_bodies(gateway, body, status, param):
    answer = gateway.ask("POST", "/v1/embeddings", body)
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param and isinstance(error["message"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert answer.headers["x-should-retry"] == "false"


def test_priorities_and_cache_control_are_taken(gateway):
    for priority in ("interactive", "bulk", 1, 100, None):
        assert embed(gateway, input="a", priority=priority).status == 200
    for control in ("no-cache", "no-store", "max-age=0, no-cache"):
        assert embed(gateway, {"Cache-Control": control}, input="a").status == 200


# --- other families

def test_models(gateway):
    models = gateway.ask("GET", "/v1/models").json()
    assert models["object"] == "list"
    model = models["data"][0]
    assert (model["id"], model["dimensions"], model["pooling"]) == (MODEL, WIDTH, "last_token")
    assert model["prompts"] == ["document", "query"] and len(model["fingerprint"]) == 64
    assert model["number_format"] == "bfloat16"
    assert gateway.ask("GET", "/v1/models/" + MODEL).json() == model
    missing = gateway.ask("GET", "/v1/models/other")
    assert missing.status == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_tei(gateway):
    expected = embed(gateway, input=["a", "b"]).json()["data"]
    answer = gateway.ask("POST", "/embed", {"inputs": ["a", "b"], "normalize": True,
                                            "truncate": None, "prompt_name": None})
    assert answer.json() == [d["embedding"] for d in expected]
    assert gateway.ask("POST", "/embed", {"inputs": "a", "dimensions": 32}).status == 200
    cut = gateway.ask("POST", "/embed", {"inputs": "word " * 9000})
    assert cut.status == 200 and cut.headers["x-tessera-truncated-items"] == "1"
    for body, status, kind in [({"inputs": "word " * 9000, "truncate": False}, 422, "Tokenizer"),
                               ({"inputs": ""}, 400, "Empty"), ({"inputs": []}, 400, "Empty"),
                               ({"inputs": "a", "normalize": False}, 422, "Validation"),
                               ({"inputs": "a", "other": 1}, 422, "Validation")]:
        answer = gateway.ask("POST", "/embed", body)
        assert (answer.status, answer.json()["error_type"]) == (status, kind), answer
    info = gateway.ask("GET", "/info").json()
    assert info["model_id"] == MODEL and info["model_type"] == {
        "embedding": {"pooling": "last_token"}}
    assert info["model_dtype"] == "bfloat16"
    assert gateway.ask("GET", "/health").status == 200


def test_tokenize(gateway):
    text = "edit photos — déjà vu"
    tokens = gateway.ask("POST", "/tokenize", {"inputs": text}).json()[0]
    own = [t for t in tokens if not t["special"]]
    raw = text.encode()
    assert b"".join(raw[t["start"]:t["stop"]] for t in own) == raw
    assert tokens[-1]["special"] and tokens[-1]["id"] == FINAL_TOKEN
    usage = embed(gateway, input=text).json()["usage"]["prompt_tokens"]
    assert usage == len(tokens)
    bare = gateway.ask("POST", "/tokenize", {"inputs": [text], "add_special_tokens": False}).json()
    assert [t["id"] for t in bare[0]] == [t["id"] for t in own]
    # Decomposed: normalisation changes the text, so nothing is said of places.
    changed = gateway.ask("POST", "/tokenize", {"inputs": "de\u0301ja\u0300"}).json()[0]
    assert all(t["start"] is None for t in changed)
    ids = [t["id"] for t in tokens]
    by_ids = embed(gateway, input=[ids], vocabulary=vocabulary(gateway)).json()
    by_text = embed(gateway, input=text).json()
    assert by_ids["data"][0]["embedding"] == by_text["data"][0]["embedding"]


def test_cohere(gateway):
    full = np.array(embed(gateway, input="a").json()["data"][0]["embedding"], "<f4")
    body = {"model": MODEL, "input_type": "search_document", "texts": ["a", "b"],
            "embedding_types": ["float", "int8", "ubinary", "base64"], "images": None}
    answer = gateway.ask("POST", "/v2/embed", body)
    assert answer.status == 200, answer
    got = answer.json()
    assert got["response_type"] == "embeddings_by_type" and got["texts"] == ["a", "b"]
    assert got["meta"]["billed_units"]["input_tokens"] > 0
    np.testing.assert_array_equal(np.array(got["embeddings"]["float"][0], "<f4"), full)
    np.testing.assert_array_equal(floats(got["embeddings"]["base64"][0]), full)
    np.testing.assert_array_equal(got["embeddings"]["ubinary"][0], np.packbits(full > 0))
    query = gateway.ask("POST", "/v2/embed", {"model": MODEL, "input_type": "search_query",
                                              "texts": ["a"]}).json()
    assert query["embeddings"]["float"][0] == \
        embed(gateway, input="a", input_type="query").json()["data"][0]["embedding"]
    for wrong, status in [({"texts": ["a"]}, 400), ({"model": "other", "texts": ["a"]}, 404),
                          ({"model": MODEL, "texts": []}, 400),
                          ({"model": MODEL, "texts": ["a"], "images": ["x"]}, 400),
                          ({"model": MODEL, "texts": ["word " * 9000], "truncate": "NONE"}, 400)]:
        answer = gateway.ask("POST", "/v2/embed", wrong)
        assert answer.status == status and list(answer.json()) == ["message"], answer
    cut = gateway.ask("POST", "/v2/embed", {"model": MODEL, "texts": ["word " * 9000]})
    assert cut.status == 200 and cut.headers["x-tessera-truncated-items"] == "1"


def test_ollama(gateway):
    expected = embed(gateway, input=["a", "b"]).json()["data"]
    answer = gateway.ask("POST", "/api/embed", {"model": MODEL + ":latest", "input": ["a", "b"],
                                                "options": {"num_ctx": 10}, "keep_alive": "5m"})
    assert answer.json()["embeddings"] == [d["embedding"] for d in expected]
    assert answer.json()["prompt_eval_count"] > 2
    empty = gateway.ask("POST", "/api/embed", {"model": MODEL, "input": []})
    assert empty.status == 200 and empty.json()["embeddings"] == []
    missing = gateway.ask("POST", "/api/embed", {"model": "other", "input": "a"})
    assert missing.status == 404 and list(missing.json()) == ["error"]
    assert gateway.ask("GET", "/api/tags").json()["models"][0]["name"] == MODEL + ":latest"
    assert "version" in gateway.ask("GET", "/api/version").json()


@pytest.mark.parametrize("path,keys", [
    ("/v1/chat/completions", ["error"]), ("/v2/rerank", ["message"]), ("/api/generate", ["error"]),
    ("/nothing", ["error"])])
def test_what_is_not_offered_is_told_in_its_familys_form(gateway, path, keys):
    answer = gateway.ask("POST", path, {})
    assert answer.status == 404 and list(answer.json()) == keys, answer
    if path.startswith("/v1"):
        assert answer.json()["error"]["code"] == "not_found"


def test_methods(gateway):
    wrong = gateway.ask("GET", "/v1/embeddings")
    assert wrong.status == 405 and wrong.headers["allow"] == "POST, OPTIONS"
    assert gateway.ask("OPTIONS", "/v1/models").headers["allow"] == "GET, HEAD, OPTIONS"
    assert gateway.ask("OPTIONS", "*").status == 204
    whole = gateway.ask("GET", "/v1/models")
    head = gateway.ask("HEAD", "/v1/models")
    assert head.status == 200 and head.headers["content-length"] == str(len(whole.body))


def test_openapi_is_true_to_the_server(gateway):
    document = gateway.ask("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.")
    described = {f"{method.upper()} {path}" for path, item in document["paths"].items()
                 for method in item}
    listed = subprocess.run([GATEWAY, "--list-routes"], capture_output=True, text=True, check=True)
    assert described == set(listed.stdout.split("\n")) - {""}
    schemas = document["components"]["schemas"]

    def resolve(schema):
        return schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema

    def check(value, schema, where):
        schema = resolve(schema)
        if "oneOf" in schema:
            assert any(fits(value, one) for one in schema["oneOf"]), (where, value)
            return
        if "const" in schema:
            assert value == schema["const"], where
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
                 "integer": int, "number": (int, float)}
        assert not kinds or any(isinstance(value, types[k]) for k in kinds), (where, value)
        for name in schema.get("required", []):
            assert name in value, (where, name)
        for name, one in schema.get("properties", {}).items():
            if isinstance(value, dict) and name in value:
                check(value[name], one, f"{where}.{name}")
        if "items" in schema and isinstance(value, list):
            for one in value[:3]:
                check(one, schema["items"], where + "[]")

    def fits(value, schema):
        try:
            check(value, schema, "")
            return True
        except AssertionError:
            return False

    asked = {
        "/v1/embeddings": [{"model": MODEL, "input": ["a", "word " * 9000], "truncate": True},
                           {"model": MODEL, "input": "a", "encoding_format": "base64"},
                           {"model": MODEL, "input": "word " * 9000},
                           {"model": "other", "input": "a"}],
        "/embed": [{"inputs": "a"}, {"inputs": ""}, {"inputs": 5}],
        "/tokenize": [{"inputs": "a"}, {"inputs": "a", "truncate": True}],
        "/v2/embed": [{"model": MODEL, "texts": ["a"]}, {"model": "other", "texts": ["a"]}, {}],
        "/api/embed": [{"model": MODEL, "input": "a"}, {"model": "x", "input": "a"}, {}]}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert "200" in operation["responses"]
            if "text/event-stream" in operation["responses"]["200"]["content"]:
                continue  # Without end.
            if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
                continue
            for body in asked.get(path, [None]):
                if "{" in path and "/models/" not in path:
                    continue
                answer = gateway.ask(method.upper(), path.replace("{id}", MODEL), body)
                told = operation["responses"].get(str(answer.status))
                assert told, (method, path, answer)
                content = told.get("content", {}).get(answer.headers["content-type"].split(";")[0])
                assert content is not None, (method, path, answer)
                if "json" in answer.headers["content-type"]:
                    check(answer.json(), content["schema"], f"{method} {path} {answer.status}")


# --- HTTP itself

def test_pipelining_and_keep_alive(gateway):
    connection = gateway.connect()
    request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    connection.send(request + post(body) + request + post(body) + request)
    kinds = [len(connection.answer().json()) for _ in range(5)]
    assert kinds == [1, 4, 1, 4, 1]
    for _ in range(100):
        assert connection.ask("GET", "/health/live").status == 200
    connection.close()


def test_a_body_in_chunks_and_100_continue(gateway):
    connection = gateway.connect()
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    connection.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for i in range(0, len(body), 7):
        piece = body[i:i + 7]
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.send(b"0\r\n\r\n")
    assert connection.answer().status == 200
    connection.send(HEAD + b"Expect: 100-continue\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(body))
    assert connection.answer().status == 100
    connection.send(body)
    assert connection.answer().status == 200
    connection.send(HEAD + b"Expect: 100-continue\r\n"
                    b"Content-Length: 999999999\r\n\r\n")
    assert connection.answer().status == 413
    assert connection.at_end()


def test_a_peer_that_ends_its_direction_still_gets_its_answer(gateway):
    connection = gateway.connect()
    body = json.dumps({"model": MODEL, "input": ["half closed"] * 50}).encode()
    connection.send(post(body))
    connection.socket.shutdown(socket.SHUT_WR)
    assert len(connection.answer().json()["data"]) == 50
    assert connection.at_end()


def test_http_1_0(gateway):
    connection = gateway.connect()
    connection.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert connection.answer().status == 200
    assert connection.at_end()


def test_request_ids_are_the_clients_where_sound(gateway):
    assert gateway.ask("GET", "/health/live", headers={"X-Request-Id": "abc-1.2:3"}).headers[
        "x-request-id"] == "abc-1.2:3"
    for unsound in ("a b", "x" * 200, "a\tb", '"'):
        got = gateway.ask("GET", "/health/live", headers={"X-Request-Id": unsound}).headers
        assert got["x-request-id"].startswith("req_")


def test_hosts_and_origins_on_loopback(gateway, cluster):
    for headers, status in [({"Host": "localhost:8080"}, 200), ({"Host": "127.0.0.1"}, 200),
                            ({"Host": "evil.example"}, 403),
                            ({"Origin": "http://localhost:3000"}, 200),
                            ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403)]:
        assert gateway.ask("GET", "/v1/models", headers=headers).status == status, headers
    named = Gateway(cluster.clients, "--allow-host", "box.example")
    assert named.ask("GET", "/health/live", headers={"Host": "box.example"}).status == 200
    assert named.ask("GET", "/health/live", headers={"Host": "evil.example"}).status == 403
    assert named.stop() == 0


# --- limits

def test_limits_on_time_and_size(cluster):
    gateway = Gateway(cluster.clients, "--head-s", "0.5", "--body-s", "0.5", "--idle-s", "1",
                      "--body-mb", "1", "--head-kb", "4", "--client-connections", "8")
    gateway.wait_ready()
    slow_head = gateway.connect()
    slow_head.send(b"GET / HTTP/1.1\r\nHost:")
    slow_body = gateway.connect()
    slow_body.send(HEAD + b"Content-Length: 100\r\n\r\n{")
    idle = gateway.connect()
    assert slow_head.answer().status == 408 and slow_head.at_end()
    answer = slow_body.answer()
    assert answer.status == 408 and answer.json()["error"]["code"] == "request_timeout"
    assert idle.at_end()
    long_head = gateway.connect()
    long_head.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 8000)
    assert long_head.answer().status == 431
    large = gateway.connect()
    large.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(OSError):
        for _ in range(1000):
            large.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        large.answer()
        raise ConnectionError  # All of it was taken into the kernel's buffers.
    declared = gateway.ask("POST", "/v1/embeddings", b"x" * 16, {"Content-Length": str(2 << 20)})
    assert declared.status == 413 and declared.json()["error"]["code"] == "body_too_large"
    for connection in (slow_head, slow_body, idle, long_head, large):
        connection.close()
    time.sleep(0.5)
    crowd = [gateway.connect() for _ in range(8)]
    assert [c.ask("GET", "/health/live").status for c in crowd] == [200] * 8
    refused = gateway.connect()
    assert refused.answer().status == 429
    for connection in crowd:
        connection.close()
    assert gateway.stop() == 0


# --- keys and TLS

def new_key(name):
    made = subprocess.run([GATEWAY, "--new-key", name], capture_output=True, text=True, check=True)
    return made.stderr.split("\n")[1].strip(), made.stdout.strip()


def test_keys_and_their_reload(cluster):
    alice, alice_line = new_key("alice")
    bob, bob_line = new_key("bob")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")
        with open(path, "w", encoding="utf-8") as file:
            file.write(alice_line + " tenant=team\n")
        gateway = Gateway(cluster.clients, "--keys", path, "--io-threads", "2")
        gateway.wait_ready()

        def status(key, route="/v1/models", **headers):
            if key:
                headers["Authorization"] = "Bearer " + key
            return gateway.ask("GET", route, headers=headers).status

        assert status(None) == 401 and status(bob) == 401 and status(alice) == 200
        answer = gateway.ask("POST", "/v1/embeddings", {"model": MODEL, "input": "a"})
        assert answer.status == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert "Bearer" in answer.headers["www-authenticate"] or "Basic" in answer.headers[
            "www-authenticate"]
        assert status(None, "/health/live") == 200 and status(None, "/openapi.json") == 401
        assert status(None, "/v1/models", **{"X-Api-Key": alice}) == 200
        basic = base64.b64encode(b"me:" + alice.encode()).decode()
        assert status(None, "/v1/models", Authorization="Basic " + basic) == 200
        assert embed(gateway, {"Authorization": "Bearer " + alice}, input="a").status == 200
        with open(path, "w", encoding="utf-8") as file:
            file.write(bob_line + "\n")
        gateway.hang_up()
        deadline = time.monotonic() + 30 * SLOWDOWN
        while [status(alice), status(bob)] * 3 != [401, 200] * 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with open(path, "w", encoding="utf-8") as file:
            file.write("nonsense\n")
        gateway.hang_up()
        time.sleep(0.2)
        assert status(bob) == 200  # What cannot be read changes nothing.
        assert gateway.stop() == 0


@pytest.mark.parametrize("flags,says", [
    (["--listen", "0.0.0.0:0"], "--insecure"), (["--listen", "nonsense"], "HOST:PORT"),
    (["--listen", "127.0.0.1:99999"], "65535"), (["--keys", "/nonexistent"], "/nonexistent"),
    (["--tls-cert", "x"], "go together"),
    (["--tls-cert", "/dev/null", "--tls-key", "/dev/null"], "/dev/null"),
    (["--model", "/nonexistent"], "/nonexistent")])
def test_wrong_settings_are_one_line(flags, says):
    ended = subprocess.run([GATEWAY, *flags, "--log-level", "error"], capture_output=True, text=True,
                           timeout=60, check=False)
    assert ended.returncode == 1 and says in ended.stderr, ended
    assert len(ended.stderr.strip().split("\n")) == 1, ended.stderr


def test_insecure_is_spelled_out(cluster):
    gateway = Gateway(cluster.clients, "--insecure", listen="0.0.0.0:0")
    assert gateway.ask("GET", "/health/live", headers={"Host": "any.example"}).status == 200
    assert gateway.stop() == 0


def test_tls(cluster):
    with tempfile.TemporaryDirectory() as folder:
        certificate, key, context = make_certificate(folder)
        gateway = Gateway(cluster.clients, "--tls-cert", certificate, "--tls-key", key)
        assert gateway.url.startswith("https://")
        gateway.wait_ready(tls=context)
        connection = gateway.connect(tls=context)
        texts = [f"over tls {i}" for i in range(300)]
        for _ in range(3):
            answer = connection.ask("POST", "/v1/embeddings", {"model": MODEL, "input": texts})
            assert answer.status == 200 and len(answer.json()["data"]) == 300
        connection.close()
        plain = gateway.connect()
        plain.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises((ConnectionError, AssertionError)):
            plain.answer()
        half = gateway.connect()  # Never says hello.
        assert gateway.stop() == 0
        half.close()


# --- living and ending

def test_readiness_follows_workers_and_the_coordinator():
    coordinator = Coordinator()
    gateway = Gateway(coordinator.clients)
    ready = lambda: gateway.ask("GET", "/health/ready")  # noqa: E731
    deadline = time.monotonic() + 60 * SLOWDOWN
    while "worker" not in ready().json()["reason"]:
        assert time.monotonic() < deadline, "the gateway does not say what is missing"
        time.sleep(0.05)
    assert ready().status == 503
    worker = FakeWorker(coordinator.workers)
    gateway.wait_ready()
    assert gateway.ask("GET", "/health/live").status == 200
    worker.stop()
    deadline = time.monotonic() + 60 * SLOWDOWN
    while ready().status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    coordinator.kill()
    while "coordinator" not in ready().json().get("reason", ""):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert gateway.ask("GET", "/health/live").status == 200
    assert gateway.stop() == 0
    coordinator.stop()


def test_requests_outlive_a_killed_coordinator():
    coordinator = Coordinator()
    worker = FakeWorker(coordinator.workers, delay_s=0.2)
    gateway = Gateway(coordinator.clients)
    gateway.wait_ready()
    answers = []

    def ask(number):
        answers.append(embed(gateway, input=[f"{number} {i}" for i in range(20)]).status)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    coordinator.kill()
    coordinator.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20
    worker.stop()
    assert gateway.stop() == 0
    coordinator.stop()


def test_a_stop_finishes_what_is_open_and_nothing_else():
    coordinator = Coordinator(heartbeat_ms=2000)
    worker = FakeWorker(coordinator.workers, delay_s=1.0)
    gateway = Gateway(coordinator.clients, "--drain-s", "30", "--drain-notice-s", "0.5")
    gateway.wait_ready()
    idle = gateway.connect()
    assert idle.ask("GET", "/health/live").status == 200
    busy = gateway.connect()
    body = json.dumps({"model": MODEL, "input": "slow"}).encode()
    busy.send(post(body))
    time.sleep(0.2)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    noticed = gateway.ask("GET", "/health/ready")  # Still taken, so that balancers can ask.
    assert noticed.status == 503 and "stopping" in noticed.json()["reason"]
    answer = busy.answer()
    assert answer.status == 200 and answer.headers["connection"] == "close"
    assert idle.at_end()
    assert gateway.process.wait(30 * SLOWDOWN) == 0
    with pytest.raises(OSError):
        Http(gateway.address)
    worker.stop()
    coordinator.stop()


def test_overload_is_told_with_a_time_to_come_again():
    coordinator = Coordinator()
    worker = FakeWorker(coordinator.workers, delay_s=0.5, max_batch_sequences=8)
    gateway = Gateway(coordinator.clients, "--io-threads", "1")
    gateway.wait_ready()
    connections = [gateway.connect() for _ in range(40)]
    for number, connection in enumerate(connections):
        body = json.dumps({"model": MODEL, "input": [f"{number} {i}" for i in range(2048)]})
        connection.send(post(body.encode()))
    by_socket = {connection.socket: connection for connection in connections}
    first, _, _ = select.select(list(by_socket), [], [], 60 * SLOWDOWN)
    refused = by_socket[first[0]].answer()  # Beyond what the coordinator takes; told at once.
    assert refused.status == 429
    error = refused.json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-should-retry"] == "true"
    for connection in connections:
        connection.close()
    gateway.process.kill()
    gateway.process.wait()
    worker.stop()
    coordinator.kill()
