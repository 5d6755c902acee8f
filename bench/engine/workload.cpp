#include "bench/engine/workload.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

namespace tessera::bench {
namespace {

Workload log_normal(const std::string& name, int count, double mean, double sigma, int low,
                    int high) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  Workload workload{.name = name};
  for (int i = 0; i < count; ++i) {
    const double value = std::exp(normal(random) * sigma + std::log(mean) - sigma * sigma / 2);
    workload.lengths.push_back(std::clamp(static_cast<int>(value), low, high));
  }
  return workload;
}

}  // namespace

std::int64_t Workload::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

std::vector<Workload> standard_workloads() {
  return {log_normal("query", 4096, 24, 0.5, 6, 96),
          log_normal("passage", 1024, 256, 0.7, 16, 1024),
          {.name = "doc2k", .lengths = std::vector<std::int32_t>(32, 2048)},
          {.name = "long8k", .lengths = std::vector<std::int32_t>(8, 8192)},
          {.name = "long32k", .lengths = std::vector<std::int32_t>(2, 32768)}};
}

std::vector<Workload> read_workloads(const std::string& path) {
  std::vector<Workload> workloads;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    Workload workload;
    fields >> workload.name;
    for (std::int32_t length = 0; fields >> length;) workload.lengths.push_back(length);
    if (!workload.lengths.empty()) workloads.push_back(std::move(workload));
  }
  return workloads;
}

void write_workloads(const std::string& path, const std::vector<Workload>& workloads) {
  std::ofstream file(path);
  for (const Workload& workload : workloads) {
    file << workload.name;
    for (const std::int32_t length : workload.lengths) file << " " << length;
    file << "\n";
  }
}

void PackedBatch::add(const std::vector<std::int32_t>& text) {
  ids.insert(ids.end(), text.begin(), text.end());
  cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
}

std::vector<PackedBatch> pack(const Workload& workload, std::int64_t max_tokens,
                              std::int64_t max_sequences, std::int64_t vocab_size) {
  std::vector<std::int32_t> lengths = workload.lengths;
  std::ranges::sort(lengths);
  std::mt19937 random(2);
  std::uniform_int_distribution<std::int32_t> id(0, static_cast<std::int32_t>(vocab_size) - 1);
  std::vector<PackedBatch> batches(1);
  for (const std::int32_t length : lengths) {
    PackedBatch* last = &batches.back();
    if (static_cast<std::int64_t>(last->ids.size()) + length > max_tokens ||
        static_cast<std::int64_t>(last->cu_seqlens.size()) > max_sequences) {
      last = &batches.emplace_back();
    }
    std::vector<std::int32_t> text(static_cast<std::size_t>(length));
    for (std::int32_t& token : text) token = id(random);
    last->add(text);
  }
  return batches;
}

}  // namespace tessera::bench
