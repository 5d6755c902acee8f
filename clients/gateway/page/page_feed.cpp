#include "clients/gateway/page/page_feed.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "clients/gateway/metrics/metrics_route.hpp"
#include "common/json_text.hpp"

namespace tessera::gateway {
namespace {

constexpr std::chrono::milliseconds kPeriod{1000};
constexpr std::chrono::milliseconds kAnswerWait{3000};
constexpr std::size_t kViewersMax = 64;
constexpr std::size_t kJobsMax = 50;

// The page reads no others, and phones pay for what is sent.
constexpr std::array<std::string_view, 26> kShown = {"tessera_batch_duration_seconds",
                                                     "tessera_batch_fill_ratio",
                                                     "tessera_batches_in_flight",
                                                     "tessera_coordinator_build_info",
                                                     "tessera_coordinator_uptime_seconds",
                                                     "tessera_gateway_coordinator_up",
                                                     "tessera_item_duration_seconds",
                                                     "tessera_item_errors_total",
                                                     "tessera_items_in_work",
                                                     "tessera_items_total",
                                                     "tessera_ledger_up",
                                                     "tessera_request_duration_seconds",
                                                     "tessera_request_errors_total",
                                                     "tessera_requests_open",
                                                     "tessera_requests_total",
                                                     "tessera_tokens_total",
                                                     "tessera_waiting_items",
                                                     "tessera_waiting_oldest_age_seconds",
                                                     "tessera_waiting_tokens",
                                                     "tessera_worker_batch_fill_ratio",
                                                     "tessera_worker_batches_in_flight",
                                                     "tessera_worker_busy_ratio",
                                                     "tessera_worker_info",
                                                     "tessera_worker_peak_tokens_per_second",
                                                     "tessera_worker_temperature_celsius",
                                                     "tessera_worker_tokens_per_second"};
static_assert(std::ranges::is_sorted(kShown));

bool is_shown(const std::string& name) {
  return std::ranges::binary_search(kShown, std::string_view(name));
}

void append_number(double value, std::string& out) {
  std::array<char, 32> digits{};
  value = std::isfinite(value) ? value : 0;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + 32, value).ptr);
}

void append_field(std::string& out, std::string_view name, double value) {
  out.append(",\"").append(name).append("\":");
  append_number(value, out);
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(",\"").append(name).append("\":");
  append_json_string(out, value);
}

void append_numbers(std::span<const double> values, std::string& out) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    out += i == 0 ? "" : ",";
    append_number(values[i], out);
  }
}

void append_family(const protocol::MetricFamily& family, std::string& out) {
  append_json_string(out, family.name);
  out += ":{\"bounds\":[";
  append_numbers(family.bounds, out);
  out += "],\"samples\":[";
  const std::size_t width = family.values.size() / family.labels.size();
  for (std::size_t i = 0; i < family.labels.size(); ++i) {
    out += i == 0 ? "[" : ",[";
    append_json_string(out, family.labels[i]);
    out += ',';
    append_numbers(std::span(family.values).subspan(i * width, width), out);
    out += ']';
  }
  out += "]}";
}

void append_job(const protocol::JobProgress& job, std::string& out) {
  constexpr std::array kStates = {"open", "running", "done", "cancelled"};
  out += "{\"id\":";
  append_json_string(out, job.job_id);
  append_field(out, "key", std::string_view(job.job_key));
  append_field(out, "model", std::string_view(job.model));
  append_field(out, "state", std::string_view(kStates[static_cast<std::size_t>(job.state)]));
  append_field(out, "items_accepted", static_cast<double>(job.items_accepted));
  append_field(out, "items_done", static_cast<double>(job.items_done));
  append_field(out, "items_failed", static_cast<double>(job.items_failed));
  append_field(out, "chunks_done", static_cast<double>(job.chunks_done));
  append_field(out, "chunks_total", static_cast<double>(job.chunks_total));
  append_field(out, "tokens_done", static_cast<double>(job.tokens_done));
  append_field(out, "hits", static_cast<double>(job.cache_hits + job.cache_joins));
  out += '}';
}

void append_model(const protocol::ModelInfo& model, std::string& out) {
  out += "{\"name\":";
  append_json_string(out, model.name);
  append_field(out, "width", double{1} * model.hidden_size);
  append_field(out, "workers", double{1} * model.workers);
  out += '}';
}

}  // namespace

std::string page_json(const std::vector<protocol::MetricFamily>& families,
                      const protocol::StatusReply& status) {
  std::string out = "{\"metrics\":{";
  const char* comma = "";
  for (const protocol::MetricFamily& family : families) {
    if (is_shown(family.name)) {
      out += std::exchange(comma, ",");
      append_family(family, out);
    }
  }
  out += "},\"jobs\":[";
  for (std::size_t i = 0; i < std::min(status.jobs.size(), kJobsMax); ++i) {
    out += i == 0 ? "" : ",";
    append_job(status.jobs[i], out);
  }
  out += "],\"models\":[";
  for (std::size_t i = 0; i < status.models.size(); ++i) {
    out += i == 0 ? "" : ",";
    append_model(status.models[i], out);
  }
  return out + "]}";
}

// What is told to one viewer: the newest event, whatever it has missed.
class PageFeed::Viewer {
 public:
  void tell(std::shared_ptr<const std::string> event) {
    event_ = std::move(event);
    if (wake_) {
      wake_();
    }
  }
  void end() {
    ended_ = true;
    if (wake_) {
      wake_();
    }
  }
  http::BodySource::State next(std::string& slice) {
    if (event_ != nullptr) {
      slice = *std::exchange(event_, nullptr);
      return http::BodySource::State::kMore;
    }
    return ended_ ? http::BodySource::State::kEnd : http::BodySource::State::kWait;
  }
  void on_wake(std::function<void()> wake) { wake_ = std::move(wake); }

 private:
  std::shared_ptr<const std::string> event_;
  std::function<void()> wake_;
  bool ended_ = false;
};

namespace {

class ViewerBody : public http::BodySource {
 public:
  explicit ViewerBody(std::shared_ptr<PageFeed::Viewer> viewer) : viewer_(std::move(viewer)) {}
  State next(std::string& slice) override { return viewer_->next(slice); }
  void on_wake(std::function<void()> wake) override { viewer_->on_wake(std::move(wake)); }

 private:
  std::shared_ptr<PageFeed::Viewer> viewer_;
};

}  // namespace

PageFeed::PageFeed(Services& services) : services_(services) {
  services_.loop.every(kPeriod, [this] { tick(); });
}

std::unique_ptr<http::BodySource> PageFeed::open() {
  forget_gone();
  if (viewers_.size() >= kViewersMax) {
    return nullptr;
  }
  const auto viewer = std::make_shared<Viewer>();
  viewer->tell(std::make_shared<const std::string>("retry: 2000\n\n"));
  viewers_.push_back(viewer);
  if (!asking_) {
    tick();  // Nobody looks at an empty page for a second.
  }
  return std::make_unique<ViewerBody>(viewer);
}

void PageFeed::forget_gone() {
  std::erase_if(viewers_, [](const auto& viewer) { return viewer.expired(); });
}

void PageFeed::tick() {
  forget_gone();
  if (services_.draining()) {
    for (const auto& entry : viewers_) {
      if (const auto viewer = entry.lock()) {
        viewer->end();
      }
    }
    return;
  }
  if (!viewers_.empty() && !asking_) {
    asking_ = true;
    gather_metrics(services_, [this](std::vector<protocol::MetricFamily> families) {
      ask_status(std::move(families));
    });
  }
}

void PageFeed::ask_status(std::vector<protocol::MetricFamily> families) {
  const auto question = [](std::uint64_t id) {
    return protocol::Message(protocol::StatusRequest{.request_id = id, .job_id = {}});
  };
  const auto answered = [this, families = std::move(families)](
                            const std::variant<protocol::Message, protocol::ErrorReply>& answer) {
    asking_ = false;
    const auto* message = std::get_if<protocol::Message>(&answer);
    const auto* status = message == nullptr ? nullptr : std::get_if<protocol::StatusReply>(message);
    publish(std::make_shared<const std::string>(
        "data: " + page_json(families, status == nullptr ? protocol::StatusReply{} : *status) +
        "\n\n"));
  };
  if (services_.link.ready()) {
    services_.link.ask(question, kAnswerWait, answered);
  } else {
    answered(protocol::ErrorReply{});
  }
}

void PageFeed::publish(std::shared_ptr<const std::string> event) {
  for (const auto& entry : viewers_) {
    if (const auto viewer = entry.lock()) {
      viewer->tell(event);
    }
  }
}

}  // namespace tessera::gateway
