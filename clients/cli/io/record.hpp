#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/result.hpp"

namespace tessera::cli {

// One item of an input file. A record that cannot be sent (broken JSON, no such field) carries its
// error and keeps its place: the item's error, never the file's end.
struct Record {
  std::string id;  // Empty: the item has no name of its own.
  std::string text;
  std::vector<std::int32_t> ids;  // Token ids instead of text; `is_ids` tells.
  bool is_ids = false;
  Error error{.code = ErrorCode::kOk, .message = {}};

  void fail(ErrorCode code, std::string message) {
    text.clear();
    ids.clear();
    is_ids = false;
    error = {code, std::move(message)};
  }
};

// Records one by one. `next` throws FatalError when the file cannot be read.
class RecordReader {
 public:
  virtual ~RecordReader() = default;
  // False at the end, which includes a stop asked for through the source's stop flag.
  virtual bool next(Record& record) = 0;
  // Bytes of the input behind the records given out so far.
  virtual std::uint64_t bytes_read() const = 0;
};

}  // namespace tessera::cli
