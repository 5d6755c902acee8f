#!/usr/bin/env python3
"""Two gateways behind haproxy, each stopped and started again in turn, twice, while the published
`openai` client asks all the time: with the client's own retry rules no request may fail.

usage: rolling_restart.py PYTHON   (of an environment with openai: build/ecosystem/newest/bin/python)

By hand, since it needs haproxy (Debian: haproxy) and the environment of `tests/run --ecosystem`;
about half a minute.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time

from gateway_process import Gateway
from fakes import Coordinator, FakeWorker

CLIENT = """
import sys, threading, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="-")
done, failed, stop = [0], [], threading.Event()
def ask(n):
    while not stop.is_set():
        try:
            answer = client.embeddings.create(model="demo-model", input=[f"text {n}", "another"])
            assert len(answer.data) == 2
            done[0] += 1
        except Exception as error:
            failed.append(repr(error))
threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
[t.start() for t in threads]
print("ready", flush=True)
sys.stdin.readline()
stop.set()
[t.join() for t in threads]
print(done[0], len(failed), failed[:3])
"""

HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch
frontend clients
  bind 127.0.0.1:{front}
  default_backend gateways
backend gateways
  option httpchk GET /health/ready
  http-check send hdr Host localhost
  server one 127.0.0.1:{one} check inter 200ms fall 1 rise 1
  server two 127.0.0.1:{two} check inter 200ms fall 1 rise 1
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(coordinator, port):
    gateway = Gateway(coordinator.clients, "--drain-notice-s", "1", listen=f"127.0.0.1:{port}")
    gateway.wait_ready()
    return gateway


def main():
    coordinator = Coordinator()
    worker = FakeWorker(coordinator.workers)
    front, *ports = (free_port() for _ in range(3))
    gateways = [start(coordinator, port) for port in ports]
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "haproxy.cfg")
        with open(config, "w", encoding="utf-8") as file:
            file.write(HAPROXY.format(front=front, one=ports[0], two=ports[1]))
        proxy = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", config])
        time.sleep(1)
        client = subprocess.Popen([sys.argv[1], "-c", CLIENT, f"http://127.0.0.1:{front}"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline() == "ready\n"
        codes = []
        for _ in range(2):
            for i, port in enumerate(ports):
                time.sleep(1)
                codes.append(gateways[i].stop())
                gateways[i] = start(coordinator, port)
                time.sleep(1)
        said, _ = client.communicate("stop\n", timeout=60)
        proxy.terminate()
        proxy.wait()
    for gateway in gateways:
        gateway.stop()
    worker.stop()
    coordinator.stop()
    print(f"answered, failed: {said.strip()}; the gateways' ends: {codes}")
    return 0 if said.split()[1] == "0" and codes == [0] * 4 else 1


if __name__ == "__main__":
    sys.exit(main())
