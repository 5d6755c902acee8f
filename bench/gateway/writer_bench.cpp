// How long an answer of 2,048 vectors of 1,024 values takes to write, by one core.
//   gateway_writer_bench
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <vector>

#include "clients/gateway/api/vectors_body.hpp"
#include "common/check.hpp"

namespace {

using namespace tessera;
using namespace tessera::gateway;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kItems = 2048;
constexpr std::uint32_t kWidth = 1024;
constexpr int kRuns = 15;

// Unit vectors, as the coordinator sends them: 8 messages of 256 rows.
EmbedAnswer make_answer() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  EmbedAnswer answer;
  answer.items = kItems;
  answer.dimensions = kWidth;
  for (std::size_t first = 0; first < kItems; first += 256) {
    protocol::ResultBlock block;
    block.codes.assign(256, 0);
    block.dimensions = kWidth;
    std::vector<float> values(256 * kWidth);
    for (float& value : values) {
      value = normal(random) / std::sqrt(static_cast<float>(kWidth));
    }
    block.payload.resize(values.size() * sizeof(float));
    std::memcpy(block.payload.data(), values.data(), block.payload.size());
    answer.first_items.push_back(first);
    answer.blocks.push_back(std::move(block));
  }
  return answer;
}

void measure(const char* name, const EmbedAnswer& answer, VectorSection::Form form, Dtype dtype) {
  std::vector<double> ns_per_value;
  double longest_slice_us = 0;
  std::size_t bytes = 0;
  std::string slice;
  for (int run = 0; run < kRuns; ++run) {
    VectorsBody body(answer, {{.before = R"({"object":"list","data":[)",
                               .form = form,
                               .dtype = dtype,
                               .openai_rows = form != VectorSection::Form::kRaw,
                               .after = "]}"}});
    bytes = 0;
    double total = 0;
    std::vector<double> slices;
    for (auto state = http::BodySource::State::kMore; state == http::BodySource::State::kMore;) {
      slice.clear();
      const auto begin = Clock::now();
      state = body.next(slice);
      const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
      slices.push_back(us);
      total += us;
      bytes += slice.size();
    }
    std::ranges::sort(slices);
    longest_slice_us = std::max(longest_slice_us, slices[slices.size() * 99 / 100]);
    ns_per_value.push_back(1000 * total / (kItems * kWidth));
  }
  std::ranges::sort(ns_per_value);
  std::cout << name << ": " << ns_per_value[kRuns / 2] << " ns a value (" << ns_per_value.front()
            << " to " << ns_per_value.back() << "), " << static_cast<double>(bytes) / 1e6
            << " MB, a slice takes at most " << longest_slice_us << " us (p99)\n";
}

}  // namespace

int main() {
  const EmbedAnswer answer = make_answer();
  measure("decimals", answer, VectorSection::Form::kList, Dtype::kFloat);
  measure("base64", answer, VectorSection::Form::kBase64, Dtype::kFloat);
  measure("raw", answer, VectorSection::Form::kRaw, Dtype::kFloat);
  measure("int8 as base64", answer, VectorSection::Form::kBase64, Dtype::kInt8);
}
