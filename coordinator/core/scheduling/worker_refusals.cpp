#include "coordinator/core/scheduling/worker_refusals.hpp"

#include <algorithm>

#include "coordinator/core/scheduling/model_identity.hpp"

namespace tessera::coordinator {
namespace {

constexpr std::size_t kEntriesMax = 32;

std::string shortened(const std::string& text) { return text.substr(0, protocol::kNameBytesMax); }

}  // namespace

void WorkerRefusals::record(const protocol::WorkerHello& hello, const std::string& reason,
                            Micros now) {
  Entry entry{.refusal = {.name = shortened(hello.name),
                          .device_kind = shortened(hello.device_kind),
                          .model = shortened(hello.model),
                          .fingerprint = shortened(own_fingerprint(hello)),
                          .reason = reason,
                          .times = 1},
              .at = now};
  const auto known = std::ranges::find_if(entries_, [&](const Entry& e) {
    return e.refusal.name == entry.refusal.name && e.refusal.reason == reason;
  });
  if (known != entries_.end()) {
    entry.refusal.times += known->refusal.times;
    entries_.erase(known);
  } else if (entries_.size() >= kEntriesMax) {
    entries_.pop_back();
  }
  entries_.push_front(std::move(entry));
}

std::vector<protocol::WorkerRefusal> WorkerRefusals::list(Micros now) const {
  std::vector<protocol::WorkerRefusal> refusals;
  for (const Entry& entry : entries_) {
    refusals.push_back(entry.refusal);
    refusals.back().age_s = static_cast<double>(now - entry.at) / 1e6;
  }
  return refusals;
}

}  // namespace tessera::coordinator
