#include "clients/gateway/batches/batch_pass.hpp"

#include <algorithm>
#include <utility>

#include "clients/cpp/items.hpp"
#include "clients/gateway/batches/lines/batch_line.hpp"
#include "common/check.hpp"
#include "common/log.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLook{200};  // How often a waiting thread looks for a stop.
constexpr milliseconds kAnswerWait{5000};
constexpr std::size_t kResultsPerStep = 12;  // The coordinator sends 16 ahead.
constexpr double kBytesPerToken = 4;         // A guess for texts.

}  // namespace

BatchPass::~BatchPass() {
  stop_ = true;
  if (reader_.joinable()) {
    reader_.join();
  }
}

Result<bool> BatchPass::run() {
  if (auto opened = open_job(); !opened) {
    return opened.error();
  }
  done_before_ = it_.progress.done;
  reader_ = std::jthread([this] { read_input(); });
  auto ended = write_until_end();
  stop_ = true;
  reader_.join();
  if (ended && *ended) {
    leave_job();
  }
  return ended;
}

// From the moment at which the job is ours no former holder's acknowledgement counts, so what the
// disk says then is all that the ledger has given up.
Result<void> BatchPass::open_job() {
  while (!job_) {
    auto job = it_.client.open_job(it_.open, kAnswerWait);
    if (job) {
      job_.emplace(std::move(*job));
    } else if (!it_.go_on()) {
      return Error{ErrorCode::kUnavailable, "stopped while waiting for the coordinator"};
    } else if (job.error().code != ErrorCode::kDeadlineExceeded &&
               job.error().code != ErrorCode::kUnavailable) {
      return job.error();
    }
  }
  if (!it_.refresh()) {
    return Error{ErrorCode::kUnavailable, "another holder has gone on meanwhile"};
  }
  return job_->cancelled() ? Result<void>(Error{ErrorCode::kCancelled, "the job was cancelled"})
                           : Result<void>();
}

// All is safe here. A job that lost results to an earlier holder cannot end by itself.
void BatchPass::leave_job() {
  if (!job_->wait_done(kAnswerWait)) {
    if (const auto cancelled = job_->cancel(kAnswerWait); !cancelled) {
      log::warn("job {} could not be ended: {}", it_.open.job_key, cancelled.error().message);
    }
  }
}

// the reading thread

void BatchPass::read_input() {
  try {
    read_lines();
  } catch (const std::exception& error) {
    const std::lock_guard lock(mutex_);
    read_error_ = error.what();
  }
}

void BatchPass::read_lines() {
  const BatchPlan& plan = it_.progress.plan;
  const protocol::EmbedSpec& spec = it_.open.spec;
  const protocol::ModelInfo model = plan.model_info();
  LineReader reader(it_.input);
  LineGroups groups;
  std::string text;
  std::uint32_t chunk = 0;
  Group group;
  while (!stop_ && reader.next(text)) {
    auto read = read_batch_line(text, it_.items_max);
    auto* line = std::get_if<BatchLine>(&read);
    if (line == nullptr || reader.too_long()) {
      throw FatalError("line " + std::to_string(reader.number()) +
                       " of the input is not what it was");
    }
    judge_batch_line(*line, model, plan.accept_token_ids);
    if (line->read.problem || line->read.call.spec != spec) {
      continue;  // An error line has it, or another pass.
    }
    const bool is_ids = line->read.call.items.has_ids();
    const protocol::ItemBlock items = take_items(line->read.call.items);
    const std::uint32_t place = groups.place(items.sizes.size(), items.payload.size());
    if (place != chunk && !submit(chunk, std::exchange(group, {}))) {
      return;
    }
    chunk = place;
    group.lines.push_back({.number = reader.number(),
                           .custom_id = std::move(line->custom_id),
                           .items = static_cast<std::uint32_t>(items.sizes.size()),
                           .dtype = line->read.dtype,
                           .base64 = line->read.base64});
    group.tokens_guessed += static_cast<double>(items.payload.size()) / kBytesPerToken +
                            (is_ids ? 0 : static_cast<double>(items.sizes.size()));
    append_items(group.items, items);
  }
  if (!stop_ && (group.lines.empty() || submit(chunk, std::move(group)))) {
    close_job(groups.count());
  }
}

bool BatchPass::wait_for_pace(double tokens) {
  while (!stop_) {
    {
      const std::lock_guard lock(mutex_);
      if (it_.pace.ready(TokenPace::TimePoint::clock::now())) {
        it_.pace.spend(tokens);
        return true;
      }
    }
    std::this_thread::sleep_for(kLook);
  }
  return false;
}

bool BatchPass::submit(std::uint32_t chunk, Group group) {
  if (done_before_.contains(chunk)) {
    return true;
  }
  if (!wait_for_pace(group.tokens_guessed)) {
    return false;
  }
  while (!stop_) {
    const auto submitted = job_->submit(chunk, group.items, kLook);
    if (submitted) {
      group.items = {};
      // Only now: a result is written beside the items that the ledger is known to have.
      const std::lock_guard lock(mutex_);
      read_.emplace(chunk, std::move(group));
      return true;
    }
    if (submitted.error().code != ErrorCode::kResourceExhausted) {
      return false;  // The job's end; the other thread reports it.
    }
  }
  return false;
}

void BatchPass::close_job(std::uint32_t chunks) {
  while (!stop_) {
    const auto closed = job_->close(chunks, kLook * 5);
    if (closed || closed.error().code == ErrorCode::kCancelled) {
      const std::lock_guard lock(mutex_);
      chunks_ = chunks;
      return;
    }
    if (closed.error().code != ErrorCode::kDeadlineExceeded &&
        closed.error().code != ErrorCode::kUnavailable) {
      throw FatalError("the job cannot be closed: " + closed.error().message);
    }
  }
}

// the calling thread

bool BatchPass::all_done() {
  const std::lock_guard lock(mutex_);
  if (read_error_) {
    throw FatalError(*read_error_);
  }
  return chunks_ && it_.progress.done.size() >= *chunks_;
}

Result<bool> BatchPass::write_until_end() {
  while (!all_done()) {
    if (!it_.go_on()) {
      return false;
    }
    if (auto taken = take_results(); !taken) {
      return taken.error();
    }
    if (write_ready()) {
      it_.on_progress();
    }
  }
  return true;
}

// Whatever has arrived, so that the files are synced once for all of it.
Result<void> BatchPass::take_results() {
  auto next = job_->next(results_.empty() ? kLook : milliseconds(1));
  while (next && *next) {
    const std::uint32_t chunk = (*next)->chunk;
    if (it_.progress.done.contains(chunk)) {
      job_->acknowledge(chunk);  // The acknowledgement of an earlier run was lost.
    } else {
      results_.emplace(chunk, std::move((*next)->results));
    }
    next =
        results_.size() >= kResultsPerStep
            ? Result<std::optional<protocol::ChunkResult>>(std::optional<protocol::ChunkResult>())
            : job_->next(milliseconds(0));
  }
  return next ? Result<void>() : Result<void>(next.error());
}

bool BatchPass::write_ready() {
  std::vector<std::uint32_t> written;
  for (auto result = results_.begin(); result != results_.end();) {
    Group group;
    {
      const std::lock_guard lock(mutex_);
      const auto found = read_.find(result->first);
      if (found == read_.end()) {
        ++result;  // Accepted in an earlier run; the reading thread is not there yet.
        continue;
      }
      group = std::move(found->second);
      read_.erase(found);
    }
    write_group(group, result->second);
    written.push_back(result->first);
    result = results_.erase(result);
  }
  if (written.empty()) {
    return false;
  }
  BatchProgress& progress = it_.progress;
  it_.output.sync(progress.segments.back());
  for (const std::uint32_t chunk : written) {
    progress.done.insert(chunk);
  }
  save_progress(it_.folder, progress);
  for (const std::uint32_t chunk : written) {
    job_->acknowledge(chunk);
  }
  return true;
}

void BatchPass::write_group(const Group& group, const protocol::ResultBlock& results) {
  std::size_t items = 0;
  for (const PlacedLine& line : group.lines) {
    items += line.items;
  }
  if (auto fits = client::check_results(results, items); !fits) {
    throw FatalError(fits.error().message);
  }
  BatchProgress& progress = it_.progress;
  std::size_t first = 0;
  std::size_t first_row = 0;
  double counted = 0;
  for (const PlacedLine& line : group.lines) {
    protocol::ResultBlock own = slice_of(results, first, line.items, first_row);
    first += line.items;
    first_row += static_cast<std::size_t>(std::ranges::count(own.codes, 0));
    for (const std::uint32_t tokens : own.token_counts) {
      counted += tokens;
    }
    const LineResult done = result_line(it_.names, line, std::move(own), progress.plan.model);
    (done.ok ? it_.output.output() : it_.output.errors()).append(done.text);
    ++(done.ok ? progress.completed : progress.failed);
    progress.tokens += done.tokens;
    progress.cached_tokens += done.cached_tokens;
  }
  const std::lock_guard lock(mutex_);
  it_.pace.correct(group.tokens_guessed, counted);
}

}  // namespace tessera::gateway
