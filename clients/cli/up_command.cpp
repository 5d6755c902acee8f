#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "clients/cli/command.hpp"
#include "clients/cli/up/local_cluster.hpp"
#include "common/check.hpp"
#include "common/model/model_folder.hpp"
#include "common/os/replace_file.hpp"
#include "common/os/stop_signal.hpp"

namespace tessera::cli {
namespace {

struct UpOptions {
  LocalClusterOptions cluster;
  std::size_t workers = 0;
  bool free_ports = false;
  bool no_http = false;
  bool json = false;
  bool log_json = false;
  std::string port_file;
};

std::string as_json(const LocalCluster& cluster) {
  nlohmann::ordered_json json = {{"clients", cluster.client_address()},
                                 {"workers", cluster.worker_address()},
                                 {"pid", getpid()}};
  if (!cluster.http_url().empty()) {
    json["http"] = cluster.http_url();
  }
  for (const ChildProcess* process : cluster.processes()) {
    json["processes"].push_back({{"name", process->spec().name},
                                 {"pid", process->pid()},
                                 {"log", process->spec().log_path}});
  }
  return json.dump() + "\n";
}

std::string curl_line(const LocalCluster& cluster) {
  const nlohmann::ordered_json body = {{"model", cluster.model_name()}, {"input", "some text"}};
  return "curl " + cluster.http_url() + "/v1/embeddings -d '" + body.dump() + "'";
}

void announce(const UpOptions& options, const LocalCluster& cluster) {
  if (!options.port_file.empty()) {
    replace_file(options.port_file, as_json(cluster));
  }
  if (options.json) {
    std::printf("%s", as_json(cluster).c_str());
  } else {
    std::printf("cluster is up: clients %s, workers %s\n", cluster.client_address().c_str(),
                cluster.worker_address().c_str());
    for (const ChildProcess* process : cluster.processes()) {
      std::printf("  %-12s pid %d, log %s\n", process->spec().name.c_str(), process->pid(),
                  process->spec().log_path.c_str());
    }
    std::printf("try: tessera embed --coordinator %s \"some text\"\n",
                cluster.client_address().c_str());
    if (!cluster.http_url().empty()) {
      std::printf("     %s\npage: %s/\n", curl_line(cluster).c_str(), cluster.http_url().c_str());
    }
    std::printf("Ctrl-C stops everything\n");
  }
  std::fflush(stdout);
}

// Before a process starts whose log would have to be read.
void check_model(const std::string& argument) {
  const std::size_t equals = argument.find('=');
  const auto checked =
      check_model_folder(equals == std::string::npos ? argument : argument.substr(equals + 1));
  if (!checked) {
    throw FatalError("--model " + argument + ": " + checked.error().message);
  }
}

int run_up(UpOptions& options) {
  LocalClusterOptions& cluster_options = options.cluster;
  check_model(cluster_options.model);
  if (options.free_ports) {
    cluster_options.listen = cluster_options.worker_listen = "tcp://127.0.0.1:*";
    cluster_options.http = "127.0.0.1:*";
  }
  if (options.no_http) {
    cluster_options.http.clear();
  }
  if (options.log_json) {
    cluster_options.coordinator_args.emplace_back("--log-json");
    cluster_options.worker_args.emplace_back("--log-json");
    cluster_options.gateway_args.emplace_back("--log-json");
  }
  if (cluster_options.devices.empty()) {
    cluster_options.devices = {"cpu"};
  }
  const std::vector<std::string> given = cluster_options.devices;
  while (cluster_options.devices.size() < options.workers) {
    cluster_options.devices.push_back(given[cluster_options.devices.size() % given.size()]);
  }
  const StopSignal stop;
  LocalCluster cluster(cluster_options, stop);
  if (cluster.start()) {
    announce(options, cluster);
    cluster.supervise();
  }
  cluster.stop();
  return kExitOk;
}

void add_options(CLI::App& command, UpOptions& options) {
  LocalClusterOptions& cluster = options.cluster;
  command.add_option("--model", cluster.model, "Hugging Face folder of the model, [NAME=]DIR")
      ->required();
  command.add_option("--workers", options.workers, "Number of workers; default: one per --device")
      ->check(CLI::Range(1, 256));
  command.add_option("--device", cluster.devices, "cpu, cuda:0, ...; once for each worker")
      ->default_str("cpu");
  command.add_option("--threads", cluster.threads, "Threads of each CPU worker; 0: cores, divided")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command.add_option("--listen", cluster.listen, "Address for clients")->capture_default_str();
  command.add_option("--worker-listen", cluster.worker_listen, "Address for workers")
      ->capture_default_str();
  command.add_flag("--free-ports", options.free_ports, "Take free ports of the loopback interface");
  command
      .add_option("--http", cluster.http, "HOST:PORT of the HTTP gateway; port * takes a free one")
      ->capture_default_str();
  command.add_flag("--no-http", options.no_http, "Start no gateway");
  command.add_option("--data-dir", cluster.data_dir, "Ledger, cache and logs; kept between runs")
      ->capture_default_str();
  command.add_option("--redis", cluster.redis, "URL of a Redis to use; default: a private one");
  command.add_option("--port-file", options.port_file,
                     "File that gets addresses and process ids as JSON when all is ready");
  command.add_option("--coordinator-arg", cluster.coordinator_args,
                     "Passed to the coordinator; may be repeated: --coordinator-arg=--flag");
  command.add_option("--worker-arg", cluster.worker_args, "Passed to each worker");
  command.add_option("--gateway-arg", cluster.gateway_args, "Passed to the gateway");
  command.add_flag("--rehash", cluster.rehash,
                   "Workers hash all of the weights, whatever is remembered of an earlier start");
  command.add_option("--ready-s", cluster.ready_s, "Longest wait for the workers, seconds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_flag("--log-json", options.log_json, "Every process logs JSON, one object a line");
  command.add_flag("--json", options.json, "Addresses and process ids as one line of JSON");
}

}  // namespace

void add_up(CLI::App& app, Selected& selected) {
  CLI::App* command = app.add_subcommand(
      "up", "Run a whole cluster on this machine: Redis, coordinator, workers, HTTP");
  auto options = std::make_shared<UpOptions>();
  add_options(*command, *options);
  command->footer(
      std::string("Stays in the foreground, starts again what dies, and stops everything on Ctrl-C "
                  "or SIGTERM.\n\nExamples:\n"
                  "  tessera up --model deploy/data/demo-model\n"
                  "  tessera up --model ~/Qwen3-Embedding-0.6B --device cuda:0 --device cuda:1\n"
                  "  tessera up --model deploy/data/demo-model --workers 2 --free-ports --json\n") +
      kExitCodes);
  command->callback(
      [options, &selected] { selected.run = [options] { return run_up(*options); }; });
}

}  // namespace tessera::cli
