// Tokens per second of the whole encoder on packed batches, two in flight, beside the limit that
// the matrix products and attention alone set, measured in the same run.
//
//   engine_bench --model DIR [--device cuda:0] [--max-batch-tokens 16384] [--lengths FILE]
//                [--workloads query,passage] [--no-limit] [--make 4b] [--compare]
//   engine_bench --model DIR --ids FILE --vectors FILE [--alone]
//
// --make first writes a model of that shape with random weights where the folder does not exist.
// --compare runs transformers and packed torch on the same lengths, in turns with ours --rounds
// times behind a warm-up of each, and prints a table. Both programs hold their memory at once.
// The second form writes vectors for texts given as int32 numbers (how many, their lengths, their
// ids), all packed or each alone, for a comparison with another implementation.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "bench/engine/limit.hpp"
#include "bench/engine/workload.hpp"
#include "bench/peers.hpp"
#include "bench/program.hpp"
#include "common/log.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/synthetic_model.hpp"
#include "worker/create_engine.hpp"
#include "worker/engine/engine.hpp"

namespace tessera::bench {
namespace {

using worker::Engine;
using worker::EngineInfo;
using worker::EngineOptions;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Options {
  EngineOptions engine;
  std::string lengths, ids, vectors, make, workloads;
  std::int64_t rounds = 3;
  bool alone = false;
  bool limit = true;
  bool compare = false;
};

Options parse(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {"--model", "--device", "--max-batch-tokens", "--make", "--lengths",
                     "--workloads", "--ids", "--vectors", "--rounds"},
                    {"--alone", "--no-limit", "--compare"});
  Options options;
  options.engine.model_dir = flags.text("--model");
  options.engine.device = flags.text("--device", "cuda:0");
  options.engine.max_batch_tokens = flags.number("--max-batch-tokens", 0);
  // Measured, as in a worker: passes are cut by it.
  options.engine.measure_cost = true;
  options.lengths = flags.text("--lengths");
  options.ids = flags.text("--ids");
  options.vectors = flags.text("--vectors");
  options.make = flags.text("--make");
  options.workloads = flags.text("--workloads", "query,passage,doc2k,long8k,long32k");
  options.rounds = std::max<std::int64_t>(1, flags.number("--rounds", 3));
  options.alone = flags.has("--alone");
  options.limit = !flags.has("--no-limit");
  options.compare = flags.has("--compare");
  return options;
}

// A workload's tokens a second.
struct Rate {
  std::string workload;
  double ours = 0;
  double transformers = NAN;
  double packed = NAN;
  double limit = NAN;
  double burst_limit = NAN;
  bool right = false;  // all finite, and the same bits twice
};

// All batches once, the next one enqueued while one runs. Returns the seconds taken.
double run(Engine& engine, const std::vector<PackedBatch>& batches) {
  const auto slots = static_cast<std::size_t>(engine.slots());
  const auto start = Clock::now();
  for (std::size_t i = 0; i < batches.size() + slots; ++i) {
    const int slot = static_cast<int>(i % slots);
    if (i >= slots && i - slots < batches.size()) engine.wait(slot);
    if (i < batches.size()) engine.enqueue(slot, batches[i].view());
  }
  return seconds_since(start);
}

// Every vector of the first batch must be finite, and the same bits when it runs again.
bool check(Engine& engine, const PackedBatch& batch) {
  std::vector<float> first;
  for (int pass = 0; pass < 2; ++pass) {
    engine.enqueue(0, batch.view());
    engine.wait(0);
    const auto vectors = engine.vectors(0);
    if (pass == 1) return std::ranges::equal(first, vectors);
    first.assign(vectors.begin(), vectors.end());
    if (std::ranges::count(engine.finite(0), 1) != batch.view().num_sequences()) return false;
  }
  return false;
}

// The tokens a second of passes over all batches: at least three, or as many as there are rounds
// with the peers, who then make a pass each behind every one of ours.
void take_passes(Engine& engine, const std::vector<PackedBatch>& batches, std::int64_t tokens,
                 const Options& options, PeerProgram* peers, Rate& rate) {
  constexpr std::size_t kPassesMin = 3, kPassesMax = 5;
  constexpr double kEnoughS = 6;
  const auto peers_turn = [&](std::vector<double>& transformers, std::vector<double>& packed) {
    if (peers == nullptr) return;
    transformers.push_back(peers->take(rate.workload, "transformers"));
    packed.push_back(peers->take(rate.workload, "packed"));
  };
  std::vector<double> ours, transformers, packed, warm_up;
  run(engine, batches);
  peers_turn(warm_up, warm_up);
  double total_s = 0;
  const auto enough = [&] {
    if (peers != nullptr) return ours.size() >= static_cast<std::size_t>(options.rounds);
    return ours.size() >= kPassesMin && (total_s > kEnoughS || ours.size() >= kPassesMax);
  };
  while (!enough()) {
    const double seconds = run(engine, batches);
    total_s += seconds;
    ours.push_back(static_cast<double>(tokens) / seconds);
    peers_turn(transformers, packed);
  }
  rate.ours = median(ours);
  if (peers != nullptr) {
    rate.transformers = median(transformers);
    rate.packed = median(packed);
  }
  const auto [lowest, highest] = std::ranges::minmax(ours);
  std::printf("%-8s %2zu batches  %8.0f tok/s (spread %.1f %%)", rate.workload.c_str(),
              batches.size(), rate.ours, 100 * (highest / lowest - 1));
}

Rate throughput(Engine& engine, const Workload& workload, const Options& options,
                const LimitProbe* probe, PeerProgram* peers) {
  const EngineInfo& info = engine.info();
  const std::vector<PackedBatch> batches =
      pack(workload, info.max_batch_tokens, info.max_sequences, info.vocab_size);
  Rate rate{.workload = workload.name, .right = check(engine, batches.front())};
  take_passes(engine, batches, workload.tokens(), options, peers, rate);
  if (probe != nullptr) {
    const PassLimit limit = probe->limit(batches);
    rate.limit = limit.tokens / limit.seconds();
    rate.burst_limit = limit.tokens / limit.burst_seconds();
    std::printf(
        "  limit %8.0f tok/s (attention %.0f %%, products %.0f TFLOP/s, %.0f at first)  "
        "%3.0f %% of it, %3.0f %% of a burst's",
        rate.limit, 100 * limit.attention_s / limit.seconds(),
        probe->tflops(limit.products.kept_up_s), probe->tflops(limit.products.burst_s),
        100 * rate.ours / rate.limit, 100 * rate.ours / rate.burst_limit);
  }
  std::printf("%s\n", rate.right ? "" : "  WRONG: not finite or not repeatable");
  return rate;
}

void latency(Engine& engine, std::int32_t length, const LimitProbe* probe) {
  const std::vector<PackedBatch> batches =
      pack({.name = "", .lengths = {length}}, length, 1, engine.info().vocab_size);
  std::vector<double> times;
  for (int i = 0; i < 60; ++i) {
    const auto start = Clock::now();
    engine.enqueue(i % 2, batches[0].view());
    engine.wait(i % 2);
    if (i >= 10) times.push_back(seconds_since(start));
  }
  std::ranges::sort(times);
  std::printf("one text of %5d tokens: median %.3f ms, p99 %.3f ms", length,
              times[times.size() / 2] * 1e3, times.back() * 1e3);
  if (probe != nullptr) {
    const double floor_s = probe->weight_bytes() / probe->copy_bytes_per_s();
    std::printf(", %.2f x the time to read the weights once (%.3f ms)",
                times[times.size() / 2] / floor_s, floor_s * 1e3);
  }
  std::printf("\n");
}

std::vector<std::vector<std::int32_t>> read_texts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const auto numbers = [&](std::size_t count) {
    std::vector<std::int32_t> values(count);
    file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * 4));
    if (!file) throw FatalError(path + " is too short");
    return values;
  };
  const auto count = static_cast<std::size_t>(numbers(1)[0]);
  std::vector<std::vector<std::int32_t>> texts;
  for (const std::int32_t length : numbers(count)) {
    texts.push_back(numbers(static_cast<std::size_t>(length)));
  }
  return texts;
}

void write_vectors(Engine& engine, const Options& options) {
  std::ofstream out(options.vectors, std::ios::binary);
  PackedBatch batch;
  const auto flush = [&] {
    if (batch.ids.empty()) return;
    engine.enqueue(0, batch.view());
    engine.wait(0);
    const auto vectors = engine.vectors(0);
    out.write(reinterpret_cast<const char*>(vectors.data()),
              static_cast<std::streamsize>(vectors.size_bytes()));
    batch = {};
  };
  for (const auto& text : read_texts(options.ids)) {
    if (options.alone || static_cast<std::int64_t>(batch.ids.size() + text.size()) >
                             engine.info().max_batch_tokens) {
      flush();
    }
    batch.add(text);
  }
  flush();
}

bool wanted(const Options& options, const std::string& name) {
  const std::string list = std::string(",").append(options.workloads).append(",");
  return list.find(std::string(",").append(name).append(",")) != std::string::npos;
}

void print_table(const std::vector<Rate>& rates) {
  std::printf("tokens/s       ours      limit      transformers (ours)   packed torch (ours)\n");
  for (const Rate& rate : rates) {
    std::printf("%-8s %10.0f %10.0f    %s    %s\n", rate.workload.c_str(), rate.ours, rate.limit,
                beside(rate.transformers, rate.ours / rate.transformers).c_str(),
                beside(rate.packed, rate.ours / rate.packed).c_str());
  }
  for (const Rate& rate : rates) {  // the same for other programs
    std::printf("table %s %.0f %.0f %.0f %.0f %.0f\n", rate.workload.c_str(), rate.ours, rate.limit,
                rate.burst_limit, rate.transformers, rate.packed);
  }
}

std::vector<Rate> measure(Engine& engine, const Options& options) {
  std::vector<Workload> workloads;
  for (const Workload& workload :
       options.lengths.empty() ? standard_workloads() : read_workloads(options.lengths)) {
    const bool fits = std::ranges::max(workload.lengths) <= engine.info().max_seqlen;
    if (fits && wanted(options, workload.name)) workloads.push_back(workload);
  }
  std::unique_ptr<LimitProbe> probe;
  if (options.limit) {
    const auto model = read_model_folder(options.engine.model_dir);
    probe = std::make_unique<LimitProbe>(model.value().config, 16384);
    std::printf("copy: %.2f TB/s\n", probe->copy_bytes_per_s() / 1e12);
  }
  const auto file = std::filesystem::temp_directory_path() /
                    ("tessera-engine-workloads-" + std::to_string(getpid()));
  std::unique_ptr<PeerProgram> peers;
  if (options.compare) {
    write_workloads(file, workloads);
    peers = PeerProgram::start(
        "encoder.py", {options.engine.model_dir.string(), "--lengths", file.string(), "--turns"});
  }
  std::vector<Rate> rates;
  for (const Workload& workload : workloads) {
    rates.push_back(throughput(engine, workload, options, probe.get(), peers.get()));
  }
  for (const std::int32_t length : {24, 128, 512}) latency(engine, length, probe.get());
  if (peers != nullptr) print_table(rates);
  std::filesystem::remove(file);
  return rates;
}

bool run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  log::init("engine_bench", "warn");
  if (!options.make.empty() && !std::filesystem::exists(options.engine.model_dir)) {
    make_model(options.engine.model_dir, options.make, 1);
  }
  const auto start = Clock::now();
  const std::unique_ptr<Engine> engine = worker::create_engine(options.engine);
  const EngineInfo& info = engine->info();
  std::printf("%s on %s, batches of at most %ld tokens; started in %.2f s\n",
              info.model_name.c_str(), info.device.c_str(), info.max_batch_tokens,
              seconds_since(start));
  if (!options.ids.empty()) {
    write_vectors(*engine, options);
    return true;
  }
  return std::ranges::all_of(measure(*engine, options), &Rate::right);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  return tessera::bench::run_program("engine_bench",
                                     [&] { return tessera::bench::run(argc, argv); });
}
