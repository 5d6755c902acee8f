#include "clients/gateway/batches/batch_output.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/check.hpp"
#include "common/os/replace_file.hpp"

namespace tessera::gateway {
namespace {

constexpr std::size_t kWaitingMax = 1U << 20;
constexpr std::size_t kCopyBytes = 1U << 20;

void copy_to(AppendFile& to, const std::filesystem::path& from, std::uint64_t bytes,
             const std::function<bool()>& go_on) {
  const OpenFile file = value_or_fatal(open_to_read(from));
  std::string buffer(kCopyBytes, '\0');
  std::uint64_t left = bytes;
  while (left > 0) {
    const ssize_t got =
        read(file.fd(), buffer.data(), std::min<std::uint64_t>(left, buffer.size()));
    if (got <= 0 || !go_on()) {
      throw FatalError(got > 0 ? "stopped while joining outputs"
                               : from.string() + " is shorter than it was");
    }
    to.append(std::string_view(buffer).substr(0, static_cast<std::size_t>(got)));
    left -= static_cast<std::uint64_t>(got);
  }
}

}  // namespace

AppendFile::AppendFile(std::filesystem::path path)
    : path_(std::move(path)), file_(value_or_fatal(open_new_file(path_, 0600))) {}

void AppendFile::append(std::string_view bytes) {
  waiting_ += bytes;
  bytes_ += bytes.size();
  if (waiting_.size() >= kWaitingMax) {
    write_waiting();
  }
}

void AppendFile::write_waiting() {
  ok_or_fatal(write_all(file_, waiting_, path_));
  dirty_ = dirty_ || !waiting_.empty();
  waiting_.clear();
}

void AppendFile::sync() {
  write_waiting();
  if (dirty_ && fdatasync(file_.fd()) != 0) {
    throw FatalError(disk_error("write", path_, errno).message);
  }
  dirty_ = false;
}

BatchOutput::BatchOutput(const std::filesystem::path& folder, std::uint64_t holder)
    : output_(path(folder, Kind::kOutput, holder)), errors_(path(folder, Kind::kErrors, holder)) {
  sync_folder(folder);
}

void BatchOutput::sync(BatchSegment& segment) {
  output_.sync();
  errors_.sync();
  segment.output_bytes = output_.bytes();
  segment.error_bytes = errors_.bytes();
}

std::filesystem::path BatchOutput::path(const std::filesystem::path& folder, Kind kind,
                                        std::uint64_t holder) {
  return folder /
         ((kind == Kind::kOutput ? "output." : "errors.") + std::to_string(holder) + ".jsonl");
}

std::filesystem::path join_segments(const std::filesystem::path& folder, BatchOutput::Kind kind,
                                    const std::vector<BatchSegment>& segments,
                                    const std::filesystem::path& more,
                                    const std::function<bool()>& go_on) {
  struct Part {
    std::filesystem::path path;
    std::uint64_t bytes = 0;
  };
  std::vector<Part> parts;
  for (const BatchSegment& segment : segments) {
    const std::uint64_t bytes =
        kind == BatchOutput::Kind::kOutput ? segment.output_bytes : segment.error_bytes;
    parts.push_back({BatchOutput::path(folder, kind, segment.holder), bytes});
  }
  if (!more.empty()) {
    parts.push_back({more, std::filesystem::file_size(more)});
  }
  std::erase_if(parts, [](const Part& part) { return part.bytes == 0; });
  if (parts.empty()) {
    return {};
  }
  // The last holder's own file, with nothing unsafe behind it, may be taken as it is. One that is
  // not there any more was taken already, by a holder that died right after.
  const bool own = !segments.empty() &&
                   parts.front().path == BatchOutput::path(folder, kind, segments.back().holder);
  if (parts.size() == 1 && (own || !std::filesystem::exists(parts.front().path))) {
    return parts.front().path;
  }
  const std::uint64_t holder = segments.empty() ? 0 : segments.back().holder;
  AppendFile joined(folder /
                    ((kind == BatchOutput::Kind::kOutput ? "joined-output." : "joined-errors.") +
                     std::to_string(holder) + ".jsonl"));
  for (const Part& part : parts) {
    copy_to(joined, part.path, part.bytes, go_on);
  }
  joined.sync();
  return joined.path();
}

}  // namespace tessera::gateway
