// How a batch ends: its files, and what its record says then.
#include <algorithm>
#include <ctime>

#include "clients/gateway/batches/batch_run.hpp"
#include "common/check.hpp"

namespace tessera::gateway {

Result<void> BatchRun::finish(BatchStatus status) {
  if (!update([](BatchRecord& record) { begin_finalizing(record, std::time(nullptr)); })) {
    return {};
  }
  std::filesystem::path unrun;
  std::uint64_t unrun_lines = 0;
  if (status == BatchStatus::kExpired) {
    unrun = write_unrun(unrun_lines);
  }
  if (progress_) {
    progress_->failed += unrun_lines;
  }
  return end(
      [status](BatchRecord& record) {
        // Somebody may have cancelled it before it was said to be finalizing.
        end_batch(record,
                  record.status == BatchStatus::kCancelling ? BatchStatus::kCancelled : status,
                  std::time(nullptr));
      },
      unrun);
}

Result<void> BatchRun::fail(const std::string& code, const std::string& message) {
  return end([&](BatchRecord& record) { fail_batch(record, code, message, std::time(nullptr)); },
             {});
}

// Files first: a record that names them is never without them. Whoever dies between makes the same
// ones again.
Result<void> BatchRun::end(const std::function<void(BatchRecord&)>& change,
                           const std::filesystem::path& more_errors) {
  std::string output_id;
  std::string error_id;
  if (progress_) {
    auto output = make_file(BatchOutput::Kind::kOutput, {});
    auto errors = output ? make_file(BatchOutput::Kind::kErrors, more_errors) : output.error();
    if (!errors) {
      return errors.error();
    }
    output_id = *output;
    error_id = *errors;
    tell_lines();
  }
  const bool told = update([&](BatchRecord& record) {
    record.output_file_id = output_id;
    record.error_file_id = error_id;
    if (progress_) {
      copy_counts(record);
    }
    change(record);
  });
  if (told) {
    files_.remove_work_folder(id_);
  }
  return {};
}

Result<std::string> BatchRun::make_file(BatchOutput::Kind kind, const std::filesystem::path& more) {
  const BatchRecord& record = lease_.record();
  const std::string what = kind == BatchOutput::Kind::kOutput ? "output" : "errors";
  const std::string id = batch_file_id(id_, what);
  if (files_.find(record.tenant, id)) {
    return id;
  }
  const auto path = join_segments(folder_, kind, progress_->segments, more,
                                  [this] { return !stop_ && lease_.held(); });
  if (path.empty()) {
    return std::string();
  }
  const std::int64_t now = std::time(nullptr);
  FileInfo info{.id = id,
                .tenant = record.tenant,
                .filename = id_ + "_" + what + ".jsonl",
                .purpose = "batch_output",
                .bytes = 0,
                .created_at = now,
                .expires_at = {}};
  if (record.output_expires_s) {
    info.expires_at = now + *record.output_expires_s;
  }
  auto adopted = files_.adopt(path, std::move(info));
  return adopted ? Result<std::string>(adopted->id) : adopted.error();
}

std::filesystem::path BatchRun::write_unrun(std::uint64_t& count) {
  const BatchPlan& plan = progress_->plan;
  const protocol::ModelInfo model = plan.model_info();
  AppendFile file(folder_ / ("unrun." + std::to_string(lease_.holder()) + ".jsonl"));
  std::vector<LineGroups> groups(plan.specs.size());
  LineReader reader(*input_);
  std::string text;
  while (reader.next(text)) {
    if (stop_ || !lease_.held()) {
      throw FatalError("stopped while writing what has expired");
    }
    auto read = read_batch_line(text, options_.items_max);
    auto* line = std::get_if<BatchLine>(&read);
    if (line == nullptr) {
      continue;
    }
    judge_batch_line(*line, model, plan.accept_token_ids);
    const auto spec = std::ranges::find(plan.specs, line->read.call.spec);
    if (line->read.problem || spec == plan.specs.end()) {
      continue;
    }
    const auto pass = static_cast<std::size_t>(spec - plan.specs.begin());
    const protocol::ItemBlock items = take_items(line->read.call.items);
    const std::uint32_t chunk = groups[pass].place(items.sizes.size(), items.payload.size());
    if (pass < progress_->pass || (pass == progress_->pass && progress_->done.contains(chunk))) {
      continue;
    }
    file.append(names_.unrun(reader.number(), line->custom_id, "batch_expired",
                             "This request could not be executed before the completion window "
                             "expired."));
    ++count;
  }
  file.sync();
  return file.path();
}

}  // namespace tessera::gateway
