#include <fmt/core.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clients/gateway/metrics/exposition.hpp"
#include "clients/gateway/metrics/gateway_metrics.hpp"
#include "clients/gateway/page/page_feed.hpp"
#include "common/histogram.hpp"
#include "common/metric_families.hpp"

namespace tessera::gateway {
namespace {

using protocol::MetricFamily;
using protocol::MetricType;

MetricFamily counter(std::string name, std::string labels, double value) {
  return {.name = std::move(name),
          .help = "What it counts.",
          .type = MetricType::kCounter,
          .labels = {std::move(labels)},
          .bounds = {},
          .values = {value}};
}

std::string read_all(http::BodySource& body) {
  std::string text;
  for (;;) {
    std::string slice;
    const auto state = body.next(slice);
    text += slice;
    if (state == http::BodySource::State::kEnd) {
      return text;
    }
    CHECK(state == http::BodySource::State::kMore && !slice.empty());
  }
}

TEST(Exposition, WritesCountersGaugesAndHistograms) {
  MetricFamilies out;
  out.counter("a_total", "Counts.").sample(3, "x=\"1\"").sample(1e15, "x=\"2\"");
  out.gauge("b", "Measures.").sample(0.25);
  auto histogram = make_histogram(std::vector<double>{0.5, 2});
  observe(histogram, 0.5);
  observe(histogram, 1, 2);
  observe(histogram, 7);
  out.histogram("c_seconds", "Times.").sample(histogram, "y=\"z\"");
  EXPECT_EQ(exposition(out.take()),
            "# HELP a_total Counts.\n# TYPE a_total counter\n"
            "a_total{x=\"1\"} 3\na_total{x=\"2\"} 1e+15\n"
            "# HELP b Measures.\n# TYPE b gauge\nb 0.25\n"
            "# HELP c_seconds Times.\n# TYPE c_seconds histogram\n"
            "c_seconds_bucket{y=\"z\",le=\"0.5\"} 1\nc_seconds_bucket{y=\"z\",le=\"2\"} 3\n"
            "c_seconds_bucket{y=\"z\",le=\"+Inf\"} 4\nc_seconds_sum{y=\"z\"} 9.5\n"
            "c_seconds_count{y=\"z\"} 4\n");
}

TEST(Exposition, InSlicesItIsTheSame) {
  std::vector<MetricFamily> families;
  for (int f = 0; f < 30; ++f) {
    MetricFamily family{.name = fmt::format("f{}_total", f), .help = "Counts.", .labels = {}};
    family.type = MetricType::kCounter;
    for (int i = 0; i < 500; ++i) {
      family.labels.push_back(fmt::format("i=\"{}\"", i));
      family.values.push_back(i);
    }
    families.push_back(std::move(family));
  }
  const std::string whole = exposition(families);
  EXPECT_EQ(read_all(*exposition_body(std::move(families))), whole);
  EXPECT_EQ(read_all(*exposition_body({})), "");
}

TEST(Exposition, LeavesOutWhatWouldSpoilTheText) {
  const MetricFamily good = counter("a_total", "x=\"1\"", 1);
  EXPECT_TRUE(is_sound(good));
  const auto sound_after = [&](auto change) {
    MetricFamily family = good;
    change(family);
    return is_sound(family);
  };
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.name = "a\nb"; }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.name = ""; }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.help = "two\nlines"; }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.labels[0] = "x=\"\n\""; }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.values = {1, 2}; }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.labels.clear(); }));
  EXPECT_FALSE(sound_after([](MetricFamily& f) { f.type = MetricType::kHistogram; }));
}

TEST(GatewayMetrics, CountsByRouteMethodAndStatus) {
  GatewayMetrics metrics(2, "1.2");
  http::Request request{.method = http::Method::kPost};
  const auto finish = [&](std::string_view route, int status, bool complete = true) {
    metrics.on_finished({.request = &request,
                         .route = route,
                         .status = status,
                         .bytes_in = 10,
                         .bytes_out = 100,
                         .took = std::chrono::milliseconds(3),
                         .complete = complete});
  };
  finish("/v1/embeddings", 200);
  finish("/v1/embeddings", 200, false);
  finish("/v1/embeddings", 429);
  finish("", 404);
  metrics.publish(0, {.connections = 3, .reconnects = 1, .coordinator_answers = true});
  metrics.publish(1, {.connections = 4, .coordinator_answers = false});
  const std::string text = exposition(metrics.families());
  const std::string labels = "{route=\"/v1/embeddings\",method=\"POST\"";
  for (const std::string& line :
       {"tessera_gateway_http_requests_total" + labels + ",code=\"200\"} 2\n",
        "tessera_gateway_http_requests_total" + labels + ",code=\"429\"} 1\n",
        std::string(
            "tessera_gateway_http_requests_total{route=\"none\",method=\"POST\",code=\"404\"} 1\n"),
        "tessera_gateway_http_request_bytes_total" + labels + "} 30\n",
        "tessera_gateway_http_response_bytes_total" + labels + "} 300\n",
        "tessera_gateway_http_requests_cut_off_total" + labels + "} 1\n",
        "tessera_gateway_http_request_duration_seconds_count" + labels + "} 3\n",
        std::string("tessera_gateway_connections 7\n"),
        std::string("tessera_gateway_coordinator_up 0\n"),
        std::string("tessera_gateway_build_info{version=\"1.2\"} 1\n")}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_NE(text.find("\nprocess_resident_memory_bytes "), std::string::npos);
}

TEST(PageJson, IsValidWhateverNamesSay) {
  MetricFamilies out;
  out.gauge("tessera_worker_busy_ratio", "h").sample(0.5, "worker=\"a\\\"b\\\\\"");
  out.gauge("tessera_not_shown", "h").sample(1);
  auto histogram = make_histogram(std::vector<double>{1});
  observe(histogram, 2);
  out.histogram("tessera_batch_fill_ratio", "h").sample(histogram);
  protocol::StatusReply status{.jobs = {}, .workers = {}, .models = {}};
  status.jobs.push_back(
      {.job_id = "i", .job_key = "</script>\xff\n\"", .model = "m", .items_done = 4});
  status.models.push_back({.name = "m", .fingerprint = {}, .hidden_size = 32});
  const auto json = nlohmann::json::parse(page_json(out.take(), status));
  EXPECT_EQ(json["metrics"].size(), 2U);
  EXPECT_EQ(json["metrics"]["tessera_worker_busy_ratio"]["samples"][0][0], "worker=\"a\\\"b\\\\\"");
  EXPECT_EQ(json["metrics"]["tessera_worker_busy_ratio"]["samples"][0][1], 0.5);
  EXPECT_EQ(json["metrics"]["tessera_batch_fill_ratio"]["samples"][0].size(), 4U);
  EXPECT_EQ(json["jobs"][0]["key"], "</script>\xEF\xBF\xBD\n\"");
  EXPECT_EQ(json["jobs"][0]["items_done"], 4);
  EXPECT_EQ(json["models"][0]["width"], 32);
  EXPECT_TRUE(nlohmann::json::accept(page_json({}, {.jobs = {}, .workers = {}, .models = {}})));
}

}  // namespace
}  // namespace tessera::gateway
