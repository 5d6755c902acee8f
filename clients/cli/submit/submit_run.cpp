#include "clients/cli/submit/submit_run.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/os/stop_signal.hpp"

namespace tessera::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{200};  // How often a waiting thread looks for a stop.
constexpr milliseconds kAnswerWait{30'000};
constexpr double kCompareWaitS = 2;         // For a coordinator that is not needed.
constexpr std::size_t kHeldResultsMax = 4;  // In memory, received before their turn.

// Everything that decides what the output is. The inputs' content is compared chunk by chunk.
std::string settings_of(const SubmitOptions& options) {
  const protocol::EmbedSpec& spec = options.spec;
  nlohmann::ordered_json json;
  json["model"] = spec.model;
  json["query"] = spec.query;
  json["instruction"] = spec.instruction;
  if (!spec.prompt_name.empty()) {  // Left out otherwise: so folders begun before it read the same.
    json["prompt_name"] = spec.prompt_name;
  }
  json["dimensions"] = spec.dimensions;
  json["truncate"] = static_cast<int>(spec.truncate);
  json["max_tokens"] = spec.max_tokens;
  json["float16"] = spec.vector_type == protocol::VectorType::kFloat16;
  json["input_format"] = options.read.format;
  json["field"] = options.read.field;
  json["id_field"] = options.read.id_field;
  json["chunk_items"] = options.chunk_items;
  json["output_format"] = static_cast<int>(options.output.format);
  json["shard_rows"] = options.output.shard_rows;
  return json.dump();
}

std::uint64_t total_bytes(const std::vector<std::string>& inputs) {
  std::uint64_t total = 0;
  for (const std::string& input : inputs) {
    std::error_code error;
    if (input == "-" || !std::filesystem::is_regular_file(input, error)) {
      return 0;
    }
    total += std::filesystem::file_size(input);
  }
  return total;
}

// Why the job ended, and what helps.
std::string end_of_job(const Error& error, const std::string& folder) {
  const std::string what = std::string(tessera::to_string(error.code)) + ": " + error.message;
  if (error.code == ErrorCode::kConflict) {
    return what + "; " + folder +
           " belongs to a job of other items or options: give those again, or choose another --out";
  }
  return what + "; what was written is safe, and the same command goes on from there";
}

}  // namespace

SubmitRun::SubmitRun(SubmitOptions options, const StopSignal& stop)
    : options_(std::move(options)),
      stop_signal_(stop),
      folder_(options_.output.folder, settings_of(options_)),
      manifest_(folder_.manifest()),
      written_before_(manifest_.written_chunks),
      was_finished_(manifest_.finished),
      meter_(total_bytes(options_.inputs)) {}

SubmitRun::~SubmitRun() {
  stop_ = true;
  if (reader_.joinable()) {
    reader_.join();
  }
}

int SubmitRun::run() {
  if (!open_input()) {
    return kExitInterrupted;
  }
  if (was_finished_) {
    compare_finished();
  } else {
    begin();
  }
  progress_.emplace(options_.quiet);
  reader_ = std::jthread([this] { read_input(); });
  write_until_end();
  reader_.join();
  if (read_error_ && !interrupted_) {
    throw FatalError(*read_error_);
  }
  progress_->finish(numbers());
  if (!interrupted_ && !manifest_.finished) {
    manifest_.finished = true;
    manifest_.save(options_.output.folder);
    (void)job_->wait_done(milliseconds(2000));
  }
  return report();
}

// On a thread of its own: a pipe may keep us waiting, and a stop must be heard meanwhile.
bool SubmitRun::open_input() {
  auto opening = std::async(std::launch::async,
                            [this] { return open_readers(options_.inputs, options_.read, stop_); });
  while (opening.wait_for(kLook) != std::future_status::ready) {
    if (stop_signal_.take()) {
      stop_ = true;
      opening.wait();
      return false;
    }
  }
  input_ = opening.get();
  if (!options_.quiet) {
    std::fprintf(stderr, "%s\n", input_->description().c_str());
  }
  return true;
}

void SubmitRun::begin() {
  if (folder_.claimed()) {
    output_.emplace(options_.output, manifest_);
  }
  client_.emplace(connect(options_.connect));
  open_job();
  if (!output_) {
    folder_.claim();
    output_.emplace(options_.output, manifest_);
  }
}

// Nothing is left to do, so a cluster need not be there; one that is must serve the same model.
void SubmitRun::compare_finished() {
  ConnectOptions patient = options_.connect;
  patient.connect_s = std::min(patient.connect_s, kCompareWaitS);
  client::Client client(patient.client);
  const auto wait = milliseconds(static_cast<int>(patient.connect_s * 1000));
  const auto hello = client.connect(wait);
  const auto status = hello ? client.status("", kAnswerWait) : hello.error();
  if (!status || !check_fingerprint(status->models)) {
    std::fprintf(stderr,
                 "note: the model of %s could not be compared with one that is served: %s\n",
                 options_.output.folder.c_str(),
                 status ? "it is not served here now" : status.error().message.c_str());
  }
}

// A job that was cancelled, or that the coordinator does not know as we do, is not continued: what
// is left of the input becomes a new job.
void SubmitRun::open_job() {
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto job = client_->open_job({.job_key = manifest_.job_key,
                                  .spec = options_.spec,
                                  .priority = options_.priority,
                                  .chunk_items = static_cast<std::uint32_t>(options_.chunk_items)},
                                 kAnswerWait);
    if (!job && job.error().code == ErrorCode::kConflict) {
      throw FatalError(end_of_job(job.error(), options_.output.folder));
    }
    if (!job) {
      throw FatalError(std::string(tessera::to_string(job.error().code)) + ": " +
                       job.error().message);
    }
    if (job_matches(*job)) {
      job_.emplace(std::move(*job));
      auto status = client_->status("", kAnswerWait);
      if (status) {
        check_fingerprint(status->models);
      }
      return;
    }
    output_->ahead().remove_below(UINT64_MAX);  // Of the old job; the cache has them.
    manifest_.job_key = make_job_key();
    manifest_.base_chunk = manifest_.written_chunks;
    manifest_.base_items = manifest_.items;
    manifest_.save(options_.output.folder);
  }
  throw FatalError("the coordinator would not open a new job");
}

bool SubmitRun::job_matches(const client::Job& job) {
  if (job.cancelled()) {
    return false;
  }
  const std::uint64_t written = manifest_.written_chunks - manifest_.base_chunk;
  bool matches =
      written == 0 || job.accepted_before().size() > 0 || job.delivered_before().size() > 0;
  job.delivered_before().for_each([&](std::uint32_t chunk) {
    matches =
        matches && (chunk < written || output_->ahead().contains(chunk + manifest_.base_chunk));
  });
  return matches;
}

bool SubmitRun::check_fingerprint(const std::vector<protocol::ModelInfo>& models) {
  const protocol::ModelInfo* model = served_model(models, options_.spec.model);
  if (model == nullptr || model->fingerprint.empty()) {
    return false;
  }
  // A folder that a version before began holds the fingerprint that those had.
  if (!manifest_.fingerprint.empty() && manifest_.fingerprint != model->fingerprint &&
      manifest_.fingerprint != model->former_fingerprint) {
    throw FatalError(fmt::format(
        "{} holds vectors of another model (fingerprint {:.12}...) than {} as it is served now "
        "({:.12}...); vectors of different models must not be mixed, so choose another --out",
        options_.output.folder, manifest_.fingerprint, model->name, model->fingerprint));
  }
  const bool known = !manifest_.fingerprint.empty();
  manifest_.fingerprint = model->fingerprint;
  return known || !was_finished_;
}

// the reading thread

void SubmitRun::read_input() {
  try {
    Chunker chunker(std::move(input_), options_.chunk_items);
    ChunkLog log(options_.output.folder);
    Chunk chunk;
    std::uint64_t chunks = 0;
    // A stop may cut the last chunk short, so it is looked at before the chunk is used.
    while (chunker.next(chunk) && !stop_) {
      if (was_finished_ && chunk.number >= log.size()) {
        throw FatalError("the input has grown since the job was finished; choose another --out");
      }
      if (!log.check(chunk)) {
        throw FatalError(fmt::format(
            "items {} to {} of the input are not those that {} was begun with; choose another "
            "--out",
            chunk.first_index, chunk.first_index + chunk.ids.size() - 1, options_.output.folder));
      }
      chunks = chunk.number + 1;
      if (chunk.number < written_before_) {
        meter_.on_read(chunk, true);
      } else if (!submit(chunk)) {
        return;
      }
    }
    if (!stop_) {
      end_reading(chunks);
    }
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex_);
    read_error_ = error.what();
  }
}

void SubmitRun::end_reading(std::uint64_t chunks) {
  if (chunks < written_before_) {
    throw FatalError("the input is shorter than what " + options_.output.folder +
                     " was begun with; choose another --out");
  }
  if (was_finished_ || close_job(chunks)) {
    const std::lock_guard lock(mutex_);
    total_chunks_ = chunks;
  }
}

bool SubmitRun::close_job(std::uint64_t chunks) {
  while (!stop_) {
    const auto closed =
        job_->close(static_cast<std::uint32_t>(chunks - manifest_.base_chunk), 5 * kLook);
    if (closed) {
      return true;
    }
    if (closed.error().code != ErrorCode::kDeadlineExceeded) {
      throw FatalError("the job cannot be closed: " + closed.error().message);
    }
  }
  return false;
}

bool SubmitRun::submit(Chunk& chunk) {
  meter_.on_read(chunk, false);
  protocol::ItemBlock items = std::exchange(chunk.items, {});
  const auto number = static_cast<std::uint32_t>(chunk.number - manifest_.base_chunk);
  while (!stop_) {
    const auto submitted = job_->submit(number, items, kLook);
    if (submitted) {
      // Only now: a result is written beside the items that the ledger is known to have.
      const std::lock_guard lock(mutex_);
      read_.emplace(chunk.number, std::move(chunk));
      return true;
    }
    if (submitted.error().code != ErrorCode::kResourceExhausted) {
      return false;  // The job's end; the writing thread reports it.
    }
  }
  return false;
}

// the writing thread

void SubmitRun::write_until_end() {
  while (!all_written()) {
    if (stop_signal_.take()) {
      interrupted_ = true;
      break;
    }
    if (!job_) {  // Finished before: only the input is compared.
      std::this_thread::sleep_for(milliseconds(10));
      continue;
    }
    take_results();
    write_ready();
    save_ahead();
    if (!options_.quiet) {
      meter_.ask(*client_, job_->id());
      progress_->update(numbers());
    }
  }
  stop_ = true;
}

// Whatever has arrived, so that the files are synced once for all of it.
void SubmitRun::take_results() {
  auto next = job_->next(kLook);
  while (next && *next) {
    const std::uint64_t number = (*next)->chunk + manifest_.base_chunk;
    if (number < manifest_.written_chunks || output_->ahead().contains(number)) {
      job_->acknowledge((*next)->chunk);  // The acknowledgement of an earlier run was lost.
    } else {
      results_.emplace(number, std::move((*next)->results));
    }
    next = job_->next(milliseconds(0));
  }
  if (!next) {
    stop_ = true;
    throw FatalError(end_of_job(next.error(), options_.output.folder));
  }
}

bool SubmitRun::all_written() {
  const std::lock_guard lock(mutex_);
  return read_error_ || (total_chunks_ && manifest_.written_chunks >= *total_chunks_);
}

bool SubmitRun::take_chunk(std::uint64_t number, Chunk& chunk) {
  const std::lock_guard lock(mutex_);
  const auto found = read_.find(number);
  if (found == read_.end()) {
    return false;  // Accepted in an earlier run; the reading thread is not there yet.
  }
  chunk = std::move(found->second);
  read_.erase(found);
  return true;
}

void SubmitRun::write_ready() {
  std::vector<std::uint64_t> received;  // To be acknowledged.
  const std::uint64_t first = manifest_.written_chunks;
  while (true) {
    const std::uint64_t number = manifest_.written_chunks;
    const auto result = results_.find(number);
    const bool is_ahead = output_->ahead().contains(number);
    Chunk chunk;
    if ((result == results_.end() && !is_ahead) || !take_chunk(number, chunk)) {
      break;
    }
    if (is_ahead) {
      output_->write(chunk, output_->ahead().get(number));
    } else {
      output_->write(chunk, result->second);
      received.push_back(number);
      results_.erase(result);
    }
  }
  if (manifest_.written_chunks > first) {
    if (manifest_.fingerprint.empty()) {
      if (auto status = client_->status("", kAnswerWait)) {
        check_fingerprint(status->models);
      }
    }
    output_->commit();
    for (const std::uint64_t number : received) {
      job_->acknowledge(static_cast<std::uint32_t>(number - manifest_.base_chunk));
    }
  }
}

// The coordinator sends only so many results ahead of their acknowledgements. Those that cannot be
// written yet must therefore not pile up unacknowledged, or the one that is waited for never comes.
void SubmitRun::save_ahead() {
  while (results_.size() > kHeldResultsMax) {
    const auto last = std::prev(results_.end());
    output_->ahead().put(last->first, last->second);
    job_->acknowledge(static_cast<std::uint32_t>(last->first - manifest_.base_chunk));
    results_.erase(last);
  }
}

ProgressNumbers SubmitRun::numbers() const {
  ProgressNumbers numbers = meter_.numbers(manifest_, output_ ? output_->tokens() : 0);
  numbers.connected = !client_ || client_->connected();
  return numbers;
}

int SubmitRun::report() const {
  const Manifest& m = manifest_;
  if (options_.json) {
    auto json = nlohmann::ordered_json::parse(m.to_json());
    json["folder"] = options_.output.folder;
    json["interrupted"] = interrupted_;
    std::printf("%s\n", json.dump().c_str());
  } else if (interrupted_) {
    std::printf("stopped: %lu items are safe in %s; the same command goes on from there\n",
                static_cast<unsigned long>(m.items), options_.output.folder.c_str());
  } else {
    const std::string made = m.output.rows == 0 ? std::string("no vectors")
                                                : fmt::format("{} vectors in {}/{}", m.output.rows,
                                                              options_.output.folder, "vectors*");
    std::printf("%s%s; %lu tokens, %lu computed, %lu from cache, %lu cut\n",
                was_finished_ ? "already complete: " : "", made.c_str(),
                static_cast<unsigned long>(m.tokens), static_cast<unsigned long>(m.cache_misses),
                static_cast<unsigned long>(m.cache_hits + m.cache_joins),
                static_cast<unsigned long>(m.cut));
    if (m.errors > 0) {
      std::printf("%lu items have no vector: see %s/errors.jsonl\n",
                  static_cast<unsigned long>(m.errors), options_.output.folder.c_str());
    }
  }
  if (interrupted_) {
    return kExitInterrupted;
  }
  return m.errors > 0 ? kExitItemErrors : kExitOk;
}

}  // namespace tessera::cli
