#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "clients/gateway/http/router.hpp"
#include "clients/gateway/link/link.hpp"

namespace tessera::gateway {

class FileStore;
class GatewayMetrics;
class Tokenizers;

// What the handlers of one loop share; on that loop's thread, and living as long as its server.
struct Services {
  http::Loop& loop;
  http::SideThread& side;  // For bodies that take long to read.
  Link& link;
  GatewayMetrics& metrics;
  std::chrono::milliseconds request_time{600'000};  // For an answer of the coordinator.
  std::size_t items_max = 2048;                     // Of one request.
  bool accept_token_ids = false;                    // Without naming the vocabulary.
  const Tokenizers* tokenizers = nullptr;           // For /tokenize; may be none.
  FileStore* files = nullptr;                       // For /v1/files; may be none.
  http::SideThread* file_thread = nullptr;          // What FileStore does; there where it is.
  std::function<void()> batch_added;                // Wakes who runs batches; may be none.
  std::function<bool()> draining;                   // The process is about to end.
  std::string version;
};

// Each adds the routes of one family.
void add_openai_routes(http::Router& router, Services& services);
void add_model_routes(http::Router& router, Services& services);
void add_file_routes(http::Router& router, Services& services);
void add_batch_routes(http::Router& router, Services& services);
void add_tei_routes(http::Router& router, Services& services);
void add_cohere_routes(http::Router& router, Services& services);
void add_ollama_routes(http::Router& router, Services& services);
// GET /openapi.json: what clients/gateway/api/openapi.json says, with the version.
void add_openapi_route(http::Router& router, Services& services);
void add_health_routes(http::Router& router, Services& services);
void add_metrics_routes(http::Router& router, Services& services);
void add_page_routes(http::Router& router, Services& services);

}  // namespace tessera::gateway
