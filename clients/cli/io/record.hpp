#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/result.hpp"

namespace tessera::cli {

// The name of an item, byte for byte as its input has it.
struct RecordId {
  enum class Kind : std::uint8_t {
    kNone,  // The item has no name.
    kText,  // A string.
    kJson,  // Another value of JSON as it was written: 7, 1.0, true, {"a":1}.
  };
  Kind kind = Kind::kNone;
  std::string text;

  bool operator==(const RecordId&) const = default;
  // As a value of JSON: a string, the value itself, or null. Bytes that are no UTF-8 become U+FFFD.
  std::string as_json() const;
};

// Where an item stands: which of the input's files, and the line there, from 1, in which it begins.
struct RecordPlace {
  std::uint32_t file = 0;
  std::uint64_t line = 0;
};

// One item of an input file. A record that cannot be sent (broken JSON, no such field) carries its
// error and keeps its place: the item's error, never the file's end.
struct Record {
  RecordId id;
  std::string text;
  std::vector<std::int32_t> ids;  // Token ids instead of text; `is_ids` tells.
  bool is_ids = false;
  RecordPlace place;
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
  // What was found and how it is read, for people: "3 columns: ..."; a line for each kind of file.
  virtual std::string description() const = 0;
  // Whether records are named by the input. Where none is, they are named by their numbers.
  virtual bool has_ids() const = 0;
};

}  // namespace tessera::cli
