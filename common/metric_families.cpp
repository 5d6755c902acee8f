#include "common/metric_families.hpp"

#include "common/check.hpp"
#include "common/json_text.hpp"

namespace tessera {

std::string format_labels(const LabelPairs& labels) {
  std::string out;
  for (const auto& [name, value] : labels) {
    out += out.empty() ? "" : ",";
    out.append(name).append("=\"");
    for (std::string_view rest = value; !rest.empty();) {
      const std::size_t bytes = utf8_character(rest);
      if (bytes == 0) {
        out += "\xEF\xBF\xBD";
      } else if (rest.front() == '\n') {
        out += "\\n";
      } else {
        out += rest.front() == '\\' || rest.front() == '"' ? "\\" : "";
        out += rest.substr(0, bytes);
      }
      rest.remove_prefix(bytes == 0 ? 1 : bytes);
    }
    out += '"';
  }
  return out;
}

MetricFamilies& MetricFamilies::begin(protocol::MetricType type, std::string name,
                                      std::string help) {
  families_.push_back({.name = std::move(name),
                       .help = std::move(help),
                       .type = type,
                       .labels = {},
                       .bounds = {},
                       .values = {}});
  return *this;
}

MetricFamilies& MetricFamilies::sample(double value, std::string labels) {
  CHECK(!families_.empty() && families_.back().type != protocol::MetricType::kHistogram);
  families_.back().labels.push_back(std::move(labels));
  families_.back().values.push_back(value);
  return *this;
}

MetricFamilies& MetricFamilies::sample(const protocol::Histogram& histogram, std::string labels) {
  CHECK(!families_.empty() && families_.back().type == protocol::MetricType::kHistogram);
  protocol::MetricFamily& family = families_.back();
  if (histogram.counts.empty() || (!family.labels.empty() && family.bounds != histogram.bounds)) {
    return *this;
  }
  family.bounds = histogram.bounds;
  family.labels.push_back(std::move(labels));
  for (const std::uint64_t count : histogram.counts) {
    family.values.push_back(static_cast<double>(count));
  }
  family.values.push_back(histogram.sum);
  return *this;
}

std::vector<protocol::MetricFamily> MetricFamilies::take() {
  std::erase_if(families_, [](const protocol::MetricFamily& f) { return f.labels.empty(); });
  return std::move(families_);
}

}  // namespace tessera
