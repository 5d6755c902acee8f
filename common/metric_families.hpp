#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/wire/protocol_metrics.hpp"

namespace tessera {

using LabelPairs = std::vector<std::pair<std::string_view, std::string_view>>;

// `name="value",...` as Prometheus writes it: backslash, quote and line feed escaped, bytes that
// are not UTF-8 replaced.
std::string format_labels(const LabelPairs& labels);

// Metrics in the making. A family is begun, then given its samples.
class MetricFamilies {
 public:
  MetricFamilies& begin(protocol::MetricType type, std::string name, std::string help);
  MetricFamilies& counter(std::string name, std::string help) {
    return begin(protocol::MetricType::kCounter, std::move(name), std::move(help));
  }
  MetricFamilies& gauge(std::string name, std::string help) {
    return begin(protocol::MetricType::kGauge, std::move(name), std::move(help));
  }
  MetricFamilies& histogram(std::string name, std::string help) {
    return begin(protocol::MetricType::kHistogram, std::move(name), std::move(help));
  }

  MetricFamilies& sample(double value, std::string labels = {});
  // One with other bounds than the family's first is left out: a newer peer's may differ.
  MetricFamilies& sample(const protocol::Histogram& histogram, std::string labels = {});

  // Without families that got no sample.
  std::vector<protocol::MetricFamily> take();

 private:
  std::vector<protocol::MetricFamily> families_;
};

}  // namespace tessera
