#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "clients/cli/io/record.hpp"

namespace tessera::cli {

struct ReadOptions {
  std::string format;  // txt, jsonl, csv or tsv; empty: by the file's name, stdin is txt
  std::string field = "text";
  std::string id_field;  // Empty: "id" or "_id" where the record has it.
};

// A record may be as long as the longest text, wholly written in escapes.
inline constexpr std::size_t kRecordBytesMax = 32U << 20;

// txt: a line a text, empty lines included. jsonl: an object a line, {"text": ...} or {"ids":
// [...]}; blank lines are no records. csv: RFC 4180 with a header row. Throws FatalError when the
// file cannot be opened, its kind is not known, or a header lacks the field.
std::unique_ptr<RecordReader> open_reader(const std::string& path, const ReadOptions& options,
                                          const std::atomic<bool>& stop);

// Several files, one after the other. All are opened and judged at once, so that the last one's
// fault is told before the first one's records are used.
std::unique_ptr<RecordReader> open_readers(const std::vector<std::string>& paths,
                                           const ReadOptions& options,
                                           const std::atomic<bool>& stop);

// One line of a jsonl file.
void parse_json_record(const std::string& line, const ReadOptions& options, Record& record);

}  // namespace tessera::cli
