#include "clients/gateway/gateway.hpp"

#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/api/services.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/replace_file.hpp"
#include "common/os/stop_signal.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kDrainLook{20};
constexpr milliseconds kPublishEvery{1000};
constexpr std::chrono::minutes kSweepFilesEvery{10};
constexpr std::size_t kOtherDescriptors = 256;  // Sockets to the coordinator, files, libraries.

milliseconds ms(double seconds) { return milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

http::Limits limits_of(const Options& options) {
  return {.head_bytes = static_cast<std::size_t>(options.head_kb) << 10U,
          .body_bytes = static_cast<std::size_t>(options.body_mb) << 20U,
          .head_time = ms(options.head_s),
          .body_time = ms(options.body_s),
          .idle_time = ms(options.idle_s)};
}

// Each connection is a descriptor: what the system does not give is not promised.
std::size_t connections_within_limits(std::size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return wanted;
  }
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + kOtherDescriptors);
  (void)setrlimit(RLIMIT_NOFILE, &limit);
  (void)getrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t possible =
      limit.rlim_cur > kOtherDescriptors ? limit.rlim_cur - kOtherDescriptors : 16;
  if (possible < wanted) {
    log::warn("the system gives descriptors for {} connections, not for {}", possible, wanted);
  }
  return std::min(possible, wanted);
}

int hangup_descriptor() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGHUP);
  const int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) {
    throw FatalError("cannot make a signalfd: too many open files?");
  }
  return fd;
}

http::Router routes_of(Services& services) {
  http::Router router;
  add_openai_routes(router, services);
  add_model_routes(router, services);
  add_file_routes(router, services);
  add_batch_routes(router, services);
  add_tei_routes(router, services);
  add_cohere_routes(router, services);
  add_ollama_routes(router, services);
  add_openapi_route(router, services);
  add_health_routes(router, services);
  add_metrics_routes(router, services);
  add_page_routes(router, services);
  return router;
}

}  // namespace

std::vector<std::string> Gateway::routes() {
  http::Loop loop;
  http::SideThread side;
  net::Context context;
  Link link(loop, context, {});
  GatewayMetrics metrics(1, TESSERA_VERSION);
  Services services{.loop = loop, .side = side, .link = link, .metrics = metrics};
  const http::Router router = routes_of(services);
  std::vector<std::string> lines;
  for (const auto& route : router.routes()) {
    lines.push_back(std::string(to_string(route->method)) + " " + route->pattern);
  }
  std::ranges::sort(lines);
  return lines;
}

struct Gateway::Worker {
  Worker(Gateway& gateway, AccessRules rules, std::size_t index)
      : access(std::move(rules)),
        link(loop, gateway.context_, {.coordinator = gateway.options_.coordinator}),
        services{.loop = loop,
                 .side = gateway.side_,
                 .link = link,
                 .metrics = gateway.metrics_,
                 .request_time = ms(gateway.options_.request_s),
                 .accept_token_ids = gateway.options_.accept_token_ids,
                 .tokenizers = gateway.tokenizers_.get(),
                 .files = gateway.files_.get(),
                 .file_thread = gateway.file_thread_.get(),
                 .batch_added =
                     [&gateway] {
                       if (gateway.batch_runner_) {
                         gateway.batch_runner_->wake();
                       }
                     },
                 .draining = [&gateway] { return gateway.draining_.load(); },
                 .version = TESSERA_VERSION},
        server(loop, routes_of(services), hooks(), limits_of(gateway.options_), gateway.held_,
               gateway.tls_.get()) {
    loop.every(kPublishEvery, [this, index] { services.metrics.publish(index, figures()); });
  }

  LoopFigures figures() const {
    return {.connections = server.connections(),
            .open_questions = link.open_questions(),
            .reconnects = link.reconnects(),
            .asked_again = link.asked_again(),
            .coordinator_answers = link.ready()};
  }

  http::Hooks hooks() {
    return {.admit = [this](http::Request& r,
                            const http::Route& route) { return access.admit(r, route); },
            .screen = [this](const http::Request& r) { return access.screen(r); },
            .respond_to_problem = respond_to_problem,
            .finished =
                [this](const http::Finished& f) {
                  services.metrics.on_finished(f);
                  log_request(f);
                }};
  }
  static void log_request(const http::Finished& f) {
    const auto level = f.status >= 500 ? log::Level::kWarn : log::Level::kDebug;
    const protocol::RequestTrace trace{
        .id = f.request->id, .traceparent = std::string(f.request->headers.get("traceparent"))};
    log::about(level, trace, "{} {} {} in {} out {} us {}{}", to_string(f.request->method),
               f.request->path.substr(0, 200), f.status, f.bytes_in, f.bytes_out, f.took.count(),
               f.complete ? "" : " cut off");
  }

  http::Loop loop;
  Access access;
  Link link;
  Services services;
  http::Server server;
};

Gateway::Gateway(const Options& options)
    : options_(options),
      address_(http::parse_listen_address(options.listen)),
      metrics_(static_cast<std::size_t>(options.io_threads), TESSERA_VERSION) {
  const bool loopback = http::is_loopback(address_);
  if (options_.keys.empty() && !loopback && !options_.insecure) {
    throw FatalError(options_.listen +
                     " is not on the loopback interface, so --keys FILE is needed; --insecure "
                     "lets everybody in");
  }
  if (!options_.tls_cert.empty()) {
    tls_ = std::make_unique<http::TlsContext>(options_.tls_cert, options_.tls_key);
  }
  held_.max = static_cast<std::size_t>(options_.held_mb) << 20U;
  tokenizers_ = std::make_unique<const Tokenizers>(options_.models);
  open_files();
  AccessRules rules;
  if (options_.keys.empty() && loopback) {
    rules.hosts = loopback_hosts(options_.allow_hosts);
  }
  for (int i = 0; i < options_.io_threads; ++i) {
    workers_.push_back(std::make_unique<Worker>(*this, rules, workers_.size()));
  }
  if (!options_.keys.empty()) {
    auto keys = KeyRing::load(options_.keys);
    if (!keys) {
      throw FatalError(keys.error().message);
    }
    for (const auto& worker : workers_) {
      worker->access.set_keys(std::make_shared<const KeyRing>(*keys));
    }
  }
  if (files_) {
    sweep_files();
    workers_.front()->loop.every(kSweepFilesEvery, [this] { sweep_files(); });
  }
  run_batches();
  listen();
}

Gateway::~Gateway() {
  batch_runner_.reset();  // Leaves its batches for whoever takes them next.
  // While all loops are there: a connection tells the first one of its end.
  for (const auto& worker : workers_) {
    worker->server.close_all();
  }
  file_thread_.reset();  // Its tasks post to the loops.
}

// Before the workers, which know both.
void Gateway::open_files() {
  if (options_.files.empty()) {
    return;
  }
  files_ = std::make_unique<FileStore>(FileStoreOptions{
      .folder = options_.files, .bytes_max = static_cast<std::uint64_t>(options_.files_gb) << 30U});
  file_thread_ = std::make_unique<http::SideThread>();
}

void Gateway::run_batches() {
  if (!files_ || options_.batch_runners == 0) {
    return;
  }
  batch_runner_ = std::make_unique<BatchRunner>(
      BatchRunnerOptions{.coordinator = options_.coordinator,
                         .threads = options_.batch_runners,
                         .lease = ms(options_.batch_lease_s),
                         .run = {.accept_token_ids = options_.accept_token_ids}},
      *files_, metrics_);
}

void Gateway::sweep_files() {
  file_thread_->post([files = files_.get()] {
    if (const std::size_t gone = files->sweep(std::time(nullptr)); gone > 0) {
      log::info("{} files had expired or were left behind, and are removed", gone);
    }
  });
}

void Gateway::listen() {
  const http::ListenLimits limits{
      .connections = connections_within_limits(static_cast<std::size_t>(options_.connections)),
      .per_client = static_cast<std::size_t>(options_.client_connections)};
  listener_ = std::make_unique<http::Listener>(
      workers_.front()->loop, address_, limits,
      [this](int fd, std::string peer) { accepted(fd, std::move(peer)); });
  address_.port = listener_->port();
  log::info("serving at {}, coordinator {}", url(), options_.coordinator);
  if (!options_.port_file.empty()) {
    write_port_file();
  }
}

std::string Gateway::url() const {
  const bool v6 = address_.host.find(':') != std::string::npos;
  return std::string(tls_ ? "https" : "http") + "://" +
         (v6 ? "[" + address_.host + "]" : address_.host) + ":" + std::to_string(address_.port);
}

void Gateway::write_port_file() const {
  replace_file(options_.port_file,
               R"({"url":)" + json_string(url()) + R"(,"pid":)" + std::to_string(getpid()) + "}\n");
}

void Gateway::accepted(int fd, std::string peer) {
  Worker& worker = *workers_[next_worker_++ % workers_.size()];
  http::Loop& first = workers_.front()->loop;
  worker.loop.post([this, &worker, &first, fd, peer = std::move(peer)] {
    worker.server.adopt(fd, peer, [this, &first, peer] {
      first.post([this, peer] { listener_->on_closed(peer); });
    });
  });
}

void Gateway::reload_keys() {
  if (options_.keys.empty()) {
    return;
  }
  auto keys = KeyRing::load(options_.keys);
  if (!keys) {
    log::error("{}; the former keys stay", keys.error().message);
    return;
  }
  log::info("{} keys read from {}", keys->size(), options_.keys);
  const auto shared = std::make_shared<const KeyRing>(std::move(*keys));
  for (const auto& worker : workers_) {
    worker->loop.post([&access = worker->access, shared] { access.set_keys(shared); });
  }
}

bool Gateway::run(const StopSignal& stop) {
  http::Loop& first = workers_.front()->loop;
  const int hangup = hangup_descriptor();
  const auto watch_stop = first.watch_readable(stop.fd(), [this, &stop] {
    while (stop.take()) {
      on_stop_signal();
    }
  });
  const auto watch_hangup = first.watch_readable(hangup, [this, hangup] {
    signalfd_siginfo info;
    while (read(hangup, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      reload_keys();
    }
  });
  for (std::size_t i = 1; i < workers_.size(); ++i) {
    threads_.emplace_back([&loop = workers_[i]->loop] { loop.run(); });
  }
  first.run();
  threads_.clear();  // They have been told to stop.
  close(hangup);
  return finished_all_;
}

void Gateway::on_stop_signal() {
  if (draining_) {
    log::warn("a second signal: ending at once");
    finished_all_ = false;
    return end();
  }
  log::info("stopping: finishing open requests");
  draining_ = true;
  if (batch_runner_) {
    batch_runner_->stop();
  }
  drain_began_ = http::Clock::now();
  check_drained();
}

void Gateway::begin_drain() {
  listening_ended_ = true;
  listener_->stop();
  for (const auto& worker : workers_) {
    worker->loop.post([&server = worker->server] { server.drain(); });
  }
}

// Connections, not requests: an answer is out when its connection is closed.
void Gateway::check_drained() {
  const auto passed = http::Clock::now() - drain_began_;
  if (!listening_ended_ && passed >= ms(options_.drain_notice_s)) {
    begin_drain();
  }
  if (listening_ended_ && listener_->open() == 0) {
    return end();
  }
  if (passed > ms(options_.drain_s)) {
    log::warn("{} connections were not finished in time", listener_->open());
    finished_all_ = false;
    return end();
  }
  workers_.front()->loop.after(kDrainLook, [this] { check_drained(); });
}

void Gateway::end() {
  for (const auto& worker : workers_) {
    worker->loop.stop();
  }
}

}  // namespace tessera::gateway
