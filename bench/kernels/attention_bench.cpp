// Attention on one GPU: checks every workload against double precision, then times it.
//   attention_bench [--form mma|wgmma] [--repeats N] [--short-max TOKENS]
// Prints a line a workload: name, head counts, worst relative error of a row, median and spread in
// microseconds, TFLOP/s over the lower triangle and GB/s of q, k, v and out read or written once.
// bench/compare/attention.py runs it beside its peers.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kernels/attention_case.hpp"

namespace tessera::bench {
namespace {

using kernels::cuda::AttentionPlan;
using testing::AttentionCase;
using testing::require;

struct Options {
  std::string form;
  int repeats = 20;
  int short_max = -1;  // longest sequence that takes short tiles; -1: as planned
};

struct Workload {
  std::string name;
  int q_heads, kv_heads;
  std::vector<std::int32_t> seqlens;
};

std::vector<std::int32_t> random_seqlens(int tokens, int shortest, int longest) {
  std::mt19937 random(1);
  std::vector<std::int32_t> seqlens;
  for (int left = tokens; left > 0; left -= seqlens.back()) {
    const int span = longest - shortest + 1;
    seqlens.push_back(std::min(left, shortest + static_cast<int>(random() % span)));
  }
  return seqlens;
}

std::vector<Workload> workloads() {
  std::vector<Workload> all;
  for (const auto& [name, seqlen] : {std::pair{"L128", 128},
                                     {"L512", 512},
                                     {"L2048", 2048},
                                     {"L8192", 8192},
                                     {"L32768", 32768}}) {
    all.push_back({name, 32, 8, std::vector<std::int32_t>(32768 / seqlen, seqlen)});
  }
  all.push_back({"mix16-128", 32, 8, random_seqlens(16384, 16, 128)});
  all.push_back({"mix6-96", 32, 8, random_seqlens(16384, 6, 96)});
  all.push_back({"mix16-1024", 32, 8, random_seqlens(16384, 16, 1024)});
  all.push_back({"mix16-1024", 16, 8, random_seqlens(16384, 16, 1024)});
  all.push_back({"L8192", 16, 8, std::vector<std::int32_t>(2, 8192)});
  all.push_back({"L2048", 8, 2, std::vector<std::int32_t>(8, 2048)});
  return all;
}

std::vector<double> time_us(AttentionCase& batch, int repeats) {
  cudaEvent_t start{}, stop{};
  require(cudaEventCreate(&start));
  require(cudaEventCreate(&stop));
  std::vector<double> times;
  for (int i = 0; i < repeats + 3; ++i) {
    require(cudaEventRecord(start));
    batch.launch();
    require(cudaEventRecord(stop));
    require(cudaEventSynchronize(stop));
    float ms = 0;
    require(cudaEventElapsedTime(&ms, start, stop));
    if (i >= 3) times.push_back(ms * 1e3);
  }
  require(cudaEventDestroy(start));
  require(cudaEventDestroy(stop));
  std::sort(times.begin(), times.end());
  return times;
}

bool measure(const Workload& workload, const Options& options) {
  AttentionPlan plan = testing::device_plan(workload.q_heads, workload.kv_heads);
  if (options.form == "mma") plan = kernels::cuda::plan_attention(plan.shape, 80, plan.num_sms);
  if (options.short_max >= 0) plan.short_max_seqlen = options.short_max;
  AttentionCase batch(plan, workload.seqlens, 5);
  const std::vector<std::uint16_t> out = batch.run();
  const double error = batch.worst_error(out, 2e5);
  const bool same = batch.run() == out;
  const std::vector<double> times = time_us(batch, options.repeats);
  const double median = times[times.size() / 2];
  std::printf("%-11s q%d kv%d  error %.1e%s  %9.1f us (%.1f..%.1f)  %5.0f TF/s  %5.0f GB/s\n",
              workload.name.c_str(), workload.q_heads, workload.kv_heads, error,
              same ? "" : " NOT THE SAME TWICE", median, times.front(), times.back(),
              batch.flops() / median / 1e6, batch.bytes() / median / 1e3);
  std::fflush(stdout);
  return error < 1e-2 && same;
}

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (flag == "--form") options.form = argv[i + 1];
    if (flag == "--short-max") options.short_max = std::atoi(argv[i + 1]);
    if (flag == "--repeats") options.repeats = std::atoi(argv[i + 1]);
  }
  bool right = true;
  for (const Workload& workload : workloads()) right = measure(workload, options) && right;
  return right ? 0 : 1;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  try {
    return tessera::bench::run(argc, argv);
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "attention_bench: %s\n", error.what());
    return 2;
  }
}
