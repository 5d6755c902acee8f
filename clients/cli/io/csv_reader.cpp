#include "clients/cli/io/csv_reader.hpp"

#include <algorithm>

#include "common/check.hpp"

namespace tessera::cli {

CsvReader::CsvReader(const std::string& path, const ReadOptions& options, char delimiter,
                     const std::atomic<bool>& stop)
    : source_(path, stop), delimiter_(delimiter) {
  if (read_row() != Row::kRow) {
    if (stop || fields_.empty()) {
      return;  // An empty file has no records.
    }
    throw FatalError(path + ": the header row cannot be read");
  }
  columns_ = fields_.size();
  const auto column = [&](const std::string& name) -> std::optional<std::size_t> {
    const auto found = std::ranges::find(fields_, name);
    return found == fields_.end() ? std::nullopt : std::optional(found - fields_.begin());
  };
  const auto text = column(options.field);
  if (!text && columns_ != 1) {
    throw FatalError(path + ": the header has no column " + options.field + "; say --field");
  }
  text_column_ = text.value_or(0);
  if (!options.id_field.empty()) {
    id_column_ = column(options.id_field);
    if (!id_column_) {
      throw FatalError(path + ": the header has no column " + options.id_field);
    }
  } else if (columns_ > 1) {
    id_column_ = column("id");
  }
}

bool CsvReader::next(Record& record) {
  record = {};
  switch (read_row()) {
    case Row::kEnd:
      return false;
    case Row::kOpenQuote:
      record.fail(ErrorCode::kInvalidArgument, "a quote is never closed");
      return true;
    case Row::kTooLong:
      record.fail(ErrorCode::kTooLong, "the row is longer than 32 MiB");
      return true;
    case Row::kRow:
      break;
  }
  if (fields_.size() != columns_) {
    record.fail(ErrorCode::kInvalidArgument, "the row has " + std::to_string(fields_.size()) +
                                                 " fields, the header " + std::to_string(columns_));
    return true;
  }
  record.text = std::move(fields_[text_column_]);
  if (id_column_) {
    record.id = std::move(fields_[*id_column_]);
  }
  return true;
}

CsvReader::Row CsvReader::read_row() {
  // Blank lines are no rows, except that a single column may be empty in quotes.
  while (source_.peek() == '\n' || source_.peek() == '\r') {
    source_.get();
  }
  fields_.clear();
  row_bytes_ = 0;
  if (source_.peek() == ByteSource::kEnd) {
    return Row::kEnd;
  }
  bool row_ended = false;
  while (!row_ended) {
    if (!read_field(row_ended)) {
      return Row::kOpenQuote;
    }
  }
  return row_bytes_ > kRecordBytesMax ? Row::kTooLong : Row::kRow;
}

bool CsvReader::read_field(bool& row_ended) {
  std::string field;
  const auto keep = [&](int byte) {
    if (++row_bytes_ <= kRecordBytesMax) {
      field.push_back(static_cast<char>(byte));
    }
  };
  bool quoted = source_.peek() == '"';
  if (quoted) {
    source_.get();
  }
  while (true) {
    const int byte = source_.get();
    if (byte == ByteSource::kEnd) {
      row_ended = true;
      fields_.push_back(std::move(field));
      return !quoted;
    }
    if (quoted && byte == '"') {
      quoted = source_.peek() == '"';  // Doubled: a quote in the text.
      if (quoted) {
        keep(source_.get());
      }
    } else if (!quoted && (byte == delimiter_ || byte == '\n')) {
      row_ended = byte == '\n';
      break;
    } else if (!quoted && byte == '\r' && source_.peek() == '\n') {
      source_.get();
      row_ended = true;
      break;
    } else {
      keep(byte);
    }
  }
  // Rows beyond any sense of fields must not grow without bound either.
  if (++row_bytes_ <= kRecordBytesMax) {
    fields_.push_back(std::move(field));
  }
  return true;
}

}  // namespace tessera::cli
