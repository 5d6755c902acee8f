// Attention on one GPU: checks every workload against double precision, then times it.
//   attention_bench [--form mma|wgmma] [--repeats N] [--short-max TOKENS] [--compare]
// Prints a line a workload: name, head counts, worst relative error of a row, median and spread in
// microseconds, TFLOP/s over the lower triangle and GB/s of q, k, v and out read or written once.
// --compare times torch's cuDNN and FlashAttention-2 on the same lengths behind it and prints a
// table.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.hpp"
#include "bench/peers.hpp"
#include "bench/program.hpp"
#include "tests/kernels/attention_case.hpp"

namespace tessera::bench {
namespace {

using kernels::cuda::AttentionPlan;
using testing::AttentionCase;

struct Options {
  std::string form;
  int repeats = 20;
  int short_max = -1;  // longest sequence that takes short tiles; -1: as planned
};

struct Workload {
  std::string name;
  int q_heads, kv_heads;
  std::vector<std::int32_t> seqlens;
  std::string label() const {
    std::string text = name;
    text.append(" q").append(std::to_string(q_heads));
    return text.append(" kv").append(std::to_string(kv_heads));
  }
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

// The median in `median_us`; false where the result is wrong.
bool measure(const Workload& workload, const Options& options, double& median_us) {
  AttentionPlan plan = testing::device_plan(workload.q_heads, workload.kv_heads);
  if (options.form == "mma") plan = kernels::cuda::plan_attention(plan.shape, 80, plan.num_sms);
  if (options.short_max >= 0) plan.short_max_seqlen = options.short_max;
  AttentionCase batch(plan, workload.seqlens, 5);
  const std::vector<std::uint16_t> out = batch.run();
  const double error = batch.worst_error(out, 2e5);
  const bool same = batch.run() == out;
  const kernels::cuda::Stream stream = kernels::cuda::make_stream();
  const std::vector<double> times = times_in_turns_us({[&](cudaStream_t on) { batch.launch(on); }},
                                                      options.repeats, stream.get())[0];
  median_us = times[times.size() / 2];
  std::printf("%-20s error %.1e%s  %9.1f us (%.1f..%.1f)  %5.0f TF/s  %5.0f GB/s\n",
              workload.label().c_str(), error, same ? "" : " NOT THE SAME TWICE", median_us,
              times.front(), times.back(), batch.flops() / median_us / 1e6,
              batch.bytes() / median_us / 1e3);
  return error < 1e-2 && same;
}

// The same lengths for the peers, and both in one table.
void compare(const std::map<std::string, double>& ours) {
  const auto file = std::filesystem::temp_directory_path() / "tessera-attention-workloads";
  {
    std::ofstream out(file);
    for (const Workload& w : workloads()) {
      out << w.label() << "\t" << w.q_heads << "\t" << w.kv_heads << "\t";
      for (const std::int32_t n : w.seqlens) out << n << " ";
      out << "\n";
    }
  }
  const Peers peers = Peers::run("attention.py", {"--workloads", file.string()});
  std::filesystem::remove(file);
  if (peers.empty()) return;
  std::printf("us (times ours)            ours             cuDNN    FlashAttention-2\n");
  for (const Workload& w : workloads()) {
    const double us = ours.at(w.label());
    const double cudnn = peers.find(w.label(), "cuDNN");
    const double flash = peers.find(w.label(), "flash");
    std::printf("%-20s %10.1f %s %s\n", w.label().c_str(), us, beside(cudnn, cudnn / us).c_str(),
                beside(flash, flash / us).c_str());
  }
}

bool run(int argc, char** argv) {
  const Flags flags(argc, argv, {"--form", "--short-max", "--repeats"});
  const Options options{.form = flags.text("--form"),
                        .repeats = static_cast<int>(flags.number("--repeats", 20)),
                        .short_max = static_cast<int>(flags.number("--short-max", -1))};
  std::map<std::string, double> medians_us;
  const bool right = measure_all(workloads(), [&](const Workload& workload) {
    return measure(workload, options, medians_us[workload.label()]);
  });
  if (flags.has("--compare")) compare(medians_us);
  return right;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  return tessera::bench::run_program("attention_bench",
                                     [&] { return tessera::bench::run(argc, argv); });
}
