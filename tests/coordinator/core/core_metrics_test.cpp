#include "coordinator/core/core_metrics.hpp"

#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "common/metric_families.hpp"
#include "tests/coordinator/core/core_harness.hpp"

namespace tessera::coordinator {
namespace {

using protocol::MetricFamily;
using protocol::MetricType;

constexpr Micros kMs = 1000;

class Figures {
 public:
  explicit Figures(CoreHarness& harness) {
    harness.from_client("watcher", protocol::MetricsRequest{.request_id = 1});
    families_ = harness.got<protocol::MetricsReply>("watcher").back().families;
  }
  const std::vector<MetricFamily>& families() const { return families_; }
  // A counter's or gauge's value; -1 where there is no such sample.
  double value(const std::string& name, const std::string& labels = {}) const {
    const auto [family, sample] = find(name, labels);
    return family == nullptr ? -1 : family->values[sample];
  }
  std::pair<double, double> count_and_sum(const std::string& name,
                                          const std::string& labels) const {
    const auto [family, sample] = find(name, labels);
    if (family == nullptr) {
      return {-1, -1};
    }
    const std::size_t width = family->bounds.size() + 2;
    double count = 0;
    for (std::size_t i = 0; i + 1 < width; ++i) {
      count += family->values[sample * width + i];
    }
    return {count, family->values[sample * width + width - 1]};
  }

 private:
  std::pair<const MetricFamily*, std::size_t> find(const std::string& name,
                                                   const std::string& labels) const {
    for (const MetricFamily& family : families_) {
      for (std::size_t i = 0; i < family.labels.size() && family.name == name; ++i) {
        if (family.labels[i] == labels) {
          return {&family, i};
        }
      }
    }
    return {nullptr, 0};
  }
  std::vector<MetricFamily> families_;
};

protocol::EmbedRequest request_of(std::uint64_t id, std::vector<std::string> texts) {
  return {.request_id = id, .spec = {}, .items = simulation::block_of(texts)};
}

TEST(MetricFamilies, LabelsAreEscaped) {
  EXPECT_EQ(format_labels({{"a", "x\"y\\z\n"}, {"b", "\xff\xc3\xa9"}}),
            "a=\"x\\\"y\\\\z\\n\",b=\"\xEF\xBF\xBD\xc3\xa9\"");
}

// What Prometheus demands of a text: unique names and label sets, units last, `_total` for
// counters.
TEST(CoreMetrics, KeepTheNamingRules) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.add_worker("v");
  harness.from_client("c", request_of(1, {"text 1", "text 2"}));
  harness.work();
  const Figures figures(harness);
  std::set<std::string> names;
  const std::regex name_form("tessera_[a-z_]+");
  for (const MetricFamily& family : figures.families()) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_TRUE(std::regex_match(family.name, name_form)) << family.name;
    EXPECT_EQ(family.name.ends_with("_total"), family.type == MetricType::kCounter) << family.name;
    EXPECT_TRUE(family.help.ends_with('.')) << family.name;
    const std::set<std::string> labels(family.labels.begin(), family.labels.end());
    EXPECT_EQ(labels.size(), family.labels.size()) << family.name;
    const bool is_histogram = family.type == MetricType::kHistogram;
    EXPECT_EQ(family.values.size(),
              family.labels.size() * (is_histogram ? family.bounds.size() + 2 : 1))
        << family.name;
  }
  EXPECT_GT(names.size(), 40U);
}

TEST(CoreMetrics, CountItemsByWhereTheirVectorCameFrom) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.from_client("c", request_of(1, {"text 1", "text 2", "text 1", " "}));
  harness.work();
  harness.from_client("c", request_of(2, {"text 1"}));
  const auto replies = harness.got<protocol::EmbedReply>("c");
  ASSERT_EQ(replies.size(), 2U);
  EXPECT_EQ(replies[0].results.sources, (std::vector<std::uint8_t>{1, 1, 2, 0}));
  EXPECT_EQ(replies[1].results.sources, (std::vector<std::uint8_t>{3}));
  const Figures figures(harness);
  const auto items = [&](const std::string& source) {
    return figures.value("tessera_items_total", "lane=\"interactive\",source=\"" + source + "\"");
  };
  EXPECT_EQ(items("computed"), 2);
  EXPECT_EQ(items("joined"), 1);
  EXPECT_EQ(items("memory"), 1);
  EXPECT_EQ(items("storage"), 0);
  EXPECT_EQ(items("none"), 1);
  EXPECT_EQ(figures.value("tessera_item_errors_total", "code=\"EMPTY_TEXT\""), 1);
  EXPECT_EQ(figures.value("tessera_requests_total", "lane=\"interactive\""), 2);
  EXPECT_EQ(figures.count_and_sum("tessera_request_duration_seconds", "lane=\"interactive\"").first,
            2);
}

TEST(CoreMetrics, LatencyIsSplitByStageAndSharedByTokens) {
  CoreHarness harness;
  harness.from_client("c", request_of(1, {"text 1"}));  // No worker yet: it waits for one.
  harness.add_worker("w");
  ASSERT_EQ(harness.batches.size(), 1U);
  const protocol::Batch batch = harness.batches.front().second;
  harness.pass(100 * kMs);
  harness.batches.clear();
  protocol::BatchResult result{.epoch = batch.epoch, .batch_id = batch.batch_id, .attempt = 1};
  result.codes.assign(batch.lengths.size(), 0);
  result.compute_us = 30'000;
  result.payload.assign(batch.lengths.size() * harness.core_hidden_size * 2, std::byte{0x30});
  harness.step(FromWorker{"w", std::move(result)});
  const Figures figures(harness);
  const auto sum = [&](const std::string& name, const std::string& labels) {
    return figures.count_and_sum(name, labels).second;
  };
  const std::string lane = "lane=\"interactive\",";
  EXPECT_NEAR(sum("tessera_item_duration_seconds", lane + "stage=\"compute\""), 0.03, 1e-9);
  EXPECT_NEAR(sum("tessera_item_duration_seconds", lane + "stage=\"total\""), 0.1, 1e-9);
  EXPECT_NEAR(sum("tessera_batch_duration_seconds", "stage=\"compute\""), 0.03, 1e-9);
  EXPECT_NEAR(sum("tessera_batch_duration_seconds", "stage=\"total\""), 0.1, 1e-9);
  EXPECT_EQ(figures.count_and_sum("tessera_batch_fill_ratio", "").first, 1);
}

TEST(CoreMetrics, SayWhatWaitsByLaneAndLength) {
  CoreHarness harness;
  harness.add_worker("w", {.max_batch_tokens = 4096, .slots = 1});
  harness.from_client("c", request_of(1, {"text 1"}));  // Takes the only slot.
  harness.from_client("c", request_of(2, {"text 2"}));
  harness.pass(40 * kMs);
  const std::string cell = "model=\"m\",lane=\"interactive\",length_class=\"1-64\"";
  const Figures waiting(harness);
  EXPECT_EQ(waiting.value("tessera_waiting_items", cell), 1);
  EXPECT_GT(waiting.value("tessera_waiting_tokens", cell), 1);
  EXPECT_NEAR(waiting.value("tessera_waiting_oldest_age_seconds", cell), 0.04, 1e-9);
  harness.work();
  const Figures done(harness);
  EXPECT_EQ(done.value("tessera_waiting_items", cell), 0);
  EXPECT_EQ(done.value("tessera_waiting_oldest_age_seconds", cell), 0);
}

TEST(CoreMetrics, AWorkersReportIsShownAndNonsenseIsNot) {
  CoreHarness harness;
  harness.add_worker("w", {.max_batch_tokens = 1000, .cost_s = 0, .cost_s_per_token = 0.001});
  const std::string label = "worker=\"w\",model=\"m\"";
  EXPECT_NEAR(Figures(harness).value("tessera_worker_peak_tokens_per_second", label), 1000, 1e-6)
      << "by its cost model until it reports";
  EXPECT_EQ(Figures(harness).value("tessera_worker_busy_seconds_total", label), -1);
  protocol::WorkerMetrics report{.batches = 3, .busy_us = 1'500'000, .peak_tokens_per_second = 77};
  report.batch_seconds = make_histogram(seconds_bounds());
  report.item_seconds = make_histogram(seconds_bounds());
  report.batch_fill = make_histogram(share_bounds());
  observe(report.batch_fill, 0.5);
  harness.step(FromWorker{"w", report});
  EXPECT_EQ(Figures(harness).value("tessera_worker_busy_seconds_total", label), 1.5);
  EXPECT_EQ(Figures(harness).value("tessera_worker_peak_tokens_per_second", label), 77);
  report.batches = 9;
  report.batch_fill.counts.pop_back();
  harness.step(FromWorker{"w", report});
  EXPECT_EQ(Figures(harness).value("tessera_worker_batches_total", label), 3);
}

TEST(CoreMetrics, WorkersOfOneNameAreToldApart) {
  CoreHarness harness;
  for (const std::string peer : {"p1", "p2", "p3"}) {
    harness.add_worker(peer, {.process = static_cast<std::uint64_t>(peer[1])});
  }
  const Figures before(harness);
  EXPECT_EQ(before.value("tessera_workers", "model=\"m\""), 3);
  EXPECT_EQ(before.value("tessera_workers_not_listed"), 0);
}

TEST(CacheControl, NoCacheComputesAnewAndNoStoreKeepsNothing) {
  CoreHarness harness;
  harness.add_worker("w");
  const auto embed = [&](std::uint64_t id, bool no_cache, bool no_store) {
    protocol::EmbedRequest request = request_of(id, {"text 1"});
    request.no_cache = no_cache;
    request.no_store = no_store;
    harness.from_client("c", std::move(request));
    harness.work();
    return static_cast<int>(harness.got<protocol::EmbedReply>("c").back().results.sources.at(0));
  };
  EXPECT_EQ(embed(1, false, true), 1);
  EXPECT_EQ(harness.cache_puts, 0U);
  EXPECT_EQ(embed(2, false, true), 1) << "the first one left nothing";
  EXPECT_EQ(embed(3, false, false), 1);
  EXPECT_EQ(harness.cache_puts, 1U);
  EXPECT_EQ(embed(4, false, true), 3) << "no-store may read";
  const std::size_t gets = harness.cache_gets;
  EXPECT_EQ(embed(5, true, false), 1);
  EXPECT_EQ(harness.cache_gets, gets) << "the second level is not asked either";
  EXPECT_EQ(harness.cache_puts, 2U) << "no-cache may write";
}

TEST(CacheControl, AFreshRequestThatJoinsALookupIsNotAnsweredByIt) {
  CoreHarness harness;
  harness.add_worker("w");
  harness.cache_answers = false;
  harness.from_client("c", request_of(1, {"text 1"}));
  protocol::EmbedRequest fresh = request_of(2, {"text 1"});
  fresh.no_cache = true;
  harness.from_client("c", std::move(fresh));
  ASSERT_EQ(harness.unanswered_gets.size(), 1U);
  const Embedding cached{.tokens = 3,
                         .values = std::vector<std::uint16_t>(harness.core_hidden_size, 0x2000)};
  CacheReply reply{.id = harness.unanswered_gets[0], .values = {}};
  reply.values.emplace_back(encode_cache_value(harness.keys_asked.at(0), cached));
  harness.step(std::move(reply));
  EXPECT_TRUE(harness.got<protocol::EmbedReply>("c").empty());
  harness.work();
  EXPECT_EQ(harness.got<protocol::EmbedReply>("c").size(), 2U);
}

TEST(Quota, IsCountedByRealTokensAndToldWithEachAnswer) {
  CoreHarness harness;
  harness.add_worker("w");
  const auto embed = [&](std::uint64_t id, const std::string& tenant) {
    protocol::EmbedRequest request = request_of(id, {"text " + std::to_string(id)});
    request.tenant = tenant;
    request.tokens_per_minute = 120;
    harness.from_client("c", std::move(request));
    harness.work();
  };
  embed(1, "t");
  const auto first = harness.got<protocol::EmbedReply>("c").back();
  EXPECT_EQ(first.quota.limit, 120U);
  EXPECT_EQ(first.quota.remaining, 120U - first.results.token_counts.at(0));
  for (std::uint64_t id = 2; harness.got<protocol::ErrorReply>("c").empty(); ++id) {
    ASSERT_LT(id, 100U);
    embed(id, "t");
  }
  const auto refused = harness.got<protocol::ErrorReply>("c").back();
  EXPECT_EQ(refused.code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(refused.quota.limit, 120U);
  EXPECT_GT(refused.retry_after_ms, 0U);
  EXPECT_EQ(Figures(harness).value("tessera_request_quota_refusals_total"), 1);
  embed(130, "another");
  EXPECT_EQ(harness.got<protocol::ErrorReply>("c").size(), 1U);
  harness.pass(Micros{refused.retry_after_ms} * kMs + 1000 * kMs);
  embed(131, "t");
  EXPECT_EQ(harness.got<protocol::ErrorReply>("c").size(), 1U);
}

TEST(Trace, GoesWithTheBatchToTheWorker) {
  CoreHarness harness;
  harness.add_worker("w");
  protocol::EmbedRequest request = request_of(1, {"text 1", "text 2"});
  request.trace = {.id = "req_7", .traceparent = "00-aa-bb-01"};
  harness.from_client("c", std::move(request));
  ASSERT_EQ(harness.batches.size(), 1U);
  ASSERT_EQ(harness.batches[0].second.traces.size(), 1U);
  EXPECT_EQ(harness.batches[0].second.traces[0].id, "req_7");
  EXPECT_EQ(harness.batches[0].second.traces[0].traceparent, "00-aa-bb-01");
}

}  // namespace
}  // namespace tessera::coordinator
