#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "clients/gateway/batches/batch_progress.hpp"
#include "clients/gateway/files/disk.hpp"

namespace tessera::gateway {

// A file that is only appended to, by one thread. Functions throw FatalError with the system's
// reason.
class AppendFile {
 public:
  explicit AppendFile(std::filesystem::path path);  // Makes it, empty.

  void append(std::string_view bytes);  // Written once there are enough of them.
  void sync();                          // All that was appended is safe.
  std::uint64_t bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void write_waiting();
  std::filesystem::path path_;
  OpenFile file_;
  std::string waiting_;
  std::uint64_t bytes_ = 0;
  bool dirty_ = false;
};

// The two outputs of one holder of a batch's lease, in the batch's work folder.
class BatchOutput {
 public:
  enum class Kind : std::uint8_t { kOutput, kErrors };

  BatchOutput(const std::filesystem::path& folder, std::uint64_t holder);
  AppendFile& output() { return output_; }
  AppendFile& errors() { return errors_; }
  // Makes both safe and says so in `segment`.
  void sync(BatchSegment& segment);

  static std::filesystem::path path(const std::filesystem::path& folder, Kind kind,
                                    std::uint64_t holder);

 private:
  AppendFile output_;
  AppendFile errors_;
};

// The parts of one kind that all holders have written, then `more` (which may be missing), as one
// file; its path. Nothing is copied where it is one whole file already. An empty path: there is not
// a byte. `go_on` is asked now and then; false ends in FatalError.
std::filesystem::path join_segments(const std::filesystem::path& folder, BatchOutput::Kind kind,
                                    const std::vector<BatchSegment>& segments,
                                    const std::filesystem::path& more,
                                    const std::function<bool()>& go_on);

}  // namespace tessera::gateway
