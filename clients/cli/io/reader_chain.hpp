#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/io/readers.hpp"

namespace tessera::cli {

// Several files as one input. Regular files are judged, closed, and opened again in their turn, so
// that any number of them costs one open file; what can be read once stays open.
class ReaderChain : public RecordReader {
 public:
  ReaderChain(std::vector<std::string> paths, ReadOptions options, const std::atomic<bool>& stop);

  // Throws FatalError for a record that has an id when those before it were named by their numbers.
  bool next(Record& record) override;
  std::uint64_t bytes_read() const override;
  std::string description() const override { return description_; }
  bool has_ids() const override { return has_ids_; }

 private:
  std::vector<std::string> paths_;
  ReadOptions options_;
  const std::atomic<bool>& stop_;
  std::vector<std::unique_ptr<RecordReader>> opened_;  // Those that cannot be opened again.
  std::string description_;
  bool has_ids_ = false;
  std::size_t next_path_ = 0;
  std::uint64_t bytes_before_ = 0;
  std::unique_ptr<RecordReader> current_;
};

}  // namespace tessera::cli
