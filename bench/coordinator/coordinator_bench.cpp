// What the coordinator costs: items a second through sockets, core, ledger, cache and tokenisers
// with a worker that computes nothing, and the latency of a query that is in the cache, beside a
// bare ROUTER that echoes the same frames in the same run.
//
//   coordinator_bench [MODEL_DIR] [ITEMS]

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "bench/coordinator/bench_peers.hpp"
#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/stop_signal.hpp"
#include "common/wire/codec.hpp"
#include "coordinator/coordinator.hpp"

namespace {

using namespace tessera;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kChunkItems = 512;
constexpr std::uint32_t kWindow = 32;
constexpr int kQueries = 5000;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void append(protocol::ItemBlock& block, std::string_view text) {
  block.sizes.push_back(static_cast<std::uint32_t>(text.size()));
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  block.payload.insert(block.payload.end(), data, data + text.size());
}

// About twenty tokens, unlike every other.
protocol::ItemBlock texts(std::uint32_t first, std::uint32_t count) {
  static constexpr const char* kWords[] = {"server", "library", "graphics", "network",
                                           "editor", "package", "database", "kernel"};
  protocol::ItemBlock block;
  for (std::uint32_t i = first; i < first + count; ++i) {
    std::string text = "item " + std::to_string(i);
    for (std::uint32_t word = 0; word < 14; ++word) {
      text.append(" ").append(kWords[(i >> word) % 8]);
    }
    append(block, text);
  }
  return block;
}

// What the coordinator's own thread has used: does not depend on what else the machine does.
double cpu_seconds(std::jthread& thread) {
  clockid_t clock{};
  CHECK(pthread_getcpuclockid(thread.native_handle(), &clock) == 0);
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct JobRun {
  double items_per_s = 0;
  double cpu_us_per_item = 0;
  std::uint64_t hits = 0;
};

JobRun run_job(net::DealerSocket& socket, std::jthread& serving, const std::string& key,
               std::uint32_t items) {
  socket.send(protocol::encode(protocol::OpenJob{
      .request_id = 1, .job_key = key, .spec = {.vector_type = protocol::VectorType::kFloat16}}));
  std::string job;
  while (job.empty()) {
    const auto message = bench::receive(socket);
    if (const auto* opened = std::get_if<protocol::JobOpened>(&message)) {
      job = opened->job_id;
    }
  }
  const std::uint32_t chunks = items / kChunkItems;
  JobRun run;
  const double cpu = cpu_seconds(serving);
  const auto start = Clock::now();
  std::uint32_t sent = 0;
  for (std::uint32_t done = 0; done < chunks;) {
    while (sent < chunks && sent - done < kWindow) {
      socket.send(protocol::encode(protocol::SubmitChunk{
          .job_id = job, .chunk = sent, .items = texts(sent * kChunkItems, kChunkItems)}));
      ++sent;
    }
    const auto message = bench::receive(socket);
    if (const auto* ack = std::get_if<protocol::ChunkAck>(&message)) {
      CHECK(ack->code == ErrorCode::kOk);
    } else if (const auto* result = std::get_if<protocol::ChunkResult>(&message)) {
      CHECK(std::ranges::count(result->results.codes, 0) == kChunkItems);
      run.hits += result->results.cache_hits;
      socket.send(protocol::encode(protocol::ResultAck{job, result->chunk}));
      ++done;
    }
  }
  run.items_per_s = items / seconds_since(start);
  run.cpu_us_per_item = 1e6 * (cpu_seconds(serving) - cpu) / items;
  return run;
}

struct Latency {
  double p50_us = 0;
  double p99_us = 0;
};

Latency measure(net::DealerSocket& socket, const std::function<protocol::Message()>& question) {
  std::vector<double> times;
  for (int i = 0; i < kQueries; ++i) {
    protocol::Message message = question();
    const auto start = Clock::now();
    socket.send(protocol::encode(std::move(message)));
    (void)bench::receive(socket);
    times.push_back(1e6 * seconds_since(start));
  }
  std::ranges::sort(times);
  return {times[kQueries / 2], times[kQueries * 99 / 100]};
}

protocol::WorkerHello hello_for(const coordinator::CatalogEntry& entry) {
  return {.name = "instant",
          .device = "none",
          .model = entry.model.name,
          .fingerprint = std::string(64, 'f'),
          .tokenizer_hash = entry.model.tokenizer_hash,
          .hidden_size = entry.model.hidden_size,
          .vocab_size = entry.model.vocab_size,
          .max_batch_tokens = 16'384,
          .max_batch_sequences = 1024,
          .max_seqlen = 8192};
}

void run(const std::string& model_dir, std::uint32_t items, const StopSignal& stop) {
  std::string folder = "/tmp/tessera-bench-XXXXXX";
  CHECK(mkdtemp(folder.data()) != nullptr);
  const coordinator::Options options{.listen = "tcp://127.0.0.1:17400",
                                     .worker_listen = "tcp://127.0.0.1:17401",
                                     .models = {model_dir},
                                     .data_dir = folder + "/data",
                                     .threads = 1};
  {
    coordinator::Coordinator process(options);
    std::jthread serving([&] { (void)process.run(stop); });
    const auto models = coordinator::load_models(options.models);
    bench::InstantWorker worker(options.worker_listen, hello_for(models.front()));
    net::Context context;
    net::DealerSocket client(context, options.listen);
    const JobRun misses = run_job(client, serving, "misses", items);
    const JobRun hits = run_job(client, serving, "hits", items);
    CHECK(worker.sequences() == items && misses.hits == 0 && hits.hits == items);

    bench::Echo echo;
    net::DealerSocket bare(context, echo.address());
    const auto question = [] {
      return protocol::EmbedRequest{.request_id = 1, .spec = {}, .items = texts(7, 1)};
    };
    const Latency echoed = measure(bare, question);
    const Latency cached = measure(client, question);
    for (const auto& [name, job] :
         {std::pair("job, nothing cached", misses), std::pair("job, all cached    ", hits)}) {
      std::printf("%s   %9.0f items/s  %6.2f us of the coordinator's thread per item\n", name,
                  job.items_per_s, job.cpu_us_per_item);
    }
    std::printf("cached query          p50 %5.0f us  p99 %5.0f us\n", cached.p50_us, cached.p99_us);
    std::printf("bare echo             p50 %5.0f us  p99 %5.0f us\n", echoed.p50_us, echoed.p99_us);
    std::printf("cached query / echo   p50 %5.2f     p99 %5.2f\n", cached.p50_us / echoed.p50_us,
                cached.p99_us / echoed.p99_us);
    kill(getpid(), SIGTERM);  // The coordinator's own way to stop.
  }
  std::filesystem::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    log::init("bench", "warn");
    const StopSignal stop;
    const int items = argc > 2 ? std::atoi(argv[2]) : 65'536;
    run(argc > 1 ? argv[1] : "deploy/data/demo-model", static_cast<std::uint32_t>(items), stop);
    return EXIT_SUCCESS;
  } catch (const FatalError& error) {
    std::fprintf(stderr, "coordinator_bench: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
