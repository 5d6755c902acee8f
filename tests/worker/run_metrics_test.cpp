#include "worker/link/run_metrics.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/histogram.hpp"
#include "worker/link/thermometer.hpp"

namespace tessera::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

protocol::BatchResult result_of(std::uint64_t compute_us, std::vector<std::uint8_t> codes) {
  protocol::BatchResult result{.codes = std::move(codes), .payload = {}};
  result.compute_us = compute_us;
  return result;
}

TEST(RunMetrics, CountsBatchesAndSharesTheirTimeByTokens) {
  const RunMetrics::Clock::time_point start{};
  RunMetrics metrics(100, start);
  const std::vector<std::uint32_t> lengths = {10, 30};
  metrics.on_batch(lengths, result_of(8000, {0, 13}));
  const auto report = metrics.report(start + seconds(1));
  EXPECT_EQ(report.batches, 1U);
  EXPECT_EQ(report.sequences, 2U);
  EXPECT_EQ(report.tokens, 40U);
  EXPECT_EQ(report.failed_sequences, 1U);
  EXPECT_EQ(report.busy_us, 8000U);
  EXPECT_NEAR(report.batch_seconds.sum, 0.008, 1e-9);
  EXPECT_NEAR(report.item_seconds.sum, 0.008, 1e-9) << "items add up to the time busy";
  EXPECT_NEAR(mean(report.item_seconds), 0.004, 1e-9);
  EXPECT_NEAR(mean(report.batch_fill), 0.4, 1e-9);
  EXPECT_NEAR(report.tokens_per_second, 40, 1e-9);
  EXPECT_NEAR(report.busy_share, 0.008, 1e-9);
  EXPECT_EQ(report.peak_tokens_per_second, 0) << "8 ms of work say little";
  EXPECT_TRUE(is_valid(report.batch_seconds) && is_valid(report.item_seconds) &&
              is_valid(report.batch_fill));
}

TEST(RunMetrics, PeakIsTheBestOfTenMinutesWhileComputing) {
  RunMetrics::Clock::time_point now{};
  RunMetrics metrics(1000, now);
  const auto second_of = [&](std::uint32_t tokens, std::uint64_t busy_us) {
    metrics.on_batch(std::vector<std::uint32_t>{tokens}, result_of(busy_us, {0}));
    now += seconds(1);
    return metrics.report(now).peak_tokens_per_second;
  };
  EXPECT_NEAR(second_of(1000, 500'000), 2000, 1e-6) << "of the time busy, not of the second";
  EXPECT_NEAR(second_of(1000, 1'000'000), 2000, 1e-6);
  now += minutes(5);
  EXPECT_NEAR(second_of(900, 300'000), 3000, 1e-6);
  now += minutes(6);
  EXPECT_NEAR(second_of(250, 500'000), 3000, 1e-6);
  now += minutes(5);
  EXPECT_NEAR(second_of(250, 500'000), 500, 1e-6) << "what is older is forgotten";
  now += minutes(60);
  EXPECT_EQ(metrics.report(now).peak_tokens_per_second, 0);
}

TEST(RunMetrics, RatesAreOfTheLastSeconds) {
  RunMetrics::Clock::time_point now{};
  RunMetrics metrics(1000, now);
  for (int i = 0; i < 10; ++i) {
    metrics.on_batch(std::vector<std::uint32_t>{500}, result_of(250'000, {0}));
    now += milliseconds(1000);
    const auto report = metrics.report(now);
    EXPECT_NEAR(report.tokens_per_second, 500, 1e-6);
    EXPECT_NEAR(report.busy_share, 0.25, 1e-6);
  }
  now += seconds(1);
  EXPECT_NEAR(metrics.report(now).tokens_per_second, 400, 1e-6);
  for (int i = 0; i < 5; ++i) {
    now += seconds(1);
    metrics.report(now);
  }
  EXPECT_EQ(metrics.report(now).tokens_per_second, 0);
}

TEST(Thermometer, ReadsTheHottestOfTheProcessorsSensors) {
  const auto sensors = std::filesystem::path(testing::TempDir()) / "tessera_hwmon";
  std::filesystem::remove_all(sensors);
  EXPECT_EQ(Thermometer({}, sensors).celsius(), 0);
  const auto chip = [&](const char* folder, const char* name, std::vector<int> thousandths) {
    std::filesystem::create_directories(sensors / folder);
    std::ofstream(sensors / folder / "name") << name << "\n";
    for (std::size_t i = 0; i < thousandths.size(); ++i) {
      std::ofstream(sensors / folder / ("temp" + std::to_string(i + 1) + "_input"))
          << thousandths[i] << "\n";
    }
  };
  chip("hwmon0", "nvme", {90'000});
  chip("hwmon1", "coretemp", {41'500, 63'250});
  EXPECT_NEAR(Thermometer({}, sensors).celsius(), 63.25, 1e-9);
  EXPECT_EQ(Thermometer({"00000000:ff:1f.0"}, sensors).celsius(), 0) << "no such GPU";
  std::filesystem::remove_all(sensors);
}

}  // namespace
}  // namespace tessera::worker
