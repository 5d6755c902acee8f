#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "clients/cli/command.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kAnswerWait{10'000};

struct StatusOptions {
  ConnectOptions connect;
  std::string job;
  bool json = false;
};

Json job_json(const protocol::JobProgress& job) {
  return {{"job_id", job.job_id},
          {"job_key", job.job_key},
          {"model", job.model},
          {"state", to_string(job.state)},
          {"chunks_accepted", job.chunks_accepted},
          {"chunks_done", job.chunks_done},
          {"chunks_delivered", job.chunks_delivered},
          {"chunks_total", job.chunks_total},
          {"items_accepted", job.items_accepted},
          {"items_done", job.items_done},
          {"items_failed", job.items_failed},
          {"tokens_done", job.tokens_done},
          {"cache_hits", job.cache_hits},
          {"cache_joins", job.cache_joins},
          {"cache_misses", job.cache_misses}};
}

Json status_json(const protocol::StatusReply& status) {
  Json json = {{"epoch", status.epoch},
               {"uptime_s", status.uptime_s},
               {"cache_hits", status.cache_hits},
               {"cache_joins", status.cache_joins},
               {"cache_misses", status.cache_misses},
               {"tokens_done", status.tokens_done},
               {"queued_tokens", status.queued_tokens}};
  json["ledger"] = {{"id", status.ledger_id},
                    {"warning", status.ledger_warning},
                    {"away_s", status.ledger_away_s}};
  json["refused_workers"] = Json::array();
  for (const auto& r : status.refused_workers) {
    json["refused_workers"].push_back({{"name", r.name},
                                       {"device_kind", r.device_kind},
                                       {"model", r.model},
                                       {"fingerprint", r.fingerprint},
                                       {"reason", r.reason},
                                       {"times", r.times},
                                       {"age_s", r.age_s}});
  }
  json["models"] = Json::array();
  for (const auto& m : status.models) {
    json["models"].push_back({{"name", m.name},
                              {"fingerprint", m.fingerprint},
                              {"hidden_size", m.hidden_size},
                              {"max_seqlen", m.max_seqlen},
                              {"vocab_size", m.vocab_size},
                              {"workers", m.workers},
                              {"number_format", m.number_format},
                              {"prompt_names", m.prompt_names}});
  }
  json["workers"] = Json::array();
  for (const auto& w : status.workers) {
    json["workers"].push_back({{"name", w.name},
                               {"device", w.device},
                               {"device_kind", w.device_kind},
                               {"model", w.model},
                               {"fingerprint", w.fingerprint},
                               {"group_size", w.group_size},
                               {"batches_in_flight", w.batches_in_flight},
                               {"batches_done", w.batches_done},
                               {"tokens_done", w.tokens_done},
                               {"tokens_per_second", w.tokens_per_second},
                               {"peak_tokens_per_second", w.peak_tokens_per_second},
                               {"busy_share", w.busy_share},
                               {"batch_fill", w.batch_fill},
                               {"temperature_c", w.temperature_c}});
  }
  json["jobs"] = Json::array();
  for (const auto& job : status.jobs) {
    json["jobs"].push_back(job_json(job));
  }
  return json;
}

void print_job(const protocol::JobProgress& job) {
  fmt::print("job {}  {}  {} of {} items done, {} errors, {} from cache, {} tokens\n", job.job_id,
             to_string(job.state), job.items_done, job.items_accepted, job.items_failed,
             job.cache_hits + job.cache_joins, job.tokens_done);
}

void print_status(const protocol::StatusReply& status) {
  const std::uint64_t asked = status.cache_hits + status.cache_joins + status.cache_misses;
  fmt::print("up {:.0f} s, epoch {}; {} tokens embedded, {} queued; {} of {} items from cache\n",
             status.uptime_s, status.epoch, status.tokens_done, status.queued_tokens,
             status.cache_hits + status.cache_joins, asked);
  if (status.ledger_away_s > 0) {
    fmt::print("Redis has not been reachable for {:.0f} s: jobs wait\n", status.ledger_away_s);
  }
  if (!status.ledger_warning.empty()) {
    fmt::print("warning: {}\n", status.ledger_warning);
  }
  for (const auto& m : status.models) {
    fmt::print("model {}  width {}, up to {} tokens, {} workers{}, fingerprint {}\n", m.name,
               m.hidden_size, m.max_seqlen, m.workers,
               m.number_format.empty() ? "" : " in " + m.number_format,
               m.fingerprint.empty() ? "not known yet" : m.fingerprint.substr(0, 16));
    if (!m.prompt_names.empty()) {
      fmt::print("  prompt names: {}\n", fmt::join(m.prompt_names, ", "));
    }
  }
  for (const auto& w : status.workers) {
    fmt::print("worker {}  {} x{}, {}: {:.0f} tokens/s, {} batches done, {} in flight\n", w.name,
               w.device, w.group_size, w.model, w.tokens_per_second, w.batches_done,
               w.batches_in_flight);
    if (w.peak_tokens_per_second > 0) {
      fmt::print("  {:.0f} % busy, peak {:.0f} tokens/s, batches {:.0f} % full{}\n",
                 100 * w.busy_share, w.peak_tokens_per_second, 100 * w.batch_fill,
                 w.temperature_c > 0 ? fmt::format(", {:.0f} degrees C", w.temperature_c) : "");
    }
  }
  for (const auto& r : status.refused_workers) {
    fmt::print("refused {} times, last {:.0f} s ago: worker {}{}: {}\n", r.times, r.age_s, r.name,
               r.device_kind.empty() ? "" : " (" + r.device_kind + ")", r.reason);
  }
  for (const auto& job : status.jobs) {
    print_job(job);
  }
}

template <typename T>
T value_or_throw(Result<T> result) {
  if (!result) {
    throw FatalError(std::string(tessera::to_string(result.error().code)) + ": " +
                     result.error().message);
  }
  return std::move(*result);
}

int run_status(const StatusOptions& options) {
  client::Client client = connect(options.connect);
  const auto status = value_or_throw(client.status(options.job, kAnswerWait));
  if (!options.job.empty() && status.jobs.empty()) {
    throw FatalError("NOT_FOUND: the coordinator does not know job " + options.job);
  }
  if (options.json) {
    std::printf("%s\n", (options.job.empty() ? status_json(status) : job_json(status.jobs[0]))
                            .dump(1, ' ', false, Json::error_handler_t::replace)
                            .c_str());
  } else if (options.job.empty()) {
    print_status(status);
  } else {
    print_job(status.jobs[0]);
  }
  return kExitOk;
}

int run_cancel(const StatusOptions& options) {
  client::Client client = connect(options.connect);
  const auto job = value_or_throw(client.cancel(options.job, kAnswerWait));
  if (options.json) {
    std::printf("%s\n", job_json(job).dump(1, ' ', false, Json::error_handler_t::replace).c_str());
  } else {
    print_job(job);
  }
  return kExitOk;
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      StatusOptions& options) {
  CLI::App* command = app.add_subcommand(name, description);
  command->add_flag("--json", options.json, "The answer as JSON");
  add_connect_options(*command, options.connect);
  return command;
}

}  // namespace

void add_status(CLI::App& app, Selected& selected) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App* command = add_command(app, "status", "Show the cluster, or one job", *options);
  command->add_option("JOB", options->job, "A job's id; default: the cluster and all jobs");
  command->footer(std::string("Examples:\n  tessera status\n  tessera status --json\n") +
                  kExitCodes);
  command->callback(
      [options, &selected] { selected.run = [options] { return run_status(*options); }; });
}

void add_cancel(CLI::App& app, Selected& selected) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App* command =
      add_command(app, "cancel", "End a job without its remaining vectors", *options);
  command->add_option("JOB", options->job, "The job's id, from `tessera status`")->required();
  command->footer(std::string("What was written stays; the same `tessera submit` command goes on "
                              "from there.\nExample:\n  tessera cancel 5f2c\n") +
                  kExitCodes);
  command->callback(
      [options, &selected] { selected.run = [options] { return run_cancel(*options); }; });
}

}  // namespace tessera::cli
