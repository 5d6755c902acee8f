#include "clients/gateway/metrics/exposition.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace tessera::gateway {
namespace {

constexpr std::size_t kSliceBytes = 32U << 10;

void append_number(double value, std::string& out) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
    return;
  }
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_line(const std::string& name, const char* suffix, const std::string& labels,
                 const std::string& more, double value, std::string& out) {
  out.append(name).append(suffix);
  if (!labels.empty() || !more.empty()) {
    out.append("{").append(labels).append(labels.empty() || more.empty() ? "" : ",");
    out.append(more).append("}");
  }
  out += ' ';
  append_number(value, out);
  out += '\n';
}

std::size_t width_of(const protocol::MetricFamily& family) {
  return family.type == protocol::MetricType::kHistogram ? family.bounds.size() + 2 : 1;
}

bool is_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

bool is_line(const std::string& text) {
  return text.find('\n') == std::string::npos && text.find('\\') == std::string::npos;
}

class ExpositionBody : public http::BodySource {
 public:
  explicit ExpositionBody(std::vector<protocol::MetricFamily> families)
      : families_(std::move(families)) {}

  State next(std::string& slice) override {
    while (slice.size() < kSliceBytes) {
      if (family_ == families_.size()) {
        return State::kEnd;
      }
      const protocol::MetricFamily& family = families_[family_];
      if (sample_ == 0) {
        append_head(family, slice);
      }
      append_sample(family, sample_, slice);
      if (++sample_ == family.labels.size()) {
        sample_ = 0;
        ++family_;
      }
    }
    return State::kMore;
  }

 private:
  const std::vector<protocol::MetricFamily> families_;
  std::size_t family_ = 0;
  std::size_t sample_ = 0;
};

}  // namespace

bool is_sound(const protocol::MetricFamily& family) {
  return is_name(family.name) && is_line(family.help) && !family.labels.empty() &&
         family.values.size() == family.labels.size() * width_of(family) &&
         std::ranges::none_of(family.labels, [](const std::string& labels) {
           return labels.find('\n') != std::string::npos;
         });
}

void append_head(const protocol::MetricFamily& family, std::string& out) {
  constexpr std::array kTypes = {"counter", "gauge", "histogram"};
  out.append("# HELP ").append(family.name).append(" ").append(family.help).append("\n");
  out.append("# TYPE ").append(family.name).append(" ");
  out.append(kTypes[static_cast<std::size_t>(family.type)]).append("\n");
}

void append_sample(const protocol::MetricFamily& family, std::size_t sample, std::string& out) {
  const std::string& labels = family.labels[sample];
  const double* values = family.values.data() + sample * width_of(family);
  if (family.type != protocol::MetricType::kHistogram) {
    append_line(family.name, "", labels, "", *values, out);
    return;
  }
  double count = 0;
  for (std::size_t i = 0; i < family.bounds.size(); ++i) {
    count += values[i];
    std::string bound = "le=\"";
    append_number(family.bounds[i], bound);
    append_line(family.name, "_bucket", labels, bound + "\"", count, out);
  }
  count += values[family.bounds.size()];
  append_line(family.name, "_bucket", labels, "le=\"+Inf\"", count, out);
  append_line(family.name, "_sum", labels, "", values[family.bounds.size() + 1], out);
  append_line(family.name, "_count", labels, "", count, out);
}

std::string exposition(const std::vector<protocol::MetricFamily>& families) {
  std::string out;
  for (const protocol::MetricFamily& family : families) {
    append_head(family, out);
    for (std::size_t i = 0; i < family.labels.size(); ++i) {
      append_sample(family, i, out);
    }
  }
  return out;
}

std::unique_ptr<http::BodySource> exposition_body(std::vector<protocol::MetricFamily> families) {
  return std::make_unique<ExpositionBody>(std::move(families));
}

}  // namespace tessera::gateway
