#include "clients/cli/io/csv_reader.hpp"

#include <fmt/core.h>

#include "clients/cli/io/file_kind.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

std::string lines_of(const CsvRows& rows) {
  return rows.last_line() == rows.line()
             ? fmt::format("line {}", rows.line())
             : fmt::format("lines {} to {}", rows.line(), rows.last_line());
}

// Where the first row is no header, it must be read again as a record.
std::vector<std::string> first_row(std::string_view sample, const CsvDialect& dialect) {
  const std::atomic<bool> kNoStop{false};
  ByteSource source(sample, kNoStop);
  CsvRows rows(source, dialect);
  rows.next();
  return rows.fields();
}

}  // namespace

CsvReader::CsvReader(const std::string& path, const ReadOptions& options, CsvDialect dialect,
                     const std::atomic<bool>& stop)
    : source_(path, options.encoding, stop),
      dialect_(dialect),
      options_(options),
      rows_(source_, dialect) {
  const std::vector<std::string> header = first_row(source_.sample(), dialect_);
  if (header.empty()) {
    return;  // An empty file has no records.
  }
  columns_ = choose_columns(path, header, dialect_, options_);
  judge_rows(path, source_.sample(), source_.sample_is_all(), dialect_, options_);
  quotes_seen_ = !dialect_.quote && source_.sample().find("\t\"") != std::string_view::npos;
  if (!options_.no_header && rows_.next() != CsvRows::Row::kRow && !stop) {
    throw FatalError(path + ": its first row, " + lines_of(rows_) + ", cannot be read as a header");
  }
}

std::string CsvReader::description() const {
  if (columns_.names.empty()) {
    return "empty";
  }
  std::string list;
  for (const std::string& name : columns_.names) {
    list += (list.empty() ? "" : ", ") + shown(name);
    if (list.size() > 400) {
      list += ", ...";
      break;
    }
  }
  std::string text = fmt::format("{} column{}: {}; embedding {}", columns_.names.size(),
                                 columns_.names.size() == 1 ? "" : "s", list,
                                 shown(columns_.names[columns_.text]));
  if (columns_.id) {
    text += "; ids from " + shown(columns_.names[*columns_.id]);
  } else if (const std::string similar = similar_id(columns_.names, options_); !similar.empty()) {
    text += "; if " + shown(similar) + " is the id, say --id-field " + shell_word(similar);
  }
  if (quotes_seen_) {
    text += "; quotes stand for themselves (--quote '\"' if they enclose fields)";
  }
  return text + describe_source(source_);
}

bool CsvReader::next(Record& record) {
  record = {};
  const CsvRows::Row row = rows_.next();
  if (row == CsvRows::Row::kEnd) {
    return false;
  }
  record.place.line = rows_.line();
  std::vector<std::string>& fields = rows_.fields();
  switch (row) {
    case CsvRows::Row::kOpenQuote:
      record.fail(ErrorCode::kInvalidArgument,
                  fmt::format("a quote opens in line {} and is never closed: {} are lost to it",
                              rows_.quote_line(), lines_of(rows_)));
      return true;
    case CsvRows::Row::kQuoteInside:
      record.fail(ErrorCode::kInvalidArgument,
                  lines_of(rows_) +
                      ": something follows a closing quote; say --quote none if "
                      "quotes stand for themselves");
      return true;
    case CsvRows::Row::kTooLong:
      record.fail(ErrorCode::kTooLong, "the row is longer than 32 MiB");
      return true;
    default:
      break;
  }
  if (fields.size() != columns_.names.size()) {
    record.fail(ErrorCode::kInvalidArgument, "the row has " + std::to_string(fields.size()) +
                                                 " fields, the header " +
                                                 std::to_string(columns_.names.size()));
    return true;
  }
  record.text = std::move(fields[columns_.text]);
  if (columns_.id) {
    record.id = {RecordId::Kind::kText,
                 columns_.id == columns_.text ? record.text : std::move(fields[*columns_.id])};
  }
  return true;
}

}  // namespace tessera::cli
