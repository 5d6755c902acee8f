#include "clients/cli/up/local_cluster.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "clients/cli/command.hpp"
#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/stop_signal.hpp"

namespace tessera::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr int kLookMs = 100;
constexpr seconds kRestartMax{30};
constexpr seconds kHealthyAfter{60};  // Who ran so long starts again at the short back-off.

int threads_for(const LocalClusterOptions& options) {
  if (options.threads > 0) {
    return options.threads;
  }
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / static_cast<int>(options.devices.size()));
}

bool names_files(const std::string& argument) {
  return argument == "--files" || argument.starts_with("--files=");
}

// Changes whenever the file is replaced; empty while there is none. A file that an earlier
// coordinator left, or one that runs and whose folder we are to leave alone, is so told from ours.
std::string version_of(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return {};
  }
  return std::to_string(status.st_ino) + " " + std::to_string(status.st_mtim.tv_sec) + "." +
         std::to_string(status.st_mtim.tv_nsec);
}

}  // namespace

LocalCluster::LocalCluster(LocalClusterOptions options, const StopSignal& stop)
    : options_(std::move(options)), stop_(stop) {}

// The coordinator locks the folder, too, unless it is given a Redis.
void LocalCluster::claim_data_dir() {
  std::error_code error;
  std::filesystem::create_directories(options_.data_dir + "/logs", error);
  if (error) {
    throw FatalError("cannot make " + options_.data_dir + "/logs: " + error.message());
  }
  if (const auto holder = lock_.take(options_.data_dir + "/up.lock", "tessera up")) {
    throw FatalError("the data folder " + options_.data_dir + " is " + to_string(*holder) +
                     "; choose another --data-dir");
  }
}

std::string LocalCluster::ports_path() const { return options_.data_dir + "/coordinator.json"; }

std::string LocalCluster::log_path(const std::string& name) const {
  return options_.data_dir + "/logs/" + name + ".log";
}

std::vector<std::string> LocalCluster::coordinator_command() const {
  std::vector<std::string> command{program_folder() + "/tessera-coordinator",
                                   "--listen",
                                   client_address_,
                                   "--worker-listen",
                                   worker_address_,
                                   "--model",
                                   options_.model,
                                   "--data-dir",
                                   options_.data_dir,
                                   "--port-file",
                                   ports_path()};
  if (!options_.redis.empty()) {
    command.insert(command.end(), {"--redis", options_.redis});
  }
  command.insert(command.end(), options_.coordinator_args.begin(), options_.coordinator_args.end());
  return command;
}

std::vector<std::string> LocalCluster::worker_command(std::size_t number) const {
  const std::string& device = options_.devices[number];
  const std::size_t equals = options_.model.find('=');
  std::vector<std::string> command{
      program_folder() + "/tessera-worker",
      "--coordinator",
      worker_address_,
      "--model",
      equals == std::string::npos ? options_.model : options_.model.substr(equals + 1),
      "--device",
      device,
      "--name",
      "local-" + std::to_string(number)};
  if (equals != std::string::npos) {
    command.insert(command.end(), {"--model-name", options_.model.substr(0, equals)});
  }
  if (device == "cpu") {
    command.insert(command.end(), {"--threads", std::to_string(threads_for(options_))});
  }
  if (options_.rehash) {
    command.emplace_back("--rehash");
  }
  command.insert(command.end(), options_.worker_args.begin(), options_.worker_args.end());
  return command;
}

std::vector<std::string> LocalCluster::gateway_command(const std::string& listen) const {
  std::vector<std::string> command{program_folder() + "/tessera-gateway",
                                   "--listen",
                                   listen,
                                   "--coordinator",
                                   client_address_,
                                   "--model",
                                   options_.model,
                                   "--port-file",
                                   options_.data_dir + "/gateway.json"};
  if (std::ranges::none_of(options_.gateway_args, names_files)) {
    command.insert(command.end(), {"--files", options_.data_dir + "/files"});
  }
  command.insert(command.end(), options_.gateway_args.begin(), options_.gateway_args.end());
  return command;
}

bool LocalCluster::start() {
  client_address_ = options_.listen;
  worker_address_ = options_.worker_listen;
  claim_data_dir();
  const std::string old_ports = version_of(ports_path());
  coordinator_.process = std::make_unique<ChildProcess>(
      ProcessSpec{"coordinator", coordinator_command(), log_path("coordinator")});
  coordinator_.process->start();
  coordinator_.started_at = SteadyClock::now();
  if (!wait_for_addresses(old_ports)) {
    return false;
  }
  // A coordinator that is started again takes the very addresses, so that everybody finds it.
  coordinator_.process->replace_command(coordinator_command());
  for (std::size_t i = 0; i < options_.devices.size(); ++i) {
    const std::string name = "worker-" + std::to_string(i);
    Supervised& worker = workers_.emplace_back();
    worker.process =
        std::make_unique<ChildProcess>(ProcessSpec{name, worker_command(i), log_path(name)});
    worker.process->start();
    worker.started_at = SteadyClock::now();
  }
  return wait_for_worker() && (options_.http.empty() || start_gateway());
}

bool LocalCluster::start_gateway() {
  const std::string ports = options_.data_dir + "/gateway.json";
  const std::string old_ports = version_of(ports);
  gateway_.process = std::make_unique<ChildProcess>(
      ProcessSpec{"gateway", gateway_command(options_.http), log_path("gateway")});
  gateway_.process->start();
  gateway_.started_at = SteadyClock::now();
  const auto deadline = SteadyClock::now() + seconds(30);
  while (!sleep_or_stop(kLookMs)) {
    if (const auto end = gateway_.process->poll_end()) {
      throw FatalError("the gateway would not start; --http HOST:PORT takes another address, " +
                       std::string("--no-http none (") + *end +
                       "):" + last_lines(log_path("gateway"), 3));
    }
    if (SteadyClock::now() > deadline) {
      throw FatalError("the gateway did not come up; see " + log_path("gateway"));
    }
    if (version_of(ports) == old_ports) {
      continue;
    }
    std::ifstream file(ports);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_object() && json.contains("url")) {
      http_url_ = json.at("url");
      // One that is started again takes the very port.
      gateway_.process->replace_command(
          gateway_command(http_url_.substr(http_url_.find("://") + 3)));
      return true;
    }
  }
  return false;
}

bool LocalCluster::wait_for_addresses(const std::string& old_ports) {
  const auto deadline = SteadyClock::now() + seconds(30);
  while (!sleep_or_stop(kLookMs)) {
    refuse_if_ended(coordinator_);
    if (SteadyClock::now() > deadline) {
      throw FatalError("the coordinator did not come up; see " + log_path("coordinator"));
    }
    if (version_of(ports_path()) == old_ports) {
      continue;
    }
    std::ifstream file(ports_path());
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_object() && json.contains("clients") && json.contains("workers")) {
      client_address_ = json.at("clients");
      worker_address_ = json.at("workers");
      return true;
    }
  }
  return false;
}

bool LocalCluster::wait_for_worker() {
  client::Client client({.coordinator = client_address_, .name = "tessera-up"});
  const auto deadline =
      SteadyClock::now() + std::chrono::milliseconds(static_cast<int>(options_.ready_s * 1000));
  while (!sleep_or_stop(kLookMs)) {
    refuse_if_ended(coordinator_);
    for (Supervised& worker : workers_) {
      refuse_if_ended(worker);
    }
    const auto status = client.status("", std::chrono::seconds(1));
    if (status && status->workers.size() >= workers_.size() && !status->models.empty()) {
      model_name_ = status->models.front().name;
      return true;
    }
    if (SteadyClock::now() > deadline) {
      throw FatalError("no worker came up in time; see " + log_path("worker-0"));
    }
  }
  return false;
}

bool LocalCluster::sleep_or_stop(int ms) const {
  pollfd stop{.fd = stop_.fd(), .events = POLLIN, .revents = 0};
  return poll(&stop, 1, ms) > 0 && stop_.take();
}

void LocalCluster::refuse_if_ended(Supervised& child) {
  if (const auto end = child.process->poll_end()) {
    const ProcessSpec& spec = child.process->spec();
    throw FatalError("the " + spec.name + " would not start (" + *end +
                     "):" + last_lines(spec.log_path, 3));
  }
}

void LocalCluster::supervise() {
  while (!sleep_or_stop(kLookMs)) {
    look_after(coordinator_);
    if (gateway_.process) {
      look_after(gateway_);
    }
    for (Supervised& worker : workers_) {
      look_after(worker);
    }
  }
}

void LocalCluster::look_after(Supervised& child) {
  const auto now = SteadyClock::now();
  ChildProcess& process = *child.process;
  if (const auto end = process.poll_end()) {
    child.restarts = now - child.started_at > kHealthyAfter ? 0 : child.restarts + 1;
    const auto wait = std::min(kRestartMax, seconds(1LL << std::min(child.restarts, 5U)));
    child.restart_at = now + wait;
    log::warn("{} ended with {}; starting it again in {} s, its log is {}", process.spec().name,
              *end, wait.count(), process.spec().log_path);
  }
  if (!process.running() && now >= child.restart_at) {
    process.start();
    child.started_at = now;
  }
}

void LocalCluster::stop() {
  std::vector<Supervised*> workers;
  for (Supervised& worker : workers_) {
    workers.push_back(&worker);
  }
  end({&gateway_}, seconds(25));
  end(workers, seconds(35));
  end({&coordinator_}, seconds(35));
}

void LocalCluster::end(std::vector<Supervised*> children, seconds patience) {
  auto deadline = SteadyClock::now() + patience;
  std::erase_if(children, [](Supervised* c) { return !c->process || !c->process->running(); });
  for (Supervised* child : children) {
    child->process->terminate();
  }
  while (!children.empty()) {
    std::erase_if(children, [](Supervised* c) { return c->process->poll_end().has_value(); });
    if (SteadyClock::now() > deadline) {
      deadline = SteadyClock::time_point::max();  // Once is enough.
      for (Supervised* child : children) {
        log::warn("{} did not stop in time and is killed", child->process->spec().name);
        child->process->kill();
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::vector<const ChildProcess*> LocalCluster::processes() const {
  std::vector<const ChildProcess*> all{coordinator_.process.get()};
  for (const Supervised& worker : workers_) {
    all.push_back(worker.process.get());
  }
  if (gateway_.process) {
    all.push_back(gateway_.process.get());
  }
  return all;
}

}  // namespace tessera::cli
