"""The published `openai` client's own retries. argv: URL KEY STATUS. Waits for the word "go" that
says that the gateway answers with this status now, and must get its vector in the end."""

import sys
import time

import openai

url, key, status = sys.argv[1:]
seen = []


def remember(response):
    seen.append(response.status_code)


client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=12)
client._client.event_hooks = {"response": [remember]}
print("ready", flush=True)
sys.stdin.readline()
answer = client.embeddings.create(model="demo-model", input=f"asked in bad times, {time.time()}")
assert len(answer.data[0].embedding) == 256
assert int(status) in seen and seen[-1] == 200, seen
print(f"openai {openai.__version__}: {seen}")
