#include "clients/gateway/batches/batch_run.hpp"

#include <chrono>
#include <ctime>
#include <span>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/model/identity/digest.hpp"

namespace tessera::gateway {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kTellEvery{1000};
constexpr milliseconds kHelloWait{5000};
constexpr std::size_t kFileIdDigits = 32;

Error later(std::string why) { return {ErrorCode::kUnavailable, std::move(why)}; }

}  // namespace

std::string batch_file_id(const std::string& batch_id, std::string_view what) {
  const std::string text = batch_id + "/" + std::string(what);
  return "file-" + to_hex(blake2b(std::as_bytes(std::span(text)))).substr(0, kFileIdDigits);
}

BatchRun::BatchRun(client::Client& client, FileStore& files, BatchLease& lease,
                   const BatchRunOptions& options, BatchWatcher watcher,
                   const std::atomic<bool>& stop)
    : client_(client),
      files_(files),
      lease_(lease),
      options_(options),
      watcher_(std::move(watcher)),
      stop_(stop),
      id_(lease.record().id),
      names_(id_),
      pace_(lease.record().tokens_per_minute, TokenPace::TimePoint::clock::now()) {}

BatchRun::Why BatchRun::why_not() const {
  if (stop_ || !lease_.held()) {
    return Why::kStop;
  }
  if (lease_.cancel_wanted()) {
    return Why::kCancelled;
  }
  return std::time(nullptr) >= lease_.record().expires_at ? Why::kExpired : Why::kGoOn;
}

bool BatchRun::update(const std::function<void(BatchRecord&)>& change) {
  const BatchStatus before = lease_.record().status;
  if (!lease_.update(change)) {
    return false;
  }
  const BatchStatus now = lease_.record().status;
  if (now != before) {
    log::info("{}: {}", id_, to_string(now));
    watcher_.on_status(now);
  }
  return true;
}

Result<void> BatchRun::run() {
  watcher_.on_status(lease_.record().status);
  auto folder = files_.work_folder(id_);
  if (!folder) {
    return folder.error();
  }
  folder_ = *folder;
  try {
    return run_in(*folder);
  } catch (const FatalError& error) {
    return later(error.what());
  }
}

Result<void> BatchRun::run_in(const std::filesystem::path& folder) {
  output_ = std::make_unique<BatchOutput>(folder, lease_.holder());
  (void)refresh();
  if (why_not() == Why::kCancelled) {
    cancel_job();
    return finish(BatchStatus::kCancelled);
  }
  const BatchStatus status = lease_.record().status;
  if (!progress_ && status != BatchStatus::kValidating) {
    return fail("internal_error", "What the batch had done is gone from the files' folder.");
  }
  auto opened = open_input();
  if (!opened || !*opened) {
    return opened ? fail("input_file_not_found", "The input file is gone.") : opened.error();
  }
  if (!progress_) {
    auto checked = check();
    if (!checked || !*checked) {
      return checked ? Result<void>() : checked.error();
    }
  }
  return run_lines();
}

// Nothing else is kept of the input: an open file outlives its removal, but not this process.
Result<bool> BatchRun::open_input() {
  const BatchRecord& record = lease_.record();
  auto info = files_.find(record.tenant, record.input_file_id);
  if (!info) {
    return info.error().code == ErrorCode::kNotFound ? Result<bool>(false) : info.error();
  }
  input_ = std::make_unique<InputFile>(files_.path_of(*info));
  return true;
}

// What the holder before has left; until we have said something ourselves it may still go on.
bool BatchRun::refresh() {
  if (saved_) {
    return true;
  }
  auto last = last_progress(folder_);
  if (!last) {
    return !progress_;
  }
  const bool same_pass = !progress_ || progress_->pass == last->pass;
  progress_ = std::move(last);
  progress_->segments.push_back({.holder = lease_.holder()});
  told_completed_ = progress_->completed;
  told_failed_ = progress_->failed;
  return same_pass;
}

// True: go on with the lines. False: the batch has ended, or we are to stop.
Result<bool> BatchRun::check() {
  const auto hello = client_.connect(kHelloWait);
  if (!hello) {
    return hello.error();
  }
  const CheckRules rules{.models = hello->models,
                         .accept_token_ids = options_.accept_token_ids,
                         .items_max = options_.items_max};
  auto found = check_input(*input_, rules, names_, folder_, output_->errors(), [this] {
    const Why why = why_not();
    return why == Why::kGoOn || why == Why::kExpired;  // Its lines are told that they expired.
  });
  if (!found) {
    return why_not() == Why::kCancelled ? Result<bool>(finish(BatchStatus::kCancelled).ok())
                                        : Result<bool>(false);
  }
  if (!found->faults.empty()) {
    const bool told = update([&](BatchRecord& record) {
      record.faults = found->faults;
      record.total = found->plan.lines;
      end_batch(record, BatchStatus::kFailed, std::time(nullptr));
    });
    if (told) {
      files_.remove_work_folder(id_);
    }
    return false;
  }
  progress_.emplace();
  progress_->plan = std::move(found->plan);
  progress_->failed = found->refused;
  progress_->segments.push_back({.holder = lease_.holder()});
  output_->sync(progress_->segments.back());
  save_progress(folder_, *progress_);
  saved_ = true;
  return true;
}

// The record is changed before any job is opened: a holder that was only slow learns here that it
// is none any more.
Result<void> BatchRun::run_lines() {
  const bool told = update([&](BatchRecord& record) {
    record.model = progress_->plan.model;
    record.total = progress_->plan.lines;
    begin_lines(record, std::time(nullptr));
  });
  if (!told) {
    return {};
  }
  const std::size_t passes = progress_->plan.specs.size();
  while (progress_->pass < passes && why_not() == Why::kGoOn) {
    if (auto done = run_pass(); !done) {
      return done.error();
    }
  }
  const Why why = why_not();
  if (why == Why::kStop) {
    return {};
  }
  if (progress_->pass == passes) {
    return finish(BatchStatus::kCompleted);
  }
  cancel_job();
  return finish(why == Why::kCancelled ? BatchStatus::kCancelled : BatchStatus::kExpired);
}

protocol::OpenJob BatchRun::job_of_pass() const {
  return {.job_key = id_ + "/" + std::to_string(progress_->pass),
          .spec = progress_->plan.specs.at(progress_->pass),
          .chunk_items = LineGroups::kItemsMax,
          .tenant = lease_.record().tenant,
          .trace = {.id = id_}};
}

// The ledger then forgets its items.
void BatchRun::cancel_job() {
  if (!progress_ || progress_->pass >= progress_->plan.specs.size()) {
    return;
  }
  auto job = client_.open_job(job_of_pass(), kHelloWait);
  auto cancelled = job ? job->cancel(kHelloWait) : job.error();
  if (!cancelled && cancelled.error().code != ErrorCode::kCancelled) {
    log::warn("{}: its job could not be cancelled: {}", id_, cancelled.error().message);
  }
}

// False: not all of it was done, since why_not() says why.
Result<bool> BatchRun::run_pass() {
  BatchPass pass({.client = client_,
                  .input = *input_,
                  .folder = folder_,
                  .names = names_,
                  .progress = *progress_,
                  .output = *output_,
                  .pace = pace_,
                  .open = job_of_pass(),
                  .items_max = options_.items_max,
                  .go_on = [this] { return why_not() == Why::kGoOn; },
                  .on_progress =
                      [this] {
                        saved_ = true;
                        tell_progress(false);
                      },
                  .refresh = [this] { return refresh(); }});
  auto done = pass.run();
  if (!done && why_not() != Why::kGoOn) {
    return false;
  }
  if (!done &&
      done.error().code == ErrorCode::kCancelled) {  // By somebody who knows the job alone.
    (void)update([](BatchRecord& record) { (void)request_cancel(record, std::time(nullptr)); });
    return false;
  }
  if (!done || !*done) {
    return done;
  }
  ++progress_->pass;
  progress_->done = {};
  save_progress(folder_, *progress_);
  saved_ = true;
  tell_progress(true);
  return true;
}

void BatchRun::tell_progress(bool always) {
  const auto now = BatchLease::Clock::now();
  if (!always && now - told_at_ < kTellEvery) {
    return;
  }
  told_at_ = now;
  tell_lines();
  (void)update([this](BatchRecord& record) { copy_counts(record); });
}

void BatchRun::tell_lines() {
  watcher_.on_lines(progress_->completed - told_completed_, progress_->failed - told_failed_);
  told_completed_ = progress_->completed;
  told_failed_ = progress_->failed;
}

void BatchRun::copy_counts(BatchRecord& record) const {
  record.completed = progress_->completed;
  record.failed = progress_->failed;
  record.tokens = progress_->tokens;
  record.cached_tokens = progress_->cached_tokens;
}

}  // namespace tessera::gateway
