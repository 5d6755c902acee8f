#pragma once

#include <simdjson.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clients/cli/io/byte_source.hpp"
#include "clients/cli/io/record.hpp"

namespace tessera::cli {

inline constexpr const char* kDefaultField = "text";
inline constexpr std::array kIdNames = {"id", "_id"};

struct ReadOptions {
  std::string format;  // txt, jsonl, csv or tsv; empty: by the file's name
  std::string field = kDefaultField;
  std::string id_field;           // Empty: "id" or "_id" where the input has it.
  bool no_ids = false;            // The input's ids are not looked at.
  std::string encoding;           // Empty: UTF-8, or what a byte order mark says.
  std::optional<char> delimiter;  // Empty: , of csv, a tab of tsv.
  bool quote_given = false;
  std::optional<char> quote;  // When given: the quote, or that there is none. Else " for csv only.
  bool no_header = false;
  std::string stdin_format = "txt";  // Of what has no name that says it; empty: refused.
};

// A record may be as long as the longest text, wholly written in escapes.
inline constexpr std::size_t kRecordBytesMax = 32U << 20;

// txt: a line a text, empty lines included. jsonl: an object a line, {"text": ...} or {"ids":
// [...]}; blank lines are no records. csv: RFC 4180 with a header row; tsv: the same with tabs and
// without quotes. Nothing is guessed: throws FatalError, with what was found and the option that
// helps, when the file cannot be opened, its kind is not known, its start is of another kind or
// encoding, or lacks the field; before any record is given out.
std::unique_ptr<RecordReader> open_reader(const std::string& path, const ReadOptions& options,
                                          const std::atomic<bool>& stop);

// Several files, one after the other. All are opened and judged at once, so that the last one's
// fault is told before the first one's records are used.
std::unique_ptr<RecordReader> open_readers(const std::vector<std::string>& paths,
                                           const ReadOptions& options,
                                           const std::atomic<bool>& stop);

// Lines of a jsonl file. One thread.
class JsonRecords {
 public:
  // Into `record`, which is a fresh one.
  void parse(const std::string& line, const ReadOptions& options, Record& record);

 private:
  bool parse_fast(const std::string& line, const ReadOptions& options, Record& record);

  simdjson::dom::parser parser_;
};

struct JsonShape {
  bool has_ids = false;
  std::string ids_shown{};  // What is to be said of them.
};
// Throws FatalError when the first lines are no records under these options. `sample`: the start of
// the text, all of it when `whole`.
JsonShape judge_json_lines(const std::string& path, std::string_view sample, bool whole,
                           const ReadOptions& options);
// Whether the first lines of a text are objects of JSON, or an array of them.
bool looks_like_json(std::string_view sample, bool whole);

// "; UTF-16LE by its byte order mark; lines end with CR": what is unusual.
std::string describe_source(const ByteSource& source);

}  // namespace tessera::cli
