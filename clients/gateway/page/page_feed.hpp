#pragma once

#include <memory>
#include <string>
#include <vector>

#include "clients/gateway/api/services.hpp"

namespace tessera::gateway {

// What the page shows, once a second, as one server-sent event of JSON: metrics, jobs and models.
// Asks the coordinator only while somebody looks. One for each loop, on its thread.
class PageFeed {
 public:
  explicit PageFeed(Services& services);

  // The body of one viewer's answer; null when there are as many as may be.
  std::unique_ptr<http::BodySource> open();

  class Viewer;

 private:
  void tick();
  void ask_status(std::vector<protocol::MetricFamily> families);
  void publish(std::shared_ptr<const std::string> event);
  void forget_gone();

  Services& services_;
  std::vector<std::weak_ptr<Viewer>> viewers_;
  bool asking_ = false;
};

// {"metrics":{NAME:{"type","bounds","samples":[[LABELS,VALUE,...]]}},"jobs":[...],"models":[...]}
// of what the page needs.
std::string page_json(const std::vector<protocol::MetricFamily>& families,
                      const protocol::StatusReply& status);

}  // namespace tessera::gateway
