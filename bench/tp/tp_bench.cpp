// Groups of GPUs beside one GPU: throughput of a 16k-token batch, latency of single texts, and how
// near the vectors are, all engines loaded at once and taking turns in every measurement.
//
//   tp_bench --model DIR [--make 4b] [--sizes 2,4] [--kinds weights,tokens,nccl] [--rounds 5]
//            [--lengths 24,128,...]
//
// A kind is a split over peer memory, or "nccl": weights split over NCCL. --make first writes a
// model of that shape with random weights where the folder does not exist.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/synthetic_model.hpp"
#include "kernels/backend.hpp"
#include "worker/create_engine.hpp"
#include "worker/engine/engine.hpp"

namespace tessera::bench {
namespace {

using worker::Engine;
using worker::EngineOptions;
using worker::GroupSplit;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<std::string> words(const std::string& list) {
  std::vector<std::string> all;
  std::stringstream stream(list);
  for (std::string word; std::getline(stream, word, ',');) all.push_back(word);
  return all;
}

struct Batch {
  std::string name;
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> cu_seqlens = {0};
  kernels::PackedBatchView view() const { return {.input_ids = ids, .cu_seqlens = cu_seqlens}; }
};

Batch make_batch(std::string name, const std::vector<std::int32_t>& lengths, std::int64_t vocab) {
  Batch batch{.name = std::move(name)};
  std::uint64_t state = 1;
  for (const std::int32_t length : lengths) {
    for (std::int32_t i = 0; i < length; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      batch.ids.push_back(
          static_cast<std::int32_t>((state >> 33) % static_cast<std::uint64_t>(vocab)));
    }
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.ids.size()));
  }
  return batch;
}

struct Candidate {
  std::string name;
  std::unique_ptr<Engine> engine;
};

std::vector<float> vectors_of(Engine& engine, const Batch& batch) {
  engine.enqueue(0, batch.view());
  engine.wait(0);
  const bool finite = std::ranges::all_of(engine.finite(0), [](std::uint8_t f) { return f == 1; });
  const auto vectors = engine.vectors(0);
  return finite ? std::vector<float>(vectors.begin(), vectors.end()) : std::vector<float>();
}

// The least cosine over the batch; -1 where a vector is not finite.
double least_cosine(const std::vector<float>& a, const std::vector<float>& b, std::size_t width) {
  if (a.size() != b.size() || a.empty()) return -1;
  double least = 1;
  for (std::size_t row = 0; row < a.size(); row += width) {
    double dot = 0, aa = 0, bb = 0;
    for (std::size_t i = row; i < row + width; ++i) {
      dot += double{a[i]} * b[i];
      aa += double{a[i]} * a[i];
      bb += double{b[i]} * b[i];
    }
    least = std::min(least, dot / std::sqrt(aa * bb));
  }
  return least;
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

// Seconds a batch, with two in flight.
double pipelined_s(Engine& engine, const Batch& batch, int count) {
  const auto start = Clock::now();
  for (int i = 0; i < count + 2; ++i) {
    if (i >= 2) engine.wait(i % 2);
    if (i < count) engine.enqueue(i % 2, batch.view());
  }
  return seconds_since(start) / count;
}

double alone_s(Engine& engine, const Batch& batch) {
  const auto start = Clock::now();
  engine.enqueue(0, batch.view());
  engine.wait(0);
  return seconds_since(start);
}

class Comparison {
 public:
  Comparison(std::vector<Candidate> candidates, int rounds)
      : candidates_(std::move(candidates)), rounds_(rounds) {}

  void throughput(const Batch& batch) {
    measure(batch, true, [&](Engine& e) { return pipelined_s(e, batch, 6); });
  }
  void latency(const Batch& batch) {
    measure(batch, false, [&](Engine& e) {
      std::vector<double> times;
      for (int i = 0; i < (batch.ids.size() > 4096 ? 3 : 12); ++i) {
        times.push_back(alone_s(e, batch));
      }
      return median(times);
    });
  }

 private:
  template <typename Time>
  void measure(const Batch& batch, bool rate, Time time) {
    std::vector<std::vector<double>> times(candidates_.size());
    std::vector<std::string> notes(candidates_.size());
    std::vector<float> expected;
    for (std::size_t i = 0; i < candidates_.size(); ++i) notes[i] = check(i, batch, expected);
    for (int round = 0; round < rounds_; ++round) {
      for (std::size_t i = 0; i < candidates_.size(); ++i) {
        times[i].push_back(time(*candidates_[i].engine));
      }
    }
    const double base_s = median(times[0]);
    std::printf("%s\n", batch.name.c_str());
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      const double s = median(times[i]);
      const auto [least, most] = std::ranges::minmax(times[i]);
      std::printf("  %-10s %9.3f ms  %8.0f tok/s  %s %5.2f  (%.3f..%.3f)  %s\n",
                  candidates_[i].name.c_str(), s * 1e3, static_cast<double>(batch.ids.size()) / s,
                  rate ? "speed-up" : "time", rate ? base_s / s : s / base_s, least * 1e3,
                  most * 1e3, notes[i].c_str());
    }
    std::fflush(stdout);
  }

  // Against the first engine, and against itself; also warms up, and notes what the first two
  // batches of a size take.
  std::string check(std::size_t i, const Batch& batch, std::vector<float>& expected) {
    Engine& engine = *candidates_[i].engine;
    const auto start = Clock::now();
    const std::vector<float> once = vectors_of(engine, batch);
    const double first_s = seconds_since(start);
    bool same = once == vectors_of(engine, batch);
    const double second_s = seconds_since(start) - first_s;
    same = same && once == vectors_of(engine, batch);
    if (i == 0) expected = once;
    const double cosine =
        least_cosine(expected, once, static_cast<std::size_t>(engine.info().hidden_size));
    char text[128];
    std::snprintf(text, sizeof text, "first %.2f, second %.2f ms  cosine >= %.6f%s%s",
                  first_s * 1e3, second_s * 1e3, cosine,
                  once == expected ? ", same bits as one GPU" : "",
                  same ? "" : "  WRONG: differs from run to run");
    return text;
  }

  std::vector<Candidate> candidates_;
  int rounds_;
};

struct Options {
  std::string model, make, sizes = "2,4", kinds = "weights,tokens";
  std::string lengths = "24,128,512,1024,2048,4096,8192,16384,32768";
  int rounds = 5;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--model") {
      options.model = argv[i + 1];
    } else if (flag == "--make") {
      options.make = argv[i + 1];
    } else if (flag == "--sizes") {
      options.sizes = argv[i + 1];
    } else if (flag == "--kinds") {
      options.kinds = argv[i + 1];
    } else if (flag == "--lengths") {
      options.lengths = argv[i + 1];
    } else if (flag == "--rounds") {
      options.rounds = std::atoi(argv[i + 1]);
    } else {
      throw FatalError("unknown flag " + flag);
    }
  }
  if (options.model.empty()) throw FatalError("--model is needed");
  return options;
}

Candidate load(const Options& options, const std::string& kind, const std::string& size) {
  const auto model = read_model_folder(options.model);
  if (!model) throw FatalError(model.error().message);
  EngineOptions engine{
      .model_dir = options.model,
      .device = "cuda:0",
      .max_batch_tokens = 32768,
      .max_seqlen = std::min<std::int64_t>(32768, model->config.max_position_embeddings),
      .max_sequences = 2048,
      .measure_cost = true};  // Passes are cut by it, as in a worker.
  if (size != "1") {
    engine.devices = "all";
    engine.tp = size;
    engine.split = kind == "tokens" ? GroupSplit::kTokens : GroupSplit::kTensor;
    engine.transport = kind == "nccl" ? kernels::Transport::kNccl : kernels::Transport::kPeer;
  }
  const auto start = Clock::now();
  Candidate candidate{.name = size == "1" ? "1 GPU" : size + " " + kind,
                      .engine = worker::create_engine(engine)};
  std::printf("%-10s started in %.2f s: %s\n", candidate.name.c_str(), seconds_since(start),
              candidate.engine->info().device.c_str());
  std::fflush(stdout);
  return candidate;
}

void compare(Comparison& comparison, const Options& options, std::int64_t vocab) {
  comparison.throughput(
      make_batch("16,384 tokens of 256", std::vector<std::int32_t>(64, 256), vocab));
  std::vector<std::int32_t> mixed(48, 200);
  mixed.push_back(6000);
  comparison.throughput(make_batch("48 texts of 200 and one of 6,000", mixed, vocab));
  for (const std::string& length : words(options.lengths)) {
    comparison.latency(make_batch("one text of " + length, {std::atoi(length.c_str())}, vocab));
  }
}

void run(const Options& options) {
  log::init("tp_bench", "warn");
  if (!options.make.empty() && !std::filesystem::exists(options.model)) {
    make_model(options.model, options.make, 1);
  }
  std::vector<Candidate> candidates;
  candidates.push_back(load(options, "", "1"));
  for (const std::string& kind : words(options.kinds)) {
    for (const std::string& size : words(options.sizes)) {
      if (std::atoi(size.c_str()) <= kernels::cuda_device_count()) {
        candidates.push_back(load(options, kind, size));
      }
    }
  }
  const std::int64_t vocab = candidates[0].engine->info().vocab_size;
  Comparison comparison(std::move(candidates), options.rounds);
  try {
    compare(comparison, options, vocab);
  } catch (const FatalError& error) {
    // The engines of a failed group cannot be taken apart.
    std::fprintf(stderr, "tp_bench: %s\n", error.what());
    std::_Exit(EXIT_FAILURE);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  try {
    tessera::bench::run(tessera::bench::parse(argc, argv));
    return EXIT_SUCCESS;
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "tp_bench: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
